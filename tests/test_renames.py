"""Files of older versions: cards, weights, summaries, tables, studies and spaces with names that have changed since."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from autovae import VAESpec, fit
from autovae.export.card import load_prior, load_vae, read_card, save_vae
from autovae.renames import RENAMED, folder_named, renamed
from autovae.report.record import read_record
from autovae.search.restore import finals_of
from autovae.search.study import load_study
from autovae.training.train_state import TrainState, load_state, save_state

PUBLISHED = sorted(path.parent for path in (Path(__file__).parents[1] / "results").glob("*/rivals"))
SPEC = VAESpec(learned_prior="flow", latent_dim=2, hidden=(8,), epochs=1, batch_size=200)


def old(text):
    """A text of plain values as the older version wrote it."""
    for before, now in RENAMED.items():
        text = text.replace(f'"{now}"', f'"{before}"')
    return text


@pytest.fixture(scope="module")
def trained():
    return fit(SPEC, "digits")


@pytest.fixture
def saved(trained, tmp_path):
    """A model as the older version saved it."""
    folder = save_vae(trained.model, trained.data, tmp_path / "rivals" / "flow")
    weights = {
        name.replace("learned_prior.", "rival."): value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    card = json.loads(old((folder / "card.json").read_text()))
    card["weights_sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_keys_are_renamed_at_every_depth_and_values_are_not():
    before = {"spec": {"rival": "rival"}, "list": [{"rivals": 1}], "rival.flow.rival": 2, "rivalry": 3, 4: "rivals"}
    now = {
        "spec": {"learned_prior": "rival"}, "list": [{"learned_priors": 1}], "learned_prior.flow.rival": 2,
        "rivalry": 3, 4: "rivals",
    }  # fmt: skip
    assert renamed(before) == now == renamed(now)


def test_a_folder_has_its_old_name_only_where_it_has_no_new_one(tmp_path):
    assert folder_named(tmp_path, "learned_priors").name == "learned_priors"
    (tmp_path / "rivals").mkdir()
    assert folder_named(tmp_path, "learned_priors").name == "rivals"
    (tmp_path / "learned_priors").mkdir()
    assert folder_named(tmp_path, "learned_priors").name == "learned_priors"


def test_an_old_model_loads(trained, saved):
    vae, card = load_vae(saved)
    assert vae.spec == SPEC
    assert card["spec"]["learned_prior"] == "flow"
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(vae.state_dict()[name], value, rtol=0, atol=0)
    assert load_prior(saved).sample(3).shape == (3, 2)


def test_an_old_checkpoint_loads(trained, tmp_path):
    path = tmp_path / "member.safetensors"
    names = [name for name, _ in trained.model.named_parameters()]
    save_state(TrainState(trained.model, moments={f"{name}/mean": torch.ones(1) for name in names}), path)
    content = path.read_bytes()
    about = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    tensors = {name.replace("/learned_prior.", "/rival."): value for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={name: old(text) for name, text in about.items()})
    member = load_state(path)
    assert member.spec == SPEC
    assert member.moments.keys() == {f"{name}/mean" for name in names}


def test_there_are_published_folders_with_old_names():
    assert PUBLISHED


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_a_published_folder_reads_and_says_what_to_restore(folder):
    record = read_record(folder)
    assert record.summary
    assert {"flow", "vampprior"} <= record.summary["gain_over_learned_priors"].keys()
    assert all("rival" not in row and "learned_prior" in row for row in record.trials)
    learned = folder_named(folder, "learned_priors")
    for place in learned.iterdir():
        assert read_card(place)["spec"]["learned_prior"] == place.name
        assert finals_of(folder)[f"rivals/{place.name}"][0].spec.learned_prior == place.name


def test_old_study_and_space_files_are_read(tmp_path):
    (tmp_path / "space.toml").write_text(
        '[parameters.rival]\nchoices = ["", "flow"]\n[parameters.alpha]\nlow = 0.5\nhigh = 1.0\n'
    )
    (tmp_path / "study.toml").write_text(
        'purpose = "old"\ndata = "digits"\nspace = "space.toml"\ntrials = 2\n[training]\nepochs = 1\n'
    )
    assert load_study(tmp_path / "study.toml").space.decides == ("learned_prior", "alpha")
    (tmp_path / "space.toml").write_text('[parameters.alpha]\nlow = 0.5\nhigh = 1.0\n[fixed]\nrival = "flow"\n')
    study = load_study(tmp_path / "study.toml")
    assert study.spec(study.space.example(), seed=0).learned_prior == "flow"
    (tmp_path / "space.toml").write_text("[parameters.alpha]\nlow = 0.5\nhigh = 1.0\n")
    with (tmp_path / "study.toml").open("a") as file:
        file.write('rival = "mixture"\n')
    study = load_study(tmp_path / "study.toml")
    assert study.spec(study.space.example(), seed=0).learned_prior == "mixture"

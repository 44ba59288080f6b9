"""Priors on disk without their encoder, ex-post sources beside a prior, the hub's layout, and what is refused."""

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import autovae
from autovae.data.datasets import load
from autovae.export.card import CardError, add_sources, load_prior, load_vae, read_card, save_vae, to_prior
from autovae.export.ex_post import fit_mixture, fit_sources
from autovae.export.prior import PriorModule
from autovae.export.transports import Affine
from autovae.model.vae import build
from autovae.reasoning import Gaussian, LatentPosterior, MeanField
from autovae.spec import VAESpec
from autovae.training.trained import Trained


def trained(**settings):
    data = load("digits")
    vae = build(VAESpec(latent_dim=3, hidden=(8,), **settings), data.domain)
    return Trained(vae, [], vae.spec, data)


def same(one, other):
    xi = torch.randn(5, one.latent_dim, generator=torch.Generator().manual_seed(0))
    z = one.from_normal(xi)
    torch.testing.assert_close(other.from_normal(xi), z)
    torch.testing.assert_close(other.log_prob(z), one.log_prob(z))
    torch.testing.assert_close(other.decode(z), one.decode(z))
    torch.testing.assert_close(
        other.observe(z, torch.Generator().manual_seed(1)), one.observe(z, torch.Generator().manual_seed(1))
    )


SHIFT = Affine(torch.ones(3), torch.eye(3))
PRIORS = {
    "plain": lambda: to_prior(trained(prior={"normal": 2, "cauchy": 1})),
    "pixel scale": lambda: to_prior(trained(likelihood="normal", scale="pixel")),
    "global scale": lambda: to_prior(trained(likelihood="laplace")),
    "moved": lambda: to_prior(trained()).transported(Affine(torch.ones(3), torch.full((3,), 0.5))),
    "mixture": lambda: to_prior(trained()).transported(fit_mixture(torch.randn(50, 3), 4)),
    "learned prior": lambda: to_prior(trained(learned_prior="flow")),
    "moved learned prior": lambda: to_prior(trained(learned_prior="mixture", components=4)).transported(SHIFT),
    "replicated": lambda: to_prior(trained()).transported(SHIFT).replicate(2),
}  # fmt: skip


@pytest.mark.parametrize("name", PRIORS)
def test_a_saved_prior_is_the_same_prior(tmp_path, name):
    prior = PRIORS[name]()
    folder = prior.save(tmp_path / "prior", {"score": {"bits": 1.5}})
    same(prior, load_prior(folder))
    same(prior, PriorModule.from_pretrained(folder))
    again = load_prior(folder).save(tmp_path / "again")
    same(prior, load_prior(again))
    assert read_card(again)["score"] == {"bits": 1.5}
    with pytest.raises(CardError, match="without its encoder"):
        load_vae(folder)


def test_an_answer_is_saved_as_a_prior(tmp_path):
    prior = to_prior(trained())
    posterior = LatentPosterior(prior, Gaussian(None, prior.decode(prior.sample(1))[0].detach(), 0.3))
    answer = MeanField().run(posterior, 10).as_prior()
    again = load_prior(answer.save(tmp_path / "answer"))
    same(answer, again)
    assert again.card["answer"]["method"] == "mean_field"


def test_real_data_keep_their_units(tmp_path):
    data = load((torch.randn(60, 2, 3, generator=torch.Generator().manual_seed(0)) * 50 + 1000).numpy())
    vae = build(VAESpec(latent_dim=3, hidden=(8,), likelihood="normal"), data.domain)
    prior = to_prior(Trained(vae, [], vae.spec, data))
    same(prior, load_prior(prior.save(tmp_path / "prior")))


def test_a_wrapped_generator_says_how_to_register_it(tmp_path):
    with pytest.raises(CardError, match="NETWORKS under a name"):
        PriorModule.from_decoder(torch.nn.Linear(3, 4)).save(tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


@pytest.fixture(scope="module")
def with_sources(tmp_path_factory):
    fit = autovae.fit(VAESpec(latent_dim=3, hidden=(16,), epochs=3, batch_size=200, learning_rate=1e-2), "digits")
    folder = save_vae(fit.model, fit.data, tmp_path_factory.mktemp("vae"), {"score": {"bits": "3.1 +- 0.1"}})
    sources, scores = fit_sources(fit, ["mixture"])
    return add_sources(folder, sources, scores), sources["mixture"]


def test_a_source_is_kept_beside_the_prior_with_both_scores(with_sources):
    folder, mixture = with_sources
    plain, moved = load_prior(folder), PriorModule.from_pretrained(folder, source="mixture")
    same(moved, plain.transported(mixture))
    scores = {name: source["scores"] for name, source in read_card(folder)["sources"].items()}
    mean = "log density of encoded test points"
    assert scores["mixture"][mean] > scores["prior"][mean]
    assert moved.card["source"] == "mixture"
    assert f"| {mean} |" in (folder / "README.md").read_text()
    with pytest.raises(CardError, match="it has prior, mixture"):
        load_prior(folder, source="flow")
    load_vae(folder)  # the VAE is still there


def test_scores_are_added_and_nothing_is_lost(with_sources, tmp_path):
    folder, mixture = with_sources
    before = read_card(folder)
    add_sources(folder, {"other": mixture}, {"prior": {"KID": 0.1}})
    after = read_card(folder)
    assert set(after["sources"]) == {"prior", "mixture", "other"}
    assert after["sources"]["prior"]["scores"] == {**before["sources"]["prior"]["scores"], "KID": 0.1}
    assert after["score"] == before["score"]
    same(load_prior(folder, "mixture"), load_prior(folder, "other"))
    with pytest.raises(CardError, match="other than prior"):
        add_sources(folder, {"prior": mixture})


def test_the_folder_has_the_layout_of_the_hub(with_sources):
    folder, _ = with_sources
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: autovae\n")
    assert "Licence of the data" in text
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["PriorModule"]


def test_the_header_is_what_the_hub_reads(with_sources):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    header = hub.ModelCard.load(with_sources[0] / "README.md").data
    assert header.library_name == "autovae"
    assert "prior" in header.tags


def test_names_that_are_no_folder(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is no folder; expected"):
        PriorModule.from_pretrained(tmp_path / "nothing" / "here")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"autovae\[hub\]"):
        PriorModule.from_pretrained("owner/name")


# -- tampering: the checksum is made to agree again, so that what stands behind it is seen ------------------------------


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    seal(folder)


def seal(folder, **changes):
    card = json.loads((folder / "card.json").read_text()) | changes
    card["weights_sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


class Trap:
    """Runs on unpickling."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def plant_pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    seal(folder)


def plant_torch_file(folder):
    torch.save({"decoder": Trap()}, folder / "model.safetensors")
    seal(folder)


def generator_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    seal(folder, generator={**card["generator"], **changes})


TAMPERED = {
    "pickle": plant_pickle,
    "torch file": plant_torch_file,
    "cut short": lambda f: (
        (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:100]),
        seal(f),
    ),
    "another shape": lambda f: rewrite(f, lambda t: t.update({"decoder.0.weight": torch.zeros(8, 4)})),
    "a tensor too few": lambda f: rewrite(f, lambda t: t.pop("decoder.0.weight")),
    "a tensor too many": lambda f: rewrite(f, lambda t: t.update({"decoder.9.weight": torch.zeros(2)})),
    "units": lambda f: rewrite(f, lambda t: t.update({"offset": torch.zeros(5)})),
    "no units": lambda f: rewrite(f, lambda t: t.pop("unit")),
}


@pytest.mark.parametrize("name", TAMPERED)
@pytest.mark.parametrize("kind", ["vae", "generator"])
def test_tampered_weights_are_refused_and_run_nothing(tmp_path, name, kind):
    fit = trained()
    if kind == "vae":
        folder = save_vae(fit.model, fit.data, tmp_path / "prior")
    else:
        folder = to_prior(fit).save(tmp_path / "prior")
    load_prior(folder)
    TAMPERED[name](folder)
    with pytest.raises(CardError, match="does not hold the model"):
        load_prior(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: generator_card(f, families=["normal"] * 4),
        lambda f: generator_card(f, families=["norml"] * 3),
        lambda f: generator_card(f, objects=0),
        lambda f: generator_card(f, transport={"kind": "pickle"}),
        lambda f: generator_card(f, transport={"kind": "affine", "dim": 4, "full": False}),
        lambda f: generator_card(f, transport=7),
        lambda f: rewrite(f, lambda t: t.update({"transport.loc": torch.zeros(4)})),
        lambda f: rewrite(f, lambda t: t.pop("transport.root")),
    ],
)
def test_a_tampered_generator_is_refused(tmp_path, damage):
    folder = PRIORS["moved"]().save(tmp_path / "prior")
    load_prior(folder)
    damage(folder)
    with pytest.raises(CardError, match="does not hold the model"):
        load_prior(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: rewrite(f, lambda t: t.update({"source.mixture.loc": torch.zeros(2, 3)})),
        lambda f: seal(f, sources={"mixture": {"transport": {"kind": "mixture", "components": 10, "families": ["x"]}}}),
        lambda f: seal(f, sources={"mixture": 3}),
    ],
)
def test_a_tampered_source_is_refused(tmp_path, damage):
    fit = trained()
    folder = save_vae(fit.model, fit.data, tmp_path / "prior")
    add_sources(folder, {"mixture": fit_mixture(torch.randn(50, 3))})
    damage(folder)
    load_prior(folder)
    with pytest.raises(CardError, match="does not hold the model"):
        load_prior(folder, source="mixture")

"""Fidelity of saved models: the sets, the floor, what is kept in the card, the command."""

import importlib.util
import json

import numpy as np
import pytest
import torch

import autovae
from autovae.cli import main
from autovae.data.datasets import load
from autovae.export.card import CardError, load_prior, load_vae, read_card, save_vae
from autovae.export.fidelity import FLOOR, fidelity_of, folders_of, keep, kid_of_models, real_points
from autovae.metrics.fidelity import Extractor
from autovae.model.vae import build
from autovae.spec import VAESpec

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed"
)


def plain(x):
    flat = x.flatten(1)
    return flat[:, 20:26], flat[:, 20:23]


PIXELS = Extractor("six pixels", plain, {"accuracy": float("nan")})


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("autovae.metrics.fidelity.SUBSETS", 5)
    monkeypatch.setattr("autovae.metrics.fidelity.compare.__defaults__", (0, 5))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A fitted winner and an unfitted baseline as a run leaves them."""
    folder = tmp_path_factory.mktemp("results") / "made"
    fit = autovae.fit(VAESpec(latent_dim=4, hidden=(32,), epochs=15, batch_size=100, learning_rate=5e-3), "digits")
    save_vae(fit.model, fit.data, folder / "winners" / "1")
    save_vae(build(fit.spec, fit.data.domain), fit.data, folder / "baseline")
    return folder


def test_the_floor_is_below_a_fit_and_a_fit_below_none(study, quick):
    data = load("digits")
    real = real_points(data, PIXELS, 200)
    assert real.count == 200
    fitted, unfitted = (fidelity_of(path, data, real) for path in folders_of(study).values())
    assert list(fitted) == [FLOOR, "reconstructions", "prior"]
    assert fitted[FLOOR].kid < fitted["prior"].kid < unfitted["prior"].kid
    assert fitted["reconstructions"].fid < unfitted["reconstructions"].fid
    assert {row.points for row in fitted.values()} == {200}


def test_scores_are_kept_in_the_card_with_their_label(study, quick, tmp_path):
    data, path = load("digits"), study / "baseline"
    before = load_prior(path).state_dict()
    keep(path, fidelity_of(path, data, real_points(data, PIXELS, 50)), PIXELS)
    card = read_card(path)
    kept = card["fidelity"]["six pixels"]
    assert kept["facts"] == {"accuracy": None}
    assert kept["rows"]["prior"]["points"] == 50
    assert "FID (six pixels)" in card["sources"]["prior"]["scores"]
    assert "FID (six pixels)" in (path / "README.md").read_text()
    assert all(torch.equal(value, before[name]) for name, value in load_prior(path).state_dict().items())


def test_binary_data_are_compared_with_draws(tmp_path, quick):
    np.savez(tmp_path / "b.npz", x=np.random.default_rng(0).integers(0, 2, (200, 6, 6)).astype(np.uint8))
    data = load(tmp_path / "b.npz")
    folder = save_vae(build(VAESpec(latent_dim=2, hidden=(8,)), data.domain), data, tmp_path / "p")
    seen = []

    def spy(x):
        seen.append(x)
        return plain(x)

    fidelity_of(folder, data, real_points(data, Extractor("spy", spy), 20))
    assert all(set(x.unique().tolist()) <= {0.0, 1.0} for x in seen)


def test_the_command_scores_a_study_fits_densities_and_keeps_all(study, quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("autovae.model.cache.cache_folder", lambda: tmp_path / "networks")
    monkeypatch.setattr("autovae.model.classifiers._epochs", lambda settings, points: 3)
    assert main(["fidelity", str(study), "digits", "--points", "60", "--fit", "mixture", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["features"] == "digits-cnn features"
    assert 0 < values["facts"]["accuracy"] <= 1
    assert list(values["models"]) == ["winner 1", "baseline"]
    assert list(values["models"]["winner 1"]) == [FLOOR, "reconstructions", "prior", "mixture"]
    assert any("full rank" in text for text in values["warnings"])
    scores = read_card(study / "winners" / "1")["sources"]["mixture"]["scores"]
    assert {"FID (digits-cnn features)", "log density of encoded test points"} <= scores.keys()
    assert main(["fidelity", str(study / "baseline"), "--points", "60"]) == 0
    assert "digits-cnn features (accuracy" in capsys.readouterr().out


def test_kid_as_an_objective_ranks_a_fit_before_none(study):
    data = load("digits")
    models = [load_vae(path)[0] for path in folders_of(study).values()]
    fitted, unfitted = kid_of_models(models, data, PIXELS, points=100)
    assert fitted < unfitted
    with torch.no_grad():
        models[1].decoder[0].bias.fill_(float("nan"))
    assert kid_of_models(models, data, PIXELS, points=100) == [fitted, float("inf")]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--features", "domian"], "'domain'"),
        (["--fit", "flwo"], "'flow'"),
        (["--points", "9"], "10"),
        (["fashion"], "fashion"),
    ],
)
def test_bad_requests(study, more, words, capsys):
    assert main(["fidelity", str(study), *more]) == 2
    assert words in capsys.readouterr().err


def test_folders_without_a_prior(tmp_path):
    with pytest.raises(ValueError, match="holds no saved prior"):
        folders_of(tmp_path)


def test_data_of_another_shape(study, tmp_path):
    np.savez(tmp_path / "b.npz", x=np.random.default_rng(0).integers(0, 17, (200, 6, 6)).astype(np.uint8))
    data = load(tmp_path / "b.npz")
    with pytest.raises(CardError, match="shape"):
        fidelity_of(study / "baseline", data, real_points(data, PIXELS, 20))

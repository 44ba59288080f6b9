"""Every reproduction end to end with a tiny setting: its files, and that a finished step is not done again."""

import csv
import math

import numpy as np
import pytest
import torch

from autovae.data.datasets import load
from autovae.reproductions import continuous_bernoulli, iwae_mnist, vr_alpha
from autovae.reproductions.lr_schedule import fit_stages
from autovae.reproductions.notebook import Notebook
from autovae.reproductions.settings import CoinSettings, IWAESettings, RenyiSettings
from autovae.spec import VAESpec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bits(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "bits.npz"
    np.savez(path, x=np.random.RandomState(0).rand(200, 6, 6) < 0.3)
    return path


def iwae_settings(bits):
    return IWAESettings(
        groups=[
            {"bound": "vae", "samples": 1, "seeds": 2},
            {"bound": "iwae", "samples": 5, "seeds": 2},
        ],
        stages=[(1, 1e-2), (1, 1e-3)],
        latent_dim=2,
        hidden=[8],
        points=12,
        samples=60,
        data=str(bits),
    )


def vr_settings(bits):
    experiment = {
        "data": str(bits), "split": "shuffled", "hidden": [8], "latent_dim": 2, "alphas": [1.0, 0.0, -math.inf],
        "seeds": 2, "stages": [(1, 1e-2)], "points": 10, "samples": 60,
    }  # fmt: skip
    return RenyiSettings(experiments=[experiment], curves={"points": 6, "samples": 100, "K": [1, 5, 50]})


def coin_settings(_):
    return CoinSettings(
        data="digits", likelihoods=("continuous_bernoulli", "bernoulli", "normal"), stages=[(1, 1e-3)], hidden=[8],
        latent_dim=2, points=20, samples=10, bits_points=6,
        bits_samples=4, neighbour_points=100, drawn=20, classifier_epochs=1,
    )  # fmt: skip


CASES = {
    "iwae_mnist": (iwae_mnist, iwae_settings, 2, {"figures/nll.png", "fits.csv"}),
    "vr_alpha": (vr_alpha, vr_settings, 3, {"figures/bound_against_alpha.png", "figures/gradient_weights.png"}),
    "continuous_bernoulli": (continuous_bernoulli, coin_settings, 3, {"figures/samples.png"}),
}


@pytest.mark.parametrize("name", CASES)
def test_end_to_end_and_resumed(name, bits, tmp_path):
    module, settings, count, files = CASES[name]
    said = []
    notebook = Notebook(tmp_path / name, said.append)
    notebook.open({"name": name})
    summary = module.run(settings(bits), notebook, None, CPU)
    for file in {"table.csv", "README.md", *files}:
        assert (notebook.path / file).stat().st_size > 100, file
    with (notebook.path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(summary["rows"]) == count
    assert said
    before = (notebook.path / "table.csv").read_bytes()
    said.clear()
    module.run(settings(bits), notebook, None, CPU)
    assert not said
    assert (notebook.path / "table.csv").read_bytes() == before


def test_a_killed_fit_goes_on_with_the_same_result(bits, tmp_path):
    data = load(bits)
    specs = [VAESpec(latent_dim=2, hidden=(8,), batch_size=50, seed=seed) for seed in range(2)]
    stages = [(2, 1e-2), (1, 1e-3)]
    whole = fit_stages(specs, stages, data, CPU, tmp_path, str, "whole")

    folder = tmp_path / "again"
    folder.mkdir()
    first = fit_stages(specs, stages[:1], data, CPU, folder, str, "part")
    assert not torch.equal(first[0].decoder[0].weight, whole[0].decoder[0].weight)
    resumed = fit_stages(specs, stages, data, CPU, folder, str, "rest")
    for one, other in zip(whole, resumed, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_rates_of_stages_are_used(bits, tmp_path):
    """A stage of rate 1e-12 moves nothing."""
    data = load(bits)
    spec = VAESpec(latent_dim=2, hidden=(8,), batch_size=50)
    (one,) = fit_stages([spec], [(1, 1e-2)], data, CPU, tmp_path, str, "one")
    weight = one.decoder[0].weight.detach().clone()
    (two,) = fit_stages([spec], [(1, 1e-2), (1, 1e-12)], data, CPU, tmp_path, str, "two")
    assert torch.allclose(weight, two.decoder[0].weight, atol=1e-9)


def test_another_fit_in_the_folder_is_refused(bits, tmp_path):
    data = load(bits)
    spec = VAESpec(latent_dim=2, hidden=(8,), batch_size=50)
    fit_stages([spec], [(1, 1e-3)], data, CPU, tmp_path, str, "one")
    with pytest.raises(ValueError, match="another fit"):
        fit_stages([spec.replace(samples=2)], [(1, 1e-3)], data, CPU, tmp_path, str, "two")


def test_inception_score_of_certain_and_of_blind_classifiers():
    certain = 50 * torch.nn.functional.one_hot(torch.arange(100) % 10, 10).double()
    assert continuous_bernoulli.inception_score(certain)[0] == pytest.approx(10, rel=1e-6)
    assert continuous_bernoulli.inception_score(torch.zeros(100, 10))[0] == pytest.approx(1)

"""Samplers replayed on a table whose truth is known."""

import csv
import itertools

import numpy as np
import optuna
import pytest
import torch

from autovae.reproductions.notebook import Notebook
from autovae.reproductions.sampler_regret import Table, _encoded, replay, run
from autovae.reproductions.settings import RegretSettings
from autovae.search.space import load_space

COST = {"normal": 0.0, "laplace": 0.3, "logistic": 0.1, "bernoulli": 1.0}


@pytest.fixture
def space(tmp_path):
    (tmp_path / "small.toml").write_text(
        '[parameters.pair]\nposteriors = ["normal", "laplace", "logistic"]\npriors = ["normal", "laplace", "logistic"]\n'
        '[parameters.likelihood]\nchoices = ["bernoulli", "normal"]\n'
        "[parameters.alpha]\nchoices = [0.5, 1.0]\n"
    )
    return load_space(tmp_path / "small.toml")


def rows(space, noise):
    rng = np.random.default_rng(0)
    pairs = space.parameters["pair"].pairs
    for (q, p), likelihood, alpha, seed in itertools.product(pairs, ("bernoulli", "normal"), (0.5, 1.0), range(3)):
        score = COST[q] + 2 * COST[p] + COST[likelihood] + 0.05 * alpha + noise * rng.normal()
        yield {
            "number": 0, "state": "COMPLETE", "score": score, "posterior": q, "prior": p, "likelihood": likelihood,
            "alpha": alpha, "seed": seed,
        }  # fmt: skip


def test_a_grid_without_noise_finds_the_optimum_and_regret_never_grows(space):
    table = Table(list(rows(space, 0.0)))
    assert table.words(table.best) == "normal|normal, normal, alpha 0.5"
    for sampler in ("grid", "random", "tpe"):
        regrets = replay(table, space, sampler, 36, 4, seed=1)
        assert (np.diff(regrets) <= 1e-12).all()
    assert replay(table, space, "grid", 36, 4, seed=1)[-1] == 0


def test_noise_is_the_spread_between_seeds(space):
    assert Table(list(rows(space, 0.2))).noise == pytest.approx(0.2, rel=0.2)


def test_the_run_writes_regrets_and_the_exact_decomposition(space, tmp_path):
    made = list(rows(space, 0.001))
    folder = tmp_path / "results" / "small_table"
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text("format = 1\n")
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    notebook = Notebook(tmp_path / "results" / "regret")
    notebook.open({"name": "regret"})
    settings = RegretSettings(
        table="small_table",
        space=str(tmp_path / "small.toml"),
        samplers=["random", "tpe, a third random"],
        trials=16,
        replays=2,
    )
    found = run(settings, notebook, None, torch.device("cpu"))
    assert "bits per dimension above the best" in found["sentence"]
    with (notebook.path / "decomposition.csv").open() as file:
        shares = {(row["axis"], row["with_axis"]): float(row["exact"]) for row in csv.DictReader(file)}
    variance = {name: np.var(v) for name, v in {
        "posterior": [0, 0.3, 0.1], "prior": [0, 0.6, 0.2], "likelihood": [1.0, 0], "alpha": [0.025, 0.05]}.items()}  # fmt: skip
    total = sum(variance.values())
    for name, value in variance.items():
        assert shares[name, ""] == pytest.approx(value / total, abs=2e-3)


def test_an_unfinished_table_is_refused_with_the_command_that_finishes_it(space, tmp_path):
    notebook = Notebook(tmp_path / "results" / "regret")
    notebook.open({"name": "regret"})
    with pytest.raises(ValueError, match="autovae run nowhere"):
        run(RegretSettings(table="nowhere"), notebook, None, torch.device("cpu"))


def test_encodings_of_shares_are_replayed_on_one_table(tmp_path):
    (tmp_path / "shares.toml").write_text(
        '[parameters.pairing]\nchoices = ["normal|normal", "laplace|laplace", "uniform|uniform"]\nencoding = "per_latent"\n'
        '[fixed]\nlatent_dim = 4\nlikelihood = "normal"\n'
    )
    space = load_space(tmp_path / "shares.toml")
    made, study = [], optuna.create_study()
    for params in space.points():
        study.enqueue_trial(params)
        settings = space.suggest(study.ask())
        score = settings["posterior"].count("uniform") + 0.1 * settings["posterior"].count("laplace")
        made.append({"score": score, "likelihood": "normal", "alpha": 1.0, "state": "COMPLETE", **settings})
    assert len(made) == space.size == 15
    table = Table(made)
    assert table.words(table.best) == "normal|normal, normal, alpha 1"
    for encoding in ("two", "three", "simplex", "per_latent"):
        regrets = replay(table, _encoded(space, encoding), "tpe", 30, 5, seed=0)
        assert regrets[-1] <= regrets[0]
    with pytest.raises(ValueError, match="encoding"):
        _encoded(space, "four")

"""The table of pairs and likelihoods: the same models as in the search, every measure beside them, and the floor."""

import csv
import shutil

import pytest
import torch

from autovae.metrics.fidelity import Extractor
from autovae.report.html import build_report
from autovae.report.losses import read_losses
from autovae.search import belief_table
from autovae.search.belief_table import belief_lines, measure_beliefs, specs_of
from autovae.search.result import ResultsFolder
from autovae.search.run import Run
from autovae.search.study import load_study

SPACE = """
purpose = "two pairs"
[parameters.pair]
posteriors = ["normal", "laplace"]
priors = ["normal"]
[parameters.likelihood]
choices = ["bernoulli", "normal"]
[fixed]
latent_dim = 2
hidden = [8]
"""
STUDY = """
purpose = "small"
data = "digits"
space = "space.toml"
trials = 4
batch = 4
[training]
epochs = 2
batch_size = 500
[score]
samples = 2
points = 50
final_samples = 8
[finals]
top = 1
seeds = 2
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    (place / "space.toml").write_text(SPACE)
    (place / "tiny.toml").write_text(STUDY)
    job = Run(load_study(place / "tiny.toml"), place / "results")
    job.execute()
    return job.folder.path


@pytest.fixture
def features(monkeypatch):
    """Eight numbers of a picture instead of a trained network's."""
    weights = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))

    def network(x):
        values = x.flatten(1).float() @ weights
        return values, values

    monkeypatch.setattr(belief_table, "extractor", lambda *_, **__: Extractor("eight sums", network))


def test_specs_from_the_log_and_from_the_table_are_the_same(results, tmp_path):
    logged = specs_of(ResultsFolder(results))
    for name in ("study.toml", "trials.csv"):  # as published, without the log
        shutil.copy(results / name, tmp_path)
    assert specs_of(ResultsFolder(tmp_path)) == logged
    assert len(logged) == 4


@pytest.mark.slow
def test_trials_are_measured_as_the_models_they_were(results, features):
    rows = measure_beliefs(results, points=60)
    beliefs, floor = rows[:-1], rows[-1]
    assert len(beliefs) == len({row["belief"] for row in beliefs}) == 4
    for row in beliefs:
        assert row["change"] == pytest.approx(0, abs=1e-6)
        assert -row["nll"] > row["elbo"]  # eight samples bound log p(x) better than one
        assert row["fid"] > floor["fid"]
    assert "nll" not in floor
    with (results / "beliefs.csv").open(newline="") as file:
        assert [row["belief"] for row in csv.DictReader(file)][-1] == "real data"
    with (results / "losses.csv").open(newline="") as file:
        assert {row["number"] for row in csv.DictReader(file)} == {str(row["number"]) for row in beliefs}
    lines = list(belief_lines(rows))
    assert lines[1].startswith("real data")
    page = build_report(results).read_text()
    table = page[page.index("Pairs and likelihoods by every measure") :]
    for title in ("ELBO", "NLL", "IS", "FID", "KID", "eight sums", "real data"):
        assert title in table
    assert f"{beliefs[0]['nll']:.2f}" in table
    assert "Bits per dimension against KID" in page  # and so there is a front


def test_a_search_without_scores_has_no_table(tmp_path, results):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "study.toml").write_text((results / "study.toml").read_text())
    with pytest.raises(ValueError, match="no complete trial"):
        measure_beliefs(folder)


def test_learning_curves_come_from_the_table_where_the_log_is_not(results, features, tmp_path):
    measure_beliefs(results, points=60)
    from_log = read_losses(results)
    shutil.copy(results / "losses.csv", tmp_path)
    from_table = read_losses(tmp_path)
    assert from_table.keys() == from_log.keys()
    for number, losses in from_log.items():
        assert from_table[number] == pytest.approx(losses, rel=1e-4)

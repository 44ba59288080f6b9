"""Results as they are published, without weights: what is trained again is what was trained before, pictures and all."""

import csv
import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from autovae.cli import main
from autovae.export.card import read_card
from autovae.report.html import build_report
from autovae.search.restore import restore
from autovae.search.result import ResultsError
from autovae.search.run import Run
from autovae.search.study import load_study

STUDY = """
purpose = "small"
data = "digits"
space = "tiny_space.toml"
trials = 5
batch = 3
baselines = ["normal", "mixture"]
[training]
latent_dim = 3
hidden = [16]
epochs = 2
batch_size = 200
[score]
samples = 2
points = 100
final_samples = 4
[finals]
top = 1
seeds = 2
"""
SPACE = """
purpose = "two pairs"
[parameters.pair]
posteriors = ["normal", "laplace"]
priors = ["normal"]
[fixed]
likelihood = "normal"
"""
PUBLISHED = ("study.toml", "summary.json", "finals.csv", "trials.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results of a small study, whole."""
    place = tmp_path_factory.mktemp("study")
    (place / "tiny_space.toml").write_text(SPACE)
    (place / "tiny.toml").write_text(STUDY)
    job = Run(load_study(place / "tiny.toml"), place / "whole")
    job.execute()
    return job.folder.path


@pytest.fixture
def published(whole, tmp_path):
    """The files of it that are small."""
    folder = tmp_path / "published"
    folder.mkdir()
    for name in PUBLISHED:
        shutil.copy(whole / name, folder)
    return folder


def test_the_same_weights_and_scores_come_back(whole, published):
    rows, data = restore(published)
    build_report(published, data)
    assert [row["model"] for row in rows] == ["winners/1", "baseline", "learned_priors/mixture"]
    for row in rows:
        assert read_card(published / row["model"])["spec"] == read_card(whole / row["model"])["spec"]
        before, now = (load_file(folder / row["model"] / "model.safetensors") for folder in (whole, published))
        for name, tensor in before.items():
            torch.testing.assert_close(now[name], tensor, rtol=1e-5, atol=1e-6)  # companions cost a rounding
        assert row["now"] == pytest.approx(row["published"], rel=1e-6)
    before, now = (pd.read_csv(folder / "curves.csv") for folder in (whole, published))
    pd.testing.assert_frame_equal(now, before, rtol=1e-3)
    assert (published / "figures" / "samples_winner.png").is_file()


def test_the_command_prints_both_scores(published, capsys):
    assert main(["restore", str(published), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert {row["model"] for row in rows} == {"winners/1", "baseline", "learned_priors/mixture"}
    with (published / "finals.csv").open(newline="") as file:
        best = min(float(row["validation"]) for row in csv.DictReader(file) if row["rank"] == "baseline")
    assert next(row for row in rows if row["model"] == "baseline")["published"] == best


def test_without_finals_or_with_other_data_it_is_refused(published):
    study = (published / "study.toml").read_text()
    digest = study.split('digest = "')[1][:64]
    (published / "study.toml").write_text(study.replace(digest, "0" * 64))
    with pytest.raises(ResultsError, match="no longer those of the study"):
        restore(published)
    (published / "summary.json").unlink()
    with pytest.raises(ResultsError, match="no finished finals"):
        restore(published)

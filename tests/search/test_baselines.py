"""Learned priors as baselines: asked for in the study file, trained in the finals, named in the verdict."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from autovae.export.card import load_prior
from autovae.search.plan import plan_rows
from autovae.search.run import Run
from autovae.search.study import load_study
from autovae.search.verdict import Final, Gain, Verdict
from autovae.spec import VAESpec

SPACE = """
[parameters.pair]
choices = ["normal|normal", "logistic|logistic"]
[fixed]
latent_dim = 2
hidden = [8]
components = 5
"""


def study(folder, baselines='["normal", "mixture", "vampprior", "flow"]'):
    return load_study(tiny.write(folder, tiny.study(trials=2, more=f"baselines = {baselines}"), SPACE))


def test_learned_priors_are_trained_measured_and_saved(tmp_path):
    plan = study(tmp_path)
    assert "vampprior prior (finals)" in dict(plan_rows(plan))["baselines"]
    job = Run(plan, tmp_path / "results")
    verdict = job.execute()
    with open(job.folder.path / "finals.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows[::2]] == ["1", "baseline", "mixture", "vampprior", "flow"]
    seeds = [row["seed"] for row in rows]
    assert seeds == seeds[:2] * 5
    for row in rows:
        assert float(row["validation"]) > 0
        assert float(row["test"]) > 0
    summary = job.folder.read_json("summary.json")
    assert set(summary["gain_over_learned_priors"]) == {"mixture", "vampprior", "flow"}
    for name in summary["gain_over_learned_priors"]:
        assert f"the learned {name} prior" in verdict.sentence
        assert load_prior(job.folder.path / "learned_priors" / name).card["spec"]["learned_prior"] == name


def test_a_verdict_says_who_is_better():
    fits = [Final("finalist", VAESpec(latent_dim=1), 0, [], np.zeros(2))]
    gain = Gain(0.1, 0.05, 0.15, 8, 0.95)
    gains = {
        "mixture": gain,
        "flow": Gain(-0.1, -0.15, -0.05, 8, 0.95),
        "vampprior": Gain(0.01, -0.05, 0.07, 8, 0.95),
    }
    verdict = Verdict(fits, fits[0], gain, gain, 0.0, 10, [], gains)
    assert "It beats the learned mixture prior at the same budget by 0.1000" in verdict.sentence
    assert "But the learned flow prior at the same budget beats it by 0.1000" in verdict.sentence
    assert "does not differ from the learned vampprior prior" in verdict.sentence


@pytest.mark.parametrize(
    ("baselines", "words"),
    [
        ('["normal", "vamprior"]', "vampprior"),
        ('["flow"]', "must name 'normal'"),
        ('["normal", "flow", "flow"]', "each learned prior once"),
    ],
)
def test_unknown_missing_and_repeated_baselines_are_refused(tmp_path, baselines, words):
    with pytest.raises(ValueError, match=words):
        study(tmp_path, baselines)


def test_a_study_without_learned_priors_keeps_the_form_of_older_results(tmp_path):
    assert "baselines" not in study(tmp_path, '["normal"]').identity
    assert study(tmp_path).identity["baselines"] == ["normal", "mixture", "vampprior", "flow"]


def test_a_flow_without_its_package_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ValueError, match="pip install"):
        Run(study(tmp_path), tmp_path / "results")


def test_the_student_t_study_is_a_matched_t_model_beside_the_normal():
    found = load_study("student_t_v1")
    pairs = found.space.parameters["pair"].pairs
    assert ("student_t3", "student_t3") in pairs
    assert found.baselines()[0]["posterior"] == "normal"
    spec = found.spec({"posterior": "student_t3", "prior": "student_t3", "likelihood": "student_t"}, seed=0)
    assert spec.pairing == "matched"
    assert "mixture" in found.learned_priors


def test_large_studies_carry_learned_priors():
    assert set(load_study("mnist_pairing_v1").learned_priors) >= {"vampprior", "flow"}
    assert load_study("quickstart").learned_priors == ()

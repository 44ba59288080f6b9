"""The winner rule: paired by seed, corrected for having picked the best of several."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from autovae.data.datasets import load
from autovae.report.importance import importance_of
from autovae.report.readme import readme
from autovae.report.record import read_record
from autovae.search.finals import run_finals, twins
from autovae.search.run import Run
from autovae.search.study import load_study
from autovae.search.verdict import paired_gain
from autovae.spec import VAESpec

SMALL = VAESpec(latent_dim=4, hidden=(2,), learning_rate=1e-5, likelihood="normal", epochs=2, batch_size=100)
LARGE = SMALL.replace(hidden=(32,), learning_rate=1e-2)


def test_one_candidate_is_the_plain_paired_t_interval():
    rng = np.random.default_rng(0)
    baseline, candidate = rng.normal(3, 0.1, 20), rng.normal(2.9, 0.1, 20)
    gain = paired_gain(baseline, candidate, 1)
    expected = stats.ttest_rel(baseline, candidate).confidence_interval(0.95)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high))


def test_more_candidates_widen_the_interval():
    baseline, candidate = np.arange(10.0), np.arange(10.0) - np.linspace(0, 1, 10)
    one, five = paired_gain(baseline, candidate, 1), paired_gain(baseline, candidate, 5)
    assert five.high - five.low > one.high - one.low
    assert five.mean == one.mean


def test_picking_the_best_of_equals_rarely_wins():
    """Of m candidates no better than the baseline the best is picked: the interval's lower end passes 0 in <= 5 %."""
    rng = np.random.default_rng(1)
    wins = 0
    for _ in range(400):
        baseline = rng.normal(size=8)
        candidates = rng.normal(size=(3, 8))
        best = candidates[candidates.mean(1).argmin()]
        wins += paired_gain(baseline, best, 3).low > 0
    assert wins / 400 < 0.05


def test_failed_seeds_drop_out_in_pairs():
    gain = paired_gain(np.array([1.0, 2.0, np.nan]), np.array([0.5, 1.0, 0.0]), 1)
    assert gain.seeds == 2
    assert gain.mean == pytest.approx(0.75)


def row(number, spec):
    return {"number": number, "spec": spec, "bits": 0.0}


def test_a_better_network_is_no_gain_of_a_belief(tmp_path):
    """The search found a matched normal with a poor network only: the finalist's network carries the baseline."""
    study = load_study(tiny.write(tmp_path, tiny.study(more='baselines = ["normal", "mixture"]')))
    finalist = LARGE.replace(posterior="logistic", prior="logistic")
    verdict = run_finals(study, load("digits"), [row(7, finalist)], row(3, SMALL))
    assert verdict.baseline.spec == LARGE.replace(posterior=["normal"] * 4, prior=["normal"] * 4)
    assert (verdict.baseline.role, verdict.baseline.trial) == ("baseline", 7)
    assert [(final.role, final.spec) for final in verdict.twins] == [("twin 1", SMALL)]
    assert verdict.twins[0].mean > verdict.baseline.mean + 0.1
    assert verdict.twins[0].test is None
    assert verdict.gain_validation.mean < 0.1
    (mixture,) = verdict.learned_priors
    assert mixture.spec.hidden == LARGE.hidden  # the better of both networks


def test_twins_differ_from_the_baseline_in_their_network():
    cauchy = LARGE.replace(posterior="cauchy", prior="cauchy", saturate=None)
    (found,) = twins([row(0, cauchy), row(1, LARGE.replace(posterior="laplace"))], SMALL)
    assert found["spec"].matched_normal
    assert not found["spec"].saturate
    assert found["number"] == 0
    assert twins([row(0, cauchy), row(1, SMALL.replace(likelihood="laplace", alpha=0.5))], LARGE) == []
    assert twins([row(0, SMALL)], LARGE) == []


def test_a_study_of_networks_says_which_network_each_finalist_has(tmp_path):
    job = Run(load_study(tiny.write(tmp_path, tiny.study(trials=6, top=2))), tmp_path / "results")
    job.execute()
    with open(job.folder.path / "finals.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ranks = list(dict.fromkeys(r["rank"] for r in rows))
    assert ranks[:3] == ["1", "2", "baseline"]
    assert ranks[3] == "twin 1"
    assert len({r["network"] for r in rows}) > 1
    record = read_record(job.folder.path)
    assert len({r["learning_rate"] for r in record.trials}) > 1
    words = readme(record, importance_of(record.complete))
    assert "| matched normal, twin 1 | normal\\|normal" in words
    assert "8 relu, 2 latents, rate" in words

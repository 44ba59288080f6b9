"""Trials: interrupted equals uninterrupted wherever the cut is, and no belief is trained twice."""

import hashlib
import math

import optuna
import pytest

from autovae.search import run as run_module
from autovae.search import trials as trials_module
from autovae.search.evaluate import Outcome
from autovae.search.run import Run
from autovae.search.stopping import Outlook
from autovae.search.study import load_study
from autovae.search.trials import Trials
from autovae.spec import VAESpec

SPACE = """
[parameters.pair]
posteriors = ["normal", "laplace", "logistic"]
priors = ["normal", "laplace", "logistic"]
[parameters.likelihood]
choices = ["bernoulli", "normal"]
"""
STUDY = """
purpose = "a search whose training is a formula"
data = "digits"
space = "space.toml"
trials = {trials}
batch = 4
sampler = "{sampler}"
repeats = {repeats}
[pruning]
rule = "{rule}"
rungs = [1]
[training]
latent_dim = 2
hidden = [4]
epochs = 2
"""


class Cut(Exception):
    """The process dies here."""


def formula(asked, earlier):
    """`evaluate` without training: the score is a function of belief and seed, the rung judges the batch."""
    outcomes = []
    for number, spec in asked:
        noise = int(hashlib.sha256(f"{spec}".encode()).hexdigest()[:8], 16) / 2**32
        outcome = Outcome(number, spec, bits=len(spec.belief) + noise, standard_error=0.1, nats=1.0)
        outcome.rungs.append((1, (outcome.bits,)))
        outcomes.append(outcome)
    limit = sorted(o.bits for o in outcomes)[len(outcomes) // 2]
    history = [row[0] for row in earlier.get(1, [])]
    for outcome in outcomes:
        if outcome.bits > limit and outcome.bits > min(history, default=math.inf):
            outcome.pruned_at = 1
    return outcomes


def make(folder, monkeypatch, trials=40, sampler="tpe", repeats=1, rule="halving", space=SPACE, more=""):
    (folder / "space.toml").write_text(space)
    (folder / "formula.toml").write_text(
        STUDY.format(trials=trials, sampler=sampler, repeats=repeats, rule=rule) + more
    )
    trained = []

    def evaluate(study, data, asked, on_event, device, earlier, *checkpoints):
        trained.append([number for number, _ in asked])
        return formula(asked, earlier)

    monkeypatch.setattr(run_module, "evaluate", evaluate)
    return load_study(folder / "formula.toml"), trained


@pytest.fixture
def built(monkeypatch):
    """The specs that were built, one entry each."""
    found, original = [], VAESpec.__post_init__

    def build(self):
        found.append(self)
        original(self)

    monkeypatch.setattr(VAESpec, "__post_init__", build)
    return found


def rows(job):
    keep = ("number", "state", "score", "posterior", "prior", "likelihood", "seed", "duplicate_of")
    return [tuple(row.get(name) for name in keep) for row in job.trials.rows()]


def search(job):
    with job.joined() as driver:
        driver.run()
    job.notes.append(driver.ended)
    return job


@pytest.mark.parametrize(
    "cut", [("ask", 1), ("ask", 14), ("ask", 23), ("tell", 0), ("tell", 13), ("tell", 14), ("tell", 15)]
)
def test_a_search_that_was_cut_anywhere_ends_as_if_it_had_not_been(tmp_path, monkeypatch, cut):
    """Also past the sampler's random start, with rungs that judge a batch together, and with repeated beliefs."""
    study, _ = make(tmp_path, monkeypatch, trials=17)
    whole = rows(search(Run(study, tmp_path / "whole")))
    assert any(row[-1] is not None for row in whole)
    assert any(row[1] == "PRUNED" for row in whole)
    what, after = cut
    calls = []
    owner = optuna.study.Study if what == "ask" else Trials
    original = getattr(owner, what)

    def interrupted(self, *args, **kwargs):
        if len(calls) == after:
            raise Cut
        calls.append(0)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, what, interrupted)
    with pytest.raises(Cut):
        search(Run(study, tmp_path / "cut"))
    monkeypatch.setattr(owner, what, original)
    assert rows(search(Run(study, tmp_path / "cut"))) == whole


def test_no_belief_is_trained_more_often_than_repeats(tmp_path, monkeypatch):
    study, trained = make(tmp_path, monkeypatch, trials=16)
    job = search(Run(study, tmp_path / "results"))
    numbers = [number for batch in trained for number in batch]
    beliefs = {row[0]: row[3:6] for row in rows(job)}
    assert len({beliefs[number] for number in numbers}) == len(numbers) == 16
    for row in rows(job):
        if row[-1] is not None:
            assert beliefs[row[0]] == beliefs[row[-1]]
            assert row[2] == next(other[2] for other in rows(job) if other[0] == row[-1])


def test_a_grid_asks_everything_once_a_round_and_the_search_ends_when_the_space_is_exhausted(tmp_path, monkeypatch):
    study, trained = make(tmp_path, monkeypatch, trials=99, sampler="grid", repeats=2)
    job = search(Run(study, tmp_path / "results"))
    beliefs = [row[3:6] for row in rows(job) if row[-1] is None]
    assert study.space.size == 18
    assert len(beliefs) == 36
    assert len(set(beliefs[:18])) == len(set(beliefs[18:])) == 18
    assert "consecutive suggestions were duplicates" in job.notes[-1]
    assert [n for batch in trained for n in batch] == list(range(36))
    again = search(Run(study, tmp_path / "results"))
    assert rows(again) == rows(job)
    assert again.notes == job.notes


def test_a_search_that_the_stop_rule_ended_stays_ended(tmp_path, monkeypatch):
    study, trained = make(tmp_path, monkeypatch, trials=40, more="[stop]\nafter = 8\nruns = 3\n")
    monkeypatch.setattr(trials_module, "outlook", lambda *_: Outlook(0.1, 0.2))
    job = search(Run(study, tmp_path / "results"))
    assert sum(map(len, trained)) == len(job.trials.finished()) == 8
    again = search(Run(study, tmp_path / "results"))
    assert rows(again) == rows(job)
    assert again.notes == job.notes == ["the search ended after 8 trials: " + str(Outlook(0.1, 0.2))]


def test_what_was_searched_is_in_the_rows(tmp_path, monkeypatch):
    """Not only beliefs: activation and the kind of a scale, which is blank where the likelihood has none."""
    more = '[parameters.scale]\nchoices = ["global", "pixel"]\n[parameters.activation]\nchoices = ["relu", "tanh"]\n'
    study, _ = make(tmp_path, monkeypatch, trials=12, sampler="random", rule="none", space=SPACE + more)
    found = search(Run(study, tmp_path / "results")).trials.rows()
    assert {row["activation"] for row in found} == {"relu", "tanh"}
    assert {row["scale"] for row in found if row["likelihood"] == "normal"} == {"global", "pixel"}
    assert {row["scale"] for row in found if row["likelihood"] == "bernoulli"} == {None}
    assert not {"saturate", "batch_size", "data_seed"} & set(found[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_spec_is_built_once_per_trial(tmp_path, monkeypatch, built, workers):
    """By asking, training, telling and reporting together, duplicates included; a resumed search builds each once more."""
    study, _ = make(tmp_path, monkeypatch, trials=16)
    job = Run(study, tmp_path / "results")
    built.clear()
    with job.joined(workers=workers) as driver:
        driver.run()
    before = len(job.trials.all())
    assert len(built) == before > 16
    resumed = Run(study, tmp_path / "results", trials=20)
    built.clear()
    with resumed.joined(workers=workers) as driver:
        driver.run()
    assert len(built) == 16 + len(resumed.trials.all()) - before


def test_one_worker_of_a_shared_storage_has_the_trials_of_a_lone_run(tmp_path, monkeypatch):
    study, _ = make(tmp_path, monkeypatch, trials=24)
    worker = Run(study, tmp_path / "worker")
    with worker.joined(workers=2) as driver:
        driver.run()
    assert rows(worker) == rows(search(Run(study, tmp_path / "alone")))


def test_baselines_are_enqueued_once_wherever_that_was_cut(tmp_path, monkeypatch):
    study, _ = make(tmp_path, monkeypatch, trials=6, more="[stop]\nafter = 32\nruns = 3\n")
    whole = rows(search(Run(study, tmp_path / "whole")))
    original, calls = optuna.Study.enqueue_trial, []

    def interrupted(self, *args, **kwargs):
        if len(calls) == 2:
            raise Cut
        calls.append(0)
        original(self, *args, **kwargs)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", interrupted)
    with pytest.raises(Cut):
        search(Run(study, tmp_path / "cut"))
    monkeypatch.setattr(optuna.Study, "enqueue_trial", original)
    assert rows(search(Run(study, tmp_path / "cut"))) == whole

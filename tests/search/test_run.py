"""A study is the same interrupted or not, keeps what is finished, and refuses other results."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from autovae.search import run as run_module
from autovae.search.result import ResultsError
from autovae.search.run import Run
from autovae.search.study import load_study
from autovae.search.trials import Trials
from autovae.search.workers.journal import open_journal
from autovae.search.workers.storage import StorageError

DATA = Path(__file__).parent / "data" / "interrupted"
SPACE = """
[parameters.pair]
posteriors = ["normal", "laplace", "cauchy"]
priors = ["normal", "cauchy"]
[parameters.likelihood]
choices = ["bernoulli", "normal"]
[fixed]
latent_dim = 2
hidden = [8]
"""
TEXT = {"trials": 6, "batch": 3, "epochs": 2, "top": 2}


@pytest.fixture
def study(tmp_path):
    return load_study(tiny.write(tmp_path, tiny.study(**TEXT), SPACE))


def table(folder, columns=("number", "state", "posterior", "prior", "likelihood", "alpha", "seed", "score")):
    with open(folder / "trials.csv", newline="") as file:
        return [tuple(row[name] for name in columns) for row in csv.DictReader(file)]


@pytest.fixture
def whole(study, tmp_path):
    job = Run(study, tmp_path / "whole")
    job.execute()
    return job


def test_a_study_leaves_its_files_and_a_second_run_adds_nothing(study, whole, tmp_path):
    folder = whole.folder.path
    assert {"study.toml", "trials.csv", "trials.journal", "finals.csv", "curves.csv", "summary.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert (folder / "winners" / "1" / "model.safetensors").is_file()
    before = (folder / "trials.csv").read_bytes()
    again = Run(study, tmp_path / "whole")
    assert again.execute() is None
    assert again.added == 0
    assert (folder / "trials.csv").read_bytes() == before


def test_baselines_come_first(whole):
    rows = table(whole.folder.path)
    assert [row[2:5] for row in rows[:2]] == [("normal", "normal", "bernoulli"), ("normal", "normal", "normal")]


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4])
def test_interrupted_and_resumed_equals_uninterrupted(study, whole, tmp_path, monkeypatch, stop_after):
    """Stopped while a batch trains, and while its trials are being told: nothing is lost and nothing changes."""
    job = Run(study, tmp_path / "resumed")
    told = []
    original = Trials.tell

    def tell(self, trial, outcome):
        if len(told) == stop_after:
            raise KeyboardInterrupt
        told.append(trial.number)
        original(self, trial, outcome)

    monkeypatch.setattr(Trials, "tell", tell)
    with pytest.raises(KeyboardInterrupt):
        job.execute()
    monkeypatch.setattr(Trials, "tell", original)
    resumed = Run(study, tmp_path / "resumed")
    resumed.execute()
    assert resumed.added == 6 - stop_after
    for one, other in zip(table(whole.folder.path), table(resumed.folder.path), strict=True):
        assert one[:-1] == other[:-1]
        assert float(one[-1]) == pytest.approx(float(other[-1]), rel=1e-6)


def test_more_trials_extend_a_study(study, whole, tmp_path):
    longer = Run(study, tmp_path / "whole", trials=8)
    longer.execute()
    assert longer.added == 2
    assert table(longer.folder.path)[:6] == table(whole.folder.path)[:6] or longer.finished_count() == 8


def test_a_trial_that_diverges_fails_alone_with_its_reason(study, tmp_path, monkeypatch):
    original = study.spec

    def spec(settings, seed):
        made = original(settings, seed)
        return made.replace(learning_rate=1e30) if made.posterior == "laplace" else made

    monkeypatch.setattr(type(study), "spec", lambda self, settings, seed: spec(settings, seed))
    job = Run(study, tmp_path / "diverges", trials=9)
    job.execute()
    rows = table(job.folder.path, ("posterior", "state", "reason"))
    failed = [row for row in rows if row[1] == "FAIL"]
    assert failed
    assert all(row[0] == "laplace" and ("diverged" in row[2] or "finite" in row[2]) for row in failed)


def test_an_edited_study_is_refused_with_the_difference(study, whole, tmp_path):
    path = tiny.write(tmp_path, tiny.study(**{**TEXT, "epochs": 3}), SPACE)
    before = sorted(p.name for p in whole.folder.path.iterdir())
    with pytest.raises(ResultsError, match=r"training.epochs: was 2, is 3"):
        Run(load_study(path), tmp_path / "whole").execute()
    assert sorted(p.name for p in whole.folder.path.iterdir()) == before


def test_a_folder_with_other_things_is_refused(study, tmp_path):
    target = tmp_path / "other" / "tiny"
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("do not lose me")
    with pytest.raises(ResultsError, match="not empty"):
        Run(study, tmp_path / "other").execute()
    assert (target / "thesis.txt").read_text() == "do not lose me"


def test_the_summary_says_whether_anything_won(whole):
    summary = json.loads((whole.folder.path / "summary.json").read_text())
    assert isinstance(summary["wins"], bool)
    assert "normal|normal" in summary["sentence"] or "matched normal" in summary["sentence"]
    assert summary["gain_test"]["low"] <= summary["gain_test"]["mean"] <= summary["gain_test"]["high"]


@pytest.mark.parametrize("values", ["images", "rows"])
def test_the_same_study_on_data_of_ones_own(study, tmp_path, values):
    """Images of another size keep all likelihoods; real rows leave out those that do not fit, and say so."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 5, 7), dtype=np.uint8) if values == "images" else rng.normal(size=(60, 3)) * 9
    np.savez(tmp_path / "mine.npz", x=x)
    job = Run(study, tmp_path / "own", dataset=str(tmp_path / "mine.npz"))
    job.execute()
    assert job.folder.path.name == "tiny-mine"
    assert bool(job.notes) == (values == "rows")
    assert {row[4] for row in table(job.folder.path)} <= {"bernoulli", "normal"}
    assert (job.folder.path / "winners" / "1" / "card.json").is_file()


def test_a_study_whose_own_data_do_not_fit_is_refused(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.random.default_rng(0).normal(size=(60, 3)))
    path = tiny.write(tmp_path, tiny.study(**TEXT, data=tmp_path / "mine.npz"), SPACE)
    with pytest.raises(ValueError, match="bernoulli"):
        Run(load_study(path), tmp_path / "own")


@pytest.mark.parametrize("rungs", ["", "[pruning]\nrungs = [2, 4]\n"])
def test_a_batch_that_was_killed_goes_on_from_its_last_rung_or_checkpoint(tmp_path, rungs):
    """At most one rung of work is lost, what the rungs decided stays, and the table is that of one uninterrupted run."""
    study = load_study(tiny.write(tmp_path, tiny.study(batch=5, epochs=6, top=2) + rungs, SPACE))
    Run(study, tmp_path / "whole", trials=5).execute()
    epochs = []

    def stop_in_the_last_rung(progress):
        if progress.phase == "search" and progress.epoch:
            epochs.append(progress.epoch)
            if progress.epoch == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(study, tmp_path / "cut", trials=5, on_progress=stop_in_the_last_rung).execute()
    assert list((tmp_path / "cut" / "tiny" / "checkpoints").iterdir())
    cut = max(epochs)
    epochs.clear()
    again = Run(study, tmp_path / "cut", trials=5, on_progress=lambda p: epochs.append(p.epoch * (p.phase == "search")))
    again.execute()
    trained = [epoch for epoch in epochs if epoch]
    assert cut == 5
    assert min(trained) == 5, "epochs 1 to 4 were on disk"
    columns = ("number", "state", "posterior", "prior", "likelihood", "seed", "score")
    assert table(tmp_path / "cut" / "tiny", columns) == table(tmp_path / "whole" / "tiny", columns)
    assert ("PRUNED" in {row[1] for row in table(tmp_path / "cut" / "tiny", columns)}) == bool(rungs)
    assert not list((tmp_path / "cut" / "tiny" / "checkpoints").iterdir())


@pytest.mark.parametrize(("loss", "second"), [(1e9, (False, 2)), (1e-9, (True, 1))])
def test_a_batch_is_saved_on_its_way_where_that_is_worth_it(study, tmp_path, monkeypatch, loss, second):
    """The first, whose pace is not known, in any case; a later one where the batch before took longer than may be lost."""
    original, saved = run_module.evaluate, []

    def evaluate(*arguments):
        saved.append((arguments[-2] is not None, arguments[-1]))
        return original(*arguments)

    monkeypatch.setattr(run_module, "evaluate", evaluate)
    monkeypatch.setattr(run_module, "LOSS", loss)
    Run(study, tmp_path / "results").execute()
    assert saved == [(True, 1), second]


def test_finals_that_were_killed_run_again(study, whole, tmp_path, monkeypatch):
    """Also where an earlier, shorter search had finals of its own."""
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_verdict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Run(study, tmp_path / "whole", trials=7).execute()
    again = Run(study, tmp_path / "whole", trials=7)
    assert again.execute() is not None
    assert again.added == 0
    assert Run(study, tmp_path / "whole", trials=7).execute() is None


def test_a_trial_that_does_not_fit_into_memory_fails_alone(study, tmp_path, monkeypatch):
    original = run_module.evaluate

    def evaluate(study, data, asked, *rest):
        if any(number == 4 for number, _ in asked):
            raise MemoryError("cannot allocate 1 TiB")
        return original(study, data, asked, *rest)

    monkeypatch.setattr(run_module, "evaluate", evaluate)
    job = Run(study, tmp_path / "memory")
    job.execute()
    rows = table(job.folder.path, ("number", "state", "reason"))
    assert [row[0] for row in rows if row[1] == "FAIL"] == ["4"]
    assert "out of memory: cannot allocate 1 TiB" in rows[4][2]
    assert table(job.folder.path, ("number", "posterior"))[4][1], "its belief stays known"


def test_a_second_run_of_the_same_study_is_refused(study, tmp_path):
    refused = []

    def second(progress):
        if progress.epoch and not refused:
            with pytest.raises(StorageError, match="in use by process") as caught:
                Run(study, tmp_path / "twice").execute()
            refused.append(str(caught.value))

    Run(study, tmp_path / "twice", on_progress=second).execute()
    assert "--workers" in refused[0]


def test_results_of_an_older_format_are_refused(study, whole, tmp_path):
    path = whole.folder.path / "study.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 0"))
    before = sorted(p.name for p in whole.folder.path.iterdir())
    with pytest.raises(ResultsError, match="format 0") as caught:
        Run(study, tmp_path / "whole").execute()
    assert "--results" in str(caught.value)
    assert sorted(p.name for p in whole.folder.path.iterdir()) == before


@pytest.mark.parametrize(("how", "workers"), [("cut", 1), ("cut", 2), ("shared", 1), ("shared", 2)])
def test_a_search_that_an_earlier_version_began_is_finished(tmp_path, how, workers):
    """Journals of version 0.1, of a lone run and of a worker, interrupted while their second batch trained."""
    shutil.copytree(DATA / how, tmp_path / "results")
    before = optuna.load_study(study_name="tiny", storage=open_journal(tmp_path / "results/tiny/trials.journal")).trials
    job = Run(load_study(DATA / "tiny.toml"), tmp_path / "results")
    with job.joined(workers=workers) as driver:
        assert driver.run() == 2
        assert job.conclude(driver) is not None
        after = job.trials.all()
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 4
    assert [trial.params for trial in after] == [trial.params for trial in before]
    assert [trial.values for trial in after[:2]] == [trial.values for trial in before[:2]]
    assert len(table(job.folder.path)) == 4
    assert Run(load_study(DATA / "tiny.toml"), tmp_path / "results").execute() is None


def test_a_study_of_densities_is_not_gone_on_with_as_one_of_masses(tmp_path):
    """Before the setting existed training followed densities; its default is another now."""
    shutil.copytree(DATA / "cut", tmp_path / "results")
    text = (DATA / "tiny.toml").read_text().replace('objective = "density"\n', "")
    (tmp_path / "tiny.toml").write_text(text)
    for space in DATA.glob("*space*.toml"):
        shutil.copy(space, tmp_path)
    with pytest.raises(ResultsError, match=r"training\.objective: was 'density', is 'auto'"):
        Run(load_study(tmp_path / "tiny.toml"), tmp_path / "results").execute()

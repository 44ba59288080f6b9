"""What real machines do to a study on a journal file: nothing that was told is lost, the count is reached, nothing is
done twice. The workers are real processes; what they do instead of training is to sleep (`stub`)."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from zoo import Zoo, check, check_efficiency, check_takeover

from autovae.search.workers.journal import open_journal

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and flock")


def load(path):
    return optuna.load_study(study_name="sleep", storage=open_journal(path))


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "trials.journal"


@pytest.mark.slow
def test_a_hundred_kills(journal, tmp_path):
    """kill -9 at random moments, 100 times: during asking, training and telling alike."""
    rng = random.Random(0)
    trials = 150
    with Zoo(journal, tmp_path, trials=trials, seconds=0.03, batch=3) as zoo:
        zoo.kill_at_random(rng, 100, workers=2, pause=0.12)
        killed = len(zoo.workers)
        zoo.start()
        zoo.start()
        zoo.wait(120)
        study = load(journal)
        complete = check(study, zoo, trials, failed=trials)
        # random kills rarely meet the same trial twice
        assert len(complete) > trials / 2, f"{len(complete)} of {trials} after {killed} workers"


def test_a_worker_killed_loses_its_unfinished_batch_alone(journal, tmp_path):
    with Zoo(journal, tmp_path, trials=6, seconds=0.1, batch=2) as zoo:
        check_takeover(zoo, lambda: load(journal), 6)
        lost, next_one = zoo.witnessed("trained")[:2]
        assert next_one == lost, "on one host a death is known at once"


@pytest.mark.parametrize(
    ("misbehave", "words"), [("kill", "failed 2 times"), ("memory", "MemoryError: cannot allocate 1 TiB")]
)
def test_a_trial_that_ends_its_worker_twice_fails_with_its_causes(journal, tmp_path, misbehave, words):
    with Zoo(journal, tmp_path, trials=4, seconds=0.01, fail=[1], misbehave=misbehave) as zoo:
        for _ in range(3):
            zoo.until_gone(zoo.start())
        study = load(journal)
        check(study, zoo, 4, failed=1)
        assert study.trials[1].state == optuna.trial.TrialState.FAIL
        assert words in study.trials[1].user_attrs["reason"]
        assert ("MemoryError" in zoo.log()) == (misbehave == "memory")


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "seconds", "least"), [(2, 0.5, 0.9), (4, 1.0, 0.75)])
def test_workers_share_the_work(tmp_path, workers, seconds, least):
    """Trials of half a second: real ones take minutes."""
    check_efficiency(lambda name: tmp_path / f"{name}.journal", tmp_path, workers, seconds, least)


def test_ctrl_c_hands_trials_back_and_a_second_one_does_no_harm(journal, tmp_path):
    with Zoo(journal, tmp_path, trials=4, seconds=0.05) as zoo:
        for stops in (1, 2):
            worker = zoo.start_and_train()
            for _ in range(stops):
                zoo.kill(worker, signal.SIGINT)
            zoo.until_gone(worker)
        handed_back = load(journal).trials[0]
        assert handed_back.state == optuna.trial.TrialState.RUNNING
        zoo.start()
        zoo.wait(30)
        assert len(check(load(journal), zoo, 4)) == 4


def test_a_suspended_worker_is_not_taken_for_dead(journal, tmp_path):
    with Zoo(journal, tmp_path, trials=3, seconds=0.1) as zoo:
        sleeper = zoo.start()
        while not zoo.witnessed("trained"):
            time.sleep(0.01)
        os.kill(sleeper, signal.SIGSTOP)
        zoo.start()
        time.sleep(0.5)
        os.kill(sleeper, signal.SIGCONT)
        zoo.wait(30)
        assert len(check(load(journal), zoo, 3)) == 3
        assert len(zoo.witnessed("trained")) == 3, "nothing was trained twice"


@pytest.mark.slow
def test_the_journal_truncated_while_workers_are_away(journal, tmp_path):
    """Random bytes of the last record are gone: at most that record is lost, and the study goes on to its count."""
    rng = random.Random(1)
    with Zoo(journal, tmp_path, trials=12, seconds=0.02) as zoo:
        for _ in range(8):
            worker = zoo.start()
            time.sleep(rng.uniform(0.05, 0.2))
            zoo.kill(worker)
            zoo.until_gone(worker)
            whole = journal.read_bytes() if journal.exists() else b""
            if whole.count(b"\n") > 4:
                last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
                journal.write_bytes(whole[: rng.randrange(last, len(whole))])
        zoo.start()
        zoo.start()
        zoo.wait(30)
        study = load(journal)
        finished = [t for t in study.trials if t.state.is_finished()]
        assert [t.number for t in finished] == list(range(12))


def test_workers_started_at_once_make_one_study(journal, tmp_path):
    """Four on an empty folder, with trials that cost nothing: they meet in every question, and ask none too many."""
    with Zoo(journal, tmp_path, trials=24, seconds=0.0) as zoo:
        for _ in range(4):
            zoo.start()
        zoo.wait(30)
        assert len(check(load(journal), zoo, 24)) == 24
        names = [key for key in load(journal).user_attrs if key.startswith("worker:")]
        assert len(names) == 4


def test_a_clock_that_is_set_back_while_workers_work(journal, tmp_path):
    """Every look at the wall's clock says an hour less than the last: nobody is taken for dead, or waited for."""
    with Zoo(journal, tmp_path, trials=10, seconds=0.02, clock_back=True) as zoo:
        first = zoo.start_and_train()
        zoo.start()
        time.sleep(0.2)
        zoo.kill(first)
        zoo.start(clock_back=False)
        zoo.wait(30)
        study = load(journal)
        assert len(check(study, zoo, 10)) == 10
        taken_over = [t for t in study.trials if t.user_attrs.get("causes")]
        assert [t.number for t in taken_over] == [0]
        starts = [t.datetime_start for t in study.trials]
        assert starts != sorted(starts), "the clock did go back"


def test_a_disk_that_fills_up_while_workers_write(journal, tmp_path):
    """The worker that cannot write ends and says why; what was told is kept, and with room again the study ends."""
    with Zoo(journal, tmp_path, trials=20, seconds=0.0) as zoo:
        full = zoo.start(file_limit=6000)
        zoo.until_gone(full)
        assert journal.stat().st_size <= 6000
        (error,) = zoo.errors()
        assert "cannot write to" in error
        assert "disk space" in error
        told = len(zoo.witnessed("told"))
        assert 0 < told < 20
        zoo.start()
        zoo.wait(30, errors=1)
        assert len(check(load(journal), zoo, 20)) == 20

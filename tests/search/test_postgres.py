"""Many workers on a real PostgreSQL server: the same laws as on the journal, and a server that goes away in the middle."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import postgres
import tiny
from zoo import Zoo, check, check_efficiency, check_takeover

from autovae.search import run as run_module
from autovae.search.run import Run
from autovae.search.study import load_study
from autovae.search.workers.storage import TRIALS, StorageError, open_storage, patiently

pytestmark = [pytest.mark.postgres, pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "-")]


@pytest.fixture(scope="module")
def server():
    found = postgres.Server()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def url(server, request):
    return server.database(f"db{abs(hash(request.node.name)) % 10**8}")


def load(url, folder):
    return optuna.load_study(study_name="sleep", storage=open_storage(url, folder, "sleep").optuna)


def test_four_workers_on_an_empty_database_make_one_study(url, tmp_path):
    """The first connection of several workers at once: the tables are made once."""
    with Zoo(url, tmp_path, trials=8, seconds=0.05) as zoo:
        for _ in range(4):
            zoo.start()
        zoo.wait(60)
        assert len(check(load(url, tmp_path), zoo, 8)) == 8


@pytest.mark.parametrize(("workers", "seconds", "least"), [(2, 2.0, 0.9), (4, 2.0, 0.6)])
def test_workers_share_the_work(server, tmp_path, workers, seconds, least):
    """Trials of two seconds: real ones take minutes. Four begin and end together, and compete with the server for the cores."""
    check_efficiency(lambda name: server.database(f"share{workers}-{name}"), tmp_path, workers, seconds, least)


def test_kills(url, tmp_path):
    rng = random.Random(2)
    with Zoo(url, tmp_path, trials=40, seconds=0.05, batch=2, grace=1.5) as zoo:
        zoo.kill_at_random(rng, 25, workers=3, pause=0.3)
        zoo.start()
        zoo.wait(90)
        complete = check(load(url, tmp_path), zoo, 40, failed=40)
        assert len(complete) > 20


def test_a_dead_workers_trials_are_taken_over_after_the_grace(url, tmp_path):
    with Zoo(url, tmp_path, trials=4, seconds=0.05, grace=1.0) as zoo:
        check_takeover(zoo, lambda: load(url, tmp_path), 4)


def test_the_server_restarts_in_the_middle(server, url, tmp_path):
    """Workers wait for it, and what they trained meanwhile is told afterwards."""
    with Zoo(url, tmp_path, trials=30, seconds=0.2, grace=20.0) as zoo:
        zoo.start()
        zoo.start()
        while len(zoo.witnessed("told")) < 4:
            time.sleep(0.02)
        server.halt("immediate")
        time.sleep(1.5)
        assert all(zoo.lives(worker) for worker in zoo.workers)
        server.start()
        zoo.wait(90)
        assert len(check(load(url, tmp_path), zoo, 30)) == 30
        assert "the storage is unavailable" in zoo.log()


def test_nothing_is_written_under_a_lock_that_a_restart_let_go(server, url, tmp_path):
    """What was read under it may be old: a trial made after it would be one too many, or at a place that is another's."""
    storages = [open_storage(url, tmp_path, "sleep") for _ in range(2)]
    mine, others = (
        optuna.create_study(study_name="sleep", storage=storage.optuna, load_if_exists=True) for storage in storages
    )

    def ask():
        with storages[0].mutex(TRIALS):
            left.append(len(mine.get_trials()))
            if len(left) == 1:
                server.halt("immediate")
                server.start()
                with storages[1].mutex(TRIALS):
                    patiently(others.ask, said.append, 10.0)
            number = mine.ask().number
            return mine.get_trials()[number]

    left, said = [], []
    assert patiently(ask, said.append, 10.0).number == 1
    assert left == [0, 1]
    assert any("lock" in words for words in said), said
    assert len(mine.get_trials()) == 2


def test_a_search_trains_on_while_the_server_is_away(server, url, tmp_path, monkeypatch):
    """Epochs are told of, the batch is scored, and its trials are told when the server is back."""
    original, said, epochs = run_module.evaluate, [], []

    def evaluate(*arguments):
        server.halt("immediate")
        outcomes = original(*arguments)
        threading.Timer(1.0, server.start).start()
        return outcomes

    run = Run(
        load_study(tiny.write(tmp_path, tiny.study(trials=2, epochs=3))),
        tmp_path,
        on_progress=lambda p: epochs.append(p.epoch),
    )
    monkeypatch.setattr(run_module, "evaluate", evaluate)
    with run.joined(url, workers=2, say=said.append) as driver:
        assert driver.run() == 2
        assert [row["state"] for row in run.trials.rows()] == ["COMPLETE", "COMPLETE"]
    assert {1, 2, 3} <= set(epochs)
    assert any("the storage is unavailable" in words for words in said)


def test_the_commands_as_a_cluster_gives_them(url, tmp_path):
    """Two `autovae worker`, the URL from the environment; one is told to go (SIGTERM) and comes back under its name."""
    path = tiny.write(tmp_path, tiny.study(trials=6, epochs=30))
    environment = {**os.environ, "AUTOVAE_STORAGE": url, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "autovae",
        "worker",
        str(path),
        "--results",
        str(tmp_path),
        "--of",
        "2",
    ]
    folder = tmp_path / "tiny"

    def start(name):
        return subprocess.Popen([*command, "--name", name], env=environment, stderr=subprocess.PIPE, text=True)

    first, second = start("a"), start("b")
    while (
        "begin" not in (folder / "workers" / "a.log").read_text() if (folder / "workers" / "a.log").exists() else True
    ):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate(timeout=60)
    assert first.returncode == 130, error
    assert "went back to the queue" in error
    again = start("a")
    errors = [process.communicate(timeout=200)[1] for process in (second, again)]
    assert (second.returncode, again.returncode) == (0, 0), errors
    rows = (folder / "trials.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(number) for number in range(6)]
    assert (folder / "winners" / "1" / "card.json").is_file()
    assert (folder / "report.html").is_file()
    assert (folder / "trials.journal").is_file(), "the trials came home"
    assert sum("report" in error for error in errors) == 1, "one worker concluded"
    log = (folder / "workers" / "a.log").read_text()
    assert "worker a.1 joins" in log
    assert "worker a.2 joins" in log
    password = url.split(":")[2].split("@")[0]
    assert not any(password in path.read_text() for path in (folder / "workers").glob("*.log"))


def test_a_wrong_password_is_said_without_saying_it(server, tmp_path):
    wrong = server.url().replace(server.password, "very-secret")
    with pytest.raises(StorageError, match="password authentication failed") as caught:
        open_storage(wrong, tmp_path, "s")
    assert "very-secret" not in str(caught.value)


def test_an_absent_database_is_said(server, tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        open_storage(server.url("nowhere"), tmp_path, "s")


def test_the_server_runs_as_somebody_without_rights(server):
    data = server.folder / "data"
    assert os.stat(data).st_uid != 0 or os.geteuid() != 0

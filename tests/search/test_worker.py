"""Workers of a real, tiny study: they agree on it, share it, conclude it once, and leave a results folder like any other."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import tiny

import autovae
from autovae.cli import main
from autovae.search.result import ResultsError
from autovae.search.run import Run
from autovae.search.study import load_study
from autovae.search.workers.driver import Driver
from autovae.search.workers.journal import open_journal
from autovae.search.workers.storage import StorageError


@pytest.fixture
def path(tmp_path):
    return tiny.write(tmp_path)


def table(folder):
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def work(path, results, url=None, workers=2, **settings):
    run = Run(load_study(path), results, **settings)
    with run.joined(url, workers=workers) as driver:
        told = driver.run()
        concluded = run.conclude(driver, again=False) is not None
    return told, concluded, run


def test_a_worker_finishes_a_study_and_a_second_one_finds_nothing_to_do(path, tmp_path):
    told, concluded, run = work(path, tmp_path / "results")
    assert (told, concluded) == (4, True)
    folder = run.folder.path
    assert [row["number"] for row in table(folder)] == ["0", "1", "2", "3"]
    assert (folder / "winners" / "1" / "card.json").is_file()
    before = (folder / "summary.json").stat().st_mtime_ns
    assert work(path, tmp_path / "results")[:2] == (0, False)
    alone = Run(load_study(path), tmp_path / "results")
    assert alone.execute() is None
    assert alone.added == 0
    assert (folder / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(ResultsError, match="journal of its own"):  # which is not written over
        work(path, tmp_path / "results", str(tmp_path / "other.journal"))


def test_workers_go_on_with_what_a_lone_run_left(path, tmp_path):
    def stop(progress):
        if progress.done == 2 and progress.epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(load_study(path), tmp_path / "results", on_progress=stop).execute()
    told, concluded, run = work(path, tmp_path / "results")
    assert (told, concluded) == (2, True)
    assert len({row["seed"] for row in table(run.folder.path)}) == 4


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("rungs", ["", "[pruning]\nrungs = [2, 4]\n"])
def test_what_a_dead_worker_saved_on_its_way_is_gone_on_with(path, tmp_path, monkeypatch, rungs):
    """Another worker takes the batch over from its last rung, or from its last checkpoint where the study has no rungs."""
    path.write_text(tiny.study(epochs=6) + rungs)

    def die(progress):
        if progress.epoch == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Driver, "_hand_back", lambda *_: None)
        run = Run(load_study(path), tmp_path / "results", on_progress=die)
        with pytest.raises(Killed), run.joined(workers=2) as driver:
            driver.run()
    heard = []
    told, _, run = work(path, tmp_path / "results", on_progress=lambda p: heard.append((p.phase, p.epoch)))
    assert told == 4
    assert [epoch for phase, epoch in heard if phase == "search" and epoch][:2] == [5, 6]
    assert "died (killed" in run.optuna.trials[0].user_attrs["causes"][0]


def test_a_worker_of_another_study_file_or_version_is_refused(path, tmp_path, monkeypatch):
    url = str(tmp_path / "shared.journal")
    with Run(load_study(path), tmp_path / "one").joined(url, workers=2):
        pass
    path.write_text(tiny.study(epochs=2))
    with pytest.raises(StorageError, match=r"training.epochs: was 1, is 2") as caught:
        work(path, tmp_path / "two", url)
    assert "same study file" in str(caught.value)
    path.write_text(tiny.study())
    here = autovae.__version__
    monkeypatch.setattr(autovae, "__version__", "9.9")
    with pytest.raises(StorageError, match=f"9.9.*{here}.*same version"):
        work(path, tmp_path / "three", url)


def test_a_lone_run_and_workers_exclude_each_other(path, tmp_path):
    run = Run(load_study(path), tmp_path / "results")
    with run.joined(workers=2), pytest.raises(StorageError, match="in use"):
        Run(load_study(path), tmp_path / "results").execute()


@pytest.mark.slow
def test_the_trials_come_home(path, tmp_path, capsys):
    """From a storage elsewhere the folder gets a journal of its own: a trial can be exported from the folder alone."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    assert main(["run", str(path), "--storage", url, "--results", str(tmp_path / "results"), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["trials"] == 4
    folder = tmp_path / "results" / "tiny"
    study = optuna.load_study(study_name="tiny", storage=open_journal(folder / "trials.journal"))
    assert [t.number for t in study.trials] == [0, 1, 2, 3]
    assert main(["export", str(folder), "--trial", "1", "--to", str(tmp_path / "prior")]) == 0
    assert main(["run", str(path), "--storage", url, "--results", str(tmp_path / "results")]) == 0
    assert "nothing to add" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "{study}", "--storage", "sqlite:///{folder}/x.db", "--workers", "2"], ["SQLite", "postgresql://"]),
        (["worker", "{study}", "--storage", "sqlite:///{folder}/x.db"], ["SQLite", "postgresql://"]),
        (["worker", "{study}", "--storage", "postgresql://me:geheim@127.0.0.1:1/x"], ["cannot reach", "me:***@"]),
        (["worker", "{study}", "--storage", "mongodb://me:geheim@h/x"], ["mongodb", "postgresql", "***"]),
        (["dashboard", "{study}"], ["does not exist yet", "--storage"]),
        (["run", "iwae_mnist", "--workers", "2"], ["--workers", "one process"]),
        (["worker", "iwae_mnist"], ["reproduction", "autovae run iwae_mnist"]),
    ],
)
def test_what_the_command_line_refuses(path, tmp_path, capsys, arguments, words):
    filled = [argument.format(study=path, folder=tmp_path) for argument in arguments]
    assert main([*filled, "--results", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in error
    assert "geheim" not in error


def test_the_dashboard_says_how_to_install_it(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    (tmp_path / "results" / "tiny" / "trials.journal").touch()
    assert main(["dashboard", str(path), "--results", str(tmp_path / "results")]) == 2
    assert "pip install 'autovae[dashboard]'" in capsys.readouterr().err


def test_two_workers_through_a_grpc_proxy(path, tmp_path):
    pytest.importorskip("grpc")
    import socket

    from optuna.storages import run_grpc_proxy_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = threading.Thread(
        target=run_grpc_proxy_server,
        args=(open_journal(tmp_path / "behind.journal"),),
        kwargs={"host": "127.0.0.1", "port": port},
        daemon=True,
    )
    server.start()
    url, results = f"grpc://127.0.0.1:{port}", tmp_path / "results"
    told, failures = [], []

    def one():
        try:
            told.append(work(path, results, url)[0])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert sum(told) == 4
    assert [row["number"] for row in table(results / "tiny")] == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_run_with_two_workers_and_a_killed_one(path, tmp_path):
    """The command itself: a worker that is killed is restarted, the study reaches its count, the report is written."""
    path.write_text(tiny.study(epochs=40, trials=12))
    results = tmp_path / "results"
    command = [sys.executable, "-m", "autovae", "run", str(path), "--workers", "2", "--results", str(results)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    victim = _wait_for_worker(results / "tiny", process)
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "killed by signal 9; it is restarted" in err
    assert "12 trials finished" in out
    assert [int(row["number"]) for row in table(results / "tiny")] == list(range(12))
    assert (results / "tiny" / "report.html").is_file()
    assert "joins" in (results / "tiny" / "workers" / "w1.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stops_all_workers_and_nothing_is_lost(path, tmp_path, times):
    path.write_text(tiny.study(epochs=2000))
    results = tmp_path / "results"
    command = [sys.executable, "-m", "autovae", "run", str(path), "--workers", "2", "--results", str(results)]
    # where the tests run in the background Ctrl-C is ignored, and that is handed down
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    _wait_for_worker(results / "tiny", process)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    study = optuna.load_study(study_name="tiny", storage=open_journal(results / "tiny" / "trials.journal"))
    for worker, about in study.user_attrs.items():
        if worker.startswith("worker:w"):
            assert not _lives(about["pid"]), "a worker outlived the command"


@pytest.mark.slow
@pytest.mark.parametrize("room", [6_000, 20_000])
def test_a_disk_that_is_full_ends_the_command_in_one_line(path, tmp_path, room):
    """While a batch is saved, and while the report is written; with room again the same command finishes the study."""
    resource = pytest.importorskip("resource")
    path.write_text(tiny.study(epochs=4))
    command = [sys.executable, "-m", "autovae", "run", str(path), "--results", str(tmp_path / "results")]
    limited = subprocess.run(
        command, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    assert limited.returncode == 2, limited.stderr
    assert "disk space" in limited.stderr.splitlines()[-1]
    assert "Traceback" not in limited.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert [row["number"] for row in table(tmp_path / "results" / "tiny")] == ["0", "1", "2", "3"]


def _wait_for_worker(folder, process):
    """The process id of a worker that trains."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for log in (folder / "workers").glob("w*.log"):
            if "begin" in log.read_text():
                study = optuna.load_study(study_name="tiny", storage=open_journal(folder / "trials.journal"))
                return study.user_attrs[f"worker:{log.stem}"]["pid"]
        time.sleep(0.2)
    raise AssertionError(process.communicate()[1])


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

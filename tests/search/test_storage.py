"""Storages by URL: what each is for, what is refused, and that no message shows a password."""

import json
import sys
import threading
import time

import optuna
import pytest

from autovae.search.workers.heartbeat import FileHeartbeat, StorageHeartbeat
from autovae.search.workers.journal import Journal, open_journal
from autovae.search.workers.locks import FileLock
from autovae.search.workers.storage import StorageError, masked, open_storage, patiently, scheme_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:se@cr:et@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://host/db?password=secret&x=1", "postgresql://host/db?password=***&x=1"),
        ("no way to postgresql://:secret@host/db, sorry", "no way to postgresql://:***@host/db, sorry"),
        ("a/path", "a/path"),
    ],
)
def test_passwords_are_masked(url, shown):
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("trials.journal", "journal"),
        ("journal:///tmp/x", "journal"),
        ("postgres://h/d", "postgresql"),
        ("postgresql+psycopg://h/d", "postgresql"),
        ("sqlite:///x.db", "sqlite"),
        ("grpc://localhost:1", "grpc"),
    ],
)
def test_kinds(url, kind):
    assert scheme_of(url) == kind


@pytest.mark.parametrize(
    ("url", "workers", "words"),
    [
        ("mysql://me:secret@host/db", 1, ["mysql", "postgresql"]),
        ("sqlite:///{folder}/x.db", 2, ["2 workers", "leave --storage out", "postgresql://"]),
        ("sqlite:////no/such/place/x.db", 1, ["does not exist"]),
        ("/no/such/place/x.journal", 2, ["does not exist"]),
        ("grpc://localhost", 2, ["grpc://host:port"]),
        ("postgresql://me:secret@127.0.0.1:1/db", 2, ["cannot reach", "127.0.0.1", "***", "refused"]),
        ("postgresql://me:secret@127.0.0.1:port/db", 2, ["cannot read", "***"]),
        ("postgresql://me:a@secret/b@127.0.0.1:1/db", 2, ["cannot read", "me:***@127.0.0.1", "percent notation"]),
        ("postgresql://me:a%40secret%2F@127.0.0.1:1/db", 2, ["cannot reach", "refused"]),
    ],
)
def test_storages_that_cannot_be_used(tmp_path, url, workers, words):
    with pytest.raises(StorageError) as caught:
        open_storage(url.format(folder=tmp_path), tmp_path, "study", workers)
    for word in words:
        assert word in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [("psycopg", "postgresql://h/d", "autovae[postgres]"), ("grpc", "grpc://h:1", "autovae[grpc]")],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, url, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StorageError, match="pip install") as caught:
        open_storage(url, tmp_path, "study", 2)
    assert extra in str(caught.value)


def test_sqlite_serves_one_process(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first = open_storage(url, tmp_path, "study", 1)
    with pytest.raises(StorageError, match="in use"):
        open_storage(url, tmp_path, "study", 1)
    first.close()
    open_storage(url, tmp_path, "study", 1).close()


def test_a_journal_in_use_by_a_lone_run_is_refused_to_workers(tmp_path):
    path = tmp_path / "trials.journal"
    alone = FileLock(f"{path}.in-use", note="process 7 on host h")
    with alone, pytest.raises(StorageError, match="process 7 on host h"):
        open_storage(path, tmp_path, "study", 2)
    first, second = (open_storage(path, tmp_path, "study", 2) for _ in range(2))
    assert not alone.acquire(wait=False)
    first.close()
    second.close()
    assert alone.acquire(wait=False)


def filled(path, count=3):
    storage = open_journal(path)
    study = optuna.create_study(storage=storage, study_name="s")
    for value in range(count):
        study.tell(study.ask(), float(value))
    return path.read_bytes()


def values(path):
    study = optuna.load_study(study_name="s", storage=open_journal(path))
    return [t.value for t in study.get_trials() if t.state.is_finished()]


def test_a_journal_truncated_anywhere_in_its_last_record_is_read_and_written_again(tmp_path):
    """Every third byte of the last record: the trials told before stay, and more can be told."""
    path = tmp_path / "trials.journal"
    whole = filled(path)
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in [*range(last, len(whole), 3), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:end])
        assert values(path) == [0.0, 1.0]
        study = optuna.load_study(study_name="s", storage=open_journal(path))
        study.tell(study.ask(), 7.0)
        assert values(path) == [0.0, 1.0, 7.0]
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_zeros_that_a_power_cut_left_are_cut_off(tmp_path):
    path = tmp_path / "trials.journal"
    whole = filled(path)
    path.write_bytes(whole + b"\0" * 100)
    study = optuna.load_study(study_name="s", storage=open_journal(path))
    study.tell(study.ask(), 7.0)
    assert path.read_bytes().startswith(whole + b"{")


@pytest.mark.parametrize("content", [b"my thesis", b"my thesis\nchapter two\n", b"{}\n", b'{"op_code": 99}\n', b"[]\n"])
def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "thesis.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        optuna.create_study(storage=open_journal(path), study_name="s")
    assert path.read_bytes() == content


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path):
    """The record that did not fit is cut off again, and the next one that fits is whole."""
    import resource
    import subprocess

    path = tmp_path / "trials.journal"
    whole = filled(path)
    limit = len(whole) + 40
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from autovae.search.workers.journal import Journal\n"
        f"Journal({str(path)!r}).append_logs([{{'op_code': 1, 'text': 'x' * 100}}])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert resource is not None
    assert "OSError" in result.stderr
    assert "cannot write to" in result.stderr
    assert "disk space" in result.stderr
    assert path.read_bytes() == whole


def test_two_threads_never_write_into_each_other(tmp_path):
    journal = Journal(tmp_path / "trials.journal")
    log = [{"op_code": 2, "text": "y" * 500}]
    threads = [threading.Thread(target=lambda: [journal.append_logs(log) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = journal.path.read_text().splitlines()
    assert len(lines) == 80
    assert all(json.loads(line) == log[0] for line in lines)


def test_file_heartbeat_end_with_their_holder(tmp_path):
    heartbeat = FileHeartbeat(tmp_path)
    assert heartbeat.is_dead("a.1")
    with heartbeat.beat("a.1"):
        assert not FileHeartbeat(tmp_path).is_dead("a.1")
    assert heartbeat.is_dead("a.1")
    (tmp_path / "b.1.alive").touch()  # left by a killed worker
    assert heartbeat.is_dead("b.1")
    assert not (tmp_path / "b.1.alive").exists()


def test_beats_ask_the_observers_own_clock_alone():
    """Dead after `grace` seconds without a beat that the observer counts itself; a clock set back only delays that."""
    now = [1000.0]
    study = optuna.create_study()
    heartbeat = StorageHeartbeat(study, interval=1e6, grace=10.0, clock=lambda: now[0])
    with StorageHeartbeat(study, interval=1e6).beat("a.1"):
        assert not heartbeat.is_dead("a.1")
        now[0] += 9
        assert not heartbeat.is_dead("a.1")
        now[0] -= 3600
        assert not heartbeat.is_dead("a.1")
        now[0] += 3600 + 2
        assert heartbeat.is_dead("a.1")
        study.set_user_attr(heartbeat.key("a.1"), 2)
        assert not heartbeat.is_dead("a.1")
    assert heartbeat.is_dead("a.1")
    assert heartbeat.is_dead("unheard of")


def test_workers_that_could_not_beat_while_the_storage_was_away_are_not_dead(monkeypatch):
    now = [0.0]
    study = optuna.create_study()
    heartbeat = StorageHeartbeat(study, interval=0.005, grace=10.0, clock=lambda: now[0])
    study.set_user_attr(heartbeat.key("other.1"), 5)
    original, away = study._storage.set_study_user_attr, threading.Event()

    def set_attribute(*arguments):
        if away.is_set():
            raise optuna.exceptions.StorageInternalError("gone")
        original(*arguments)

    monkeypatch.setattr(study._storage, "set_study_user_attr", set_attribute)
    with heartbeat.beat("me.1"):
        assert not heartbeat.is_dead("other.1")
        away.set()
        time.sleep(0.1)
        away.clear()
        now[0] += 60
        assert not heartbeat.is_dead("other.1"), "nobody could beat in that minute"
        now[0] += 60
        assert heartbeat.is_dead("other.1")


def test_patience_tries_again_and_ends():
    calls = []

    def away():
        calls.append(1)
        if len(calls) < 3:
            raise optuna.exceptions.StorageInternalError("gone")
        return 5

    said = []
    assert patiently(away, said.append, 60.0) == 5
    assert len(said) == 2
    calls.clear()
    with pytest.raises(StorageError, match="has been unavailable"):
        patiently(away, said.append, 0.0)

r"""Storages of trials by URL.

| `--storage`                                  | for                                                                     |
|----------------------------------------------|-------------------------------------------------------------------------|
| a path, or journal:///path                   | one process, or several on one host; the default                        |
| grpc://host:port                             | the same through Optuna's proxy; workers share one results folder       |
| sqlite:///path                               | one process; several are refused                                        |
| postgresql://user:password@host:port/name    | many hosts (`postgresql+psycopg://` is the same; extra `postgres`)      |

A `StudyStorage` is Optuna's storage with a mutex, under which trials are changed, and the workers' heartbeats. Opened for
one worker, a journal or SQLite file is locked for that process. Passwords are masked in every message.
Not here: the loop of a worker (`driver`).
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna import Study
from optuna.storages import BaseStorage

from autovae.registry import unknown
from autovae.search.workers.heartbeat import FileHeartbeat, Heartbeat, StorageHeartbeat
from autovae.search.workers.journal import open_journal
from autovae.search.workers.locks import AdvisoryLock, FileLock, Lock, LockLost
from autovae.seeds import stream_seed

__all__ = ["TRIALS", "StorageError", "StudyStorage", "masked", "open_storage", "patiently", "scheme_of"]

T = TypeVar("T")
CONNECT = 10  # seconds until a server is called unreachable
PATIENCE = 600.0  # seconds for which a running worker waits for an unavailable storage
TRIALS = "trials"  # the purpose of the mutex under which trials are changed
AWAY = {"OperationalError", "InterfaceError", "RpcError"}  # of sqlalchemy and grpc; names, to avoid importing them


class StorageError(ValueError):
    """An unusable storage: the reason and the remedy."""


@dataclass(frozen=True)
class StudyStorage:
    """Optuna's storage with its locks and heartbeats. `shown` is its URL without the password."""

    kind: str
    shown: str
    optuna: BaseStorage
    mutex: Callable[[str], Lock] = lambda _: threading.Lock()  # by purpose: one lock per purpose for all workers
    heartbeat_of: Callable[[Study], Heartbeat] | None = None  # None: exclusive to this process
    in_use: FileLock | None = field(default=None, repr=False)  # locked while open
    patience: float = 0.0  # seconds for which a worker waits for an unavailable server

    def close(self) -> None:
        if self.in_use is not None:
            self.in_use.release()


def masked(text: str) -> str:
    """`text` with the passwords of its URLs masked."""
    text = re.sub(r"(://[^:/@\s]*):[^\s]*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


def scheme_of(where: str | Path) -> str:
    """journal, grpc, sqlite or postgresql."""
    text = str(where)
    if "://" not in text:
        return "journal"
    scheme = text.split("://", 1)[0].lower()
    scheme = {"postgres": "postgresql", "postgresql+psycopg": "postgresql", "postgresql+psycopg2": "postgresql"}.get(
        scheme, scheme
    )
    if scheme not in KINDS:
        raise StorageError(f"{masked(text)}: {unknown(scheme, KINDS, 'kind of storage')}")
    return scheme


def open_storage(where: str | Path, folder: Path, study: str, workers: int = 1) -> StudyStorage:
    """The storage at a path or URL, for `workers` workers of `study` with its results in `folder`.

    Raises `StorageError` if it is unreachable, in use, or does not support this many workers.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return KINDS[scheme_of(where)](str(where), folder, study, workers)


def _journal(where: str, folder: Path, study: str, workers: int) -> StudyStorage:
    path, folder = Path(re.sub(r"^journal://", "", where)).absolute(), folder.absolute()
    if not path.parent.is_dir() and path.parent != folder:
        raise StorageError(f"the folder of the journal {path} does not exist; create it, or give another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    in_use = _use(
        path,
        workers > 1,
        "wait for its end, or stop it (finished trials are kept) and run again with --workers to share the work",
    )
    if workers == 1:
        return StudyStorage("journal", str(path), open_journal(path), in_use=in_use)
    places = folder / "workers" if path.parent == folder else path.with_name(f"{path.name}.workers")
    return _on_one_host("journal", str(path), open_journal(path), places, in_use=in_use)


def _use(path: Path, shared: bool, remedy: str) -> FileLock:
    """The lock on a file in use: exclusive with this process's name, or shared among workers."""
    note = "" if shared else f"process {os.getpid()} on {socket.gethostname()}"
    in_use = FileLock(path.with_name(f"{path.name}.in-use"), shared, note, temporary=not shared)
    if not in_use.acquire(wait=False):
        raise StorageError(f"{path} is in use by {in_use.holder() or 'other workers'}; {remedy}")
    return in_use


def _on_one_host(kind: str, shown: str, storage: BaseStorage, places: Path, **rest: Any) -> StudyStorage:
    """A storage whose locks and heartbeats are files in the folder `places`."""
    return StudyStorage(
        kind,
        shown,
        storage,
        lambda purpose: FileLock(places / f"{purpose}.lock"),
        lambda _: FileHeartbeat(places),
        **rest,
    )


def _grpc(where: str, folder: Path, study: str, workers: int) -> StudyStorage:
    found = re.fullmatch(r"grpc://([^:/]+|\[[^\]]+\]):(\d+)/?", where, flags=re.IGNORECASE)
    if not found:
        raise StorageError(f"got {masked(where)!r}; a gRPC proxy is written grpc://host:port")
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise StorageError("grpc:// needs the packages grpcio and protobuf: pip install 'autovae[grpc]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = optuna.storages.GrpcStorageProxy(host=found[1], port=int(found[2]))
    try:
        proxy.wait_server_ready(timeout=CONNECT)
    except ConnectionError:
        raise StorageError(
            f"no gRPC proxy answers at {where}; start one with optuna.storages.run_grpc_proxy_server, or check host and port"
        ) from None
    return _on_one_host("grpc", where, proxy, folder / "workers", patience=PATIENCE)


def _sqlite(where: str, folder: Path, study: str, workers: int) -> StudyStorage:
    instead = (
        "SQLite serves a single process; for several on one host leave --storage out (a journal file in the results "
        "folder), for many hosts use postgresql://user:password@host/name"
    )
    if workers > 1:
        raise StorageError(f"{where} cannot serve {workers} workers: {instead}")
    path = Path(re.sub(r"^sqlite:///", "", where, flags=re.IGNORECASE))
    if not path.parent.is_dir():
        raise StorageError(f"the folder of {where} does not exist; create it, or give another path")
    in_use = _use(path, False, instead)
    storage = optuna.storages.get_storage(_relational(f"sqlite:///{path}", where, {}))
    return StudyStorage("sqlite", where, storage, in_use=in_use)


def _postgresql(where: str, folder: Path, study: str, workers: int) -> StudyStorage:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.event import listen
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise StorageError("postgresql:// needs the package psycopg: pip install 'autovae[postgres]'") from None
    password = re.match(r"[^:]+://[^:/@\s]*:([^?\s]*)@", where)
    try:
        if password and re.search("[@/]", password[1]):
            raise ValueError  # part of the password would be parsed as the host, and shown
        url = make_url(re.sub(r"^[^:]+://", "postgresql+psycopg://", where))
    except (ArgumentError, ValueError):
        raise StorageError(
            f"cannot read the storage URL {masked(where)}; expected postgresql://user:password@host:port/name, with "
            "special characters of the password in percent notation (%40 for @)"
        ) from None
    shown = masked(where)
    options = {
        "connect_timeout": CONNECT,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        **dict(url.query),
    }
    url = url.set(query={})
    engine = create_engine(url, pool_pre_ping=True, connect_args=options)

    def lock(purpose: str) -> AdvisoryLock:
        return AdvisoryLock(engine, stream_seed("autovae", purpose))

    try:
        with lock("schema"):  # one process creates the tables
            backend = _relational(url.render_as_string(hide_password=False), shown, options)
    except SQLAlchemyError as error:
        raise _unreachable(shown, error, url.password) from None
    trials = lock(f"{study}/{TRIALS}")
    # After a restart Optuna reconnects automatically; without this guard it would write without the lost lock.
    listen(backend.engine, "begin", trials.guard)
    return StudyStorage(
        "postgresql",
        shown,
        optuna.storages.get_storage(backend),
        lambda purpose: trials if purpose == TRIALS else lock(f"{study}/{purpose}"),
        StorageHeartbeat,
        patience=PATIENCE,
    )


def _relational(url: str, shown: str, options: dict[str, Any]) -> optuna.storages.RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "connect_args": options})
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise _unreachable(shown, error) from None
    except RuntimeError as error:  # tables of another version of Optuna
        raise StorageError(f"{shown}: {' '.join(str(error).split())}") from None


def _unreachable(shown: str, error: BaseException, password: str | None = None) -> StorageError:
    reason = _root(error)
    if password:
        reason = reason.replace(password, "***")
    return StorageError(f"cannot reach the storage {shown}: {reason}; check host, port, user and password")


def _root(error: BaseException) -> str:
    """The first cause, in the driver's words, on one line."""
    while (below := getattr(error, "orig", None) or error.__cause__) is not None:
        error = below
    return masked(" ".join(str(error).split()))


KINDS: dict[str, Callable[[str, Path, str, int], StudyStorage]] = {
    "journal": _journal,
    "grpc": _grpc,
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}


def _is_away(error: Exception) -> bool:
    """Whether an error means that the server is temporarily unavailable."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (optuna.exceptions.StorageInternalError, LockLost)) or bool(names & AWAY)


def patiently(action: Callable[[], T], say: Callable[[str], Any], patience: float) -> T:
    """The result of `action`, retried while the storage is unavailable. It must be safe to repeat."""
    began, pause = time.monotonic(), 0.1
    while True:
        try:
            return action()
        except Exception as error:
            if not _is_away(error):
                raise
            if time.monotonic() - began >= patience:
                raise StorageError(
                    f"the storage has been unavailable for {patience:.0f} s: {_root(error)[:300]}; finished trials are "
                    "kept: run the same command again when it is back"
                ) from None
            say(f"the storage is unavailable ({_root(error)[:200]}); trying again in {pause:.1f} s")
            time.sleep(pause)
            pause = min(2 * pause, 10.0)

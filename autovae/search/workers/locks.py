"""Locks that are released when their process ends, even if it is killed; no clock is read.

FileLock        a lock of the operating system (flock) on a file: processes of one host, or of one NFSv4 file system
AdvisoryLock    a lock of the PostgreSQL server on a number, held by a connection: processes of many hosts

Both are context managers; `acquire(wait=False)` returns whether the lock was free. A restarting server silently drops its
locks: `AdvisoryLock.guard` checks within the writing transaction.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any, Protocol

__all__ = ["AdvisoryLock", "FileLock", "Lock", "LockLost"]


class LockLost(RuntimeError):
    """The server restarted and dropped the lock; what was read under it may be stale."""


class Lock(Protocol):
    """The contract of both, and of `threading.Lock`."""

    def acquire(self, wait: bool = True, /) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: Any) -> None: ...


class FileLock:
    """Exclusive, or with `shared` shared among all holders that set it.

    `note` is written to the file for processes that find the lock taken. A `temporary` file is deleted with its lock.
    """

    def __init__(
        self, path: str | os.PathLike[str], shared: bool = False, note: str = "", temporary: bool = False
    ) -> None:
        self.path, self.shared, self.note, self.temporary = Path(path), shared, note, temporary
        self._file: int | None = None

    def acquire(self, wait: bool = True) -> bool:
        while (file := self._open(wait)) is not None:
            if self._is_still_there(file):
                self._file = file
                if self.note:
                    os.truncate(file, 0)
                    os.pwrite(file, self.note.encode(), 0)
                return True
            os.close(file)  # the previous holder has deleted it
        return False

    def _is_still_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _open(self, wait: bool) -> int | None:
        """The file, open and locked; None if another process has it."""
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        how = (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            os.close(file)
            return None
        except OSError as error:
            os.close(file)
            raise ValueError(
                f"{self.path.parent} is on a file system without locks ({error.strerror}); use a local folder, or a "
                "PostgreSQL storage for many hosts"
            ) from None
        except BaseException:
            os.close(file)
            raise
        return file

    def release(self) -> None:
        if self._file is not None:
            if self.temporary:
                self.path.unlink(missing_ok=True)
            os.close(self._file)  # which unlocks
            self._file = None

    def holder(self) -> str:
        """The note of the present or previous holder."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self.path.read_text().strip()
        return ""

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class AdvisoryLock:
    """A PostgreSQL advisory lock. A restarting server drops it, so actions under it must be safe to repeat."""

    def __init__(self, engine: Any, key: int) -> None:
        self.engine, self.key = engine, key
        self._connection: Any = None
        self._holder: Any = None  # the server's process that holds it, and when that server started
        self._thread = 0  # the thread that holds it: transactions of other threads do not depend on it

    def acquire(self, wait: bool = True) -> bool:
        from sqlalchemy import text

        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if wait:
                connection.execute(text("select pg_advisory_lock(:key)"), {"key": self.key})
            elif not connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": self.key}).scalar():
                connection.close()
                return False
            self._holder = connection.execute(text("select pg_backend_pid(), pg_postmaster_start_time()")).one()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._connection, self._thread = connection, threading.get_ident()
        return True

    def guard(self, connection: Any) -> None:
        """Raise `LockLost` if the holder begins a transaction and the server no longer has the lock.

        Checking at the beginning is enough: a server that goes down aborts the transaction.
        """
        from sqlalchemy import text

        if self._thread != threading.get_ident():
            return
        query = text(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = :pid and pg_postmaster_start_time() = :began"
        )
        pid, began = self._holder
        if not connection.execute(query, {"pid": pid, "began": began}).scalar():
            raise LockLost("the server restarted and dropped the lock on the trials")

    def release(self) -> None:
        from sqlalchemy import text

        connection, self._connection, self._thread = self._connection, None, 0
        if connection is None:
            return
        try:
            connection.execute(text("select pg_advisory_unlock(:key)"), {"key": self.key})
            connection.close()
        except Exception:  # a lost connection has no lock to release
            with contextlib.suppress(Exception):
                connection.invalidate()
                connection.close()

    def __enter__(self) -> AdvisoryLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

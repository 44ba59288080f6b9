"""Locks that die with their holder: a killed process leaves none behind, and no clock is asked.

FileLock        a lock of the operating system (flock) on a file: for processes of one host, or of one NFSv4 file system
AdvisoryLock    a lock of the PostgreSQL server on a number, held by a connection: for processes of many hosts

Both are context managers; `acquire(wait=False)` says whether the lock was free. A server that restarts lets go of its
locks, and whoever held one does not notice: `AdvisoryLock.check` asks within the transaction that wants to write.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

__all__ = ["AdvisoryLock", "FileLock", "Lock", "LockLost"]


class LockLost(RuntimeError):
    """A lock that is not held any more, as its server restarted; what was read under it may be old."""


class Lock(Protocol):
    """What both locks do."""

    def acquire(self, wait: bool = True) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> Lock: ...
    def __exit__(self, *_: object) -> None: ...


class FileLock:
    """Exclusive, or shared with others that ask for it shared.

    `note` is left in the file for whoever finds it taken. A `passing` file is made for the lock and goes with it.
    """

    def __init__(
        self, path: str | os.PathLike[str], shared: bool = False, note: str = "", passing: bool = False
    ) -> None:
        self.path, self.shared, self.note, self.passing = Path(path), shared, note, passing
        self._file: int | None = None

    def acquire(self, wait: bool = True) -> bool:
        while (file := self._open(wait)) is not None:
            if self._is_still_there(file):
                self._file = file
                if self.note:
                    os.truncate(file, 0)
                    os.pwrite(file, self.note.encode(), 0)
                return True
            os.close(file)  # its last holder took it away in the meantime
        return False

    def _is_still_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _open(self, wait: bool) -> int | None:
        """The file, open and locked; None where another process has it."""
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
            if self.passing:
                self.path.unlink(missing_ok=True)
            os.close(self._file)  # which unlocks
            self._file = None

    def holder(self) -> str:
        """The note of whoever holds the lock, or held it last."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return self.path.read_text().strip()
        return ""

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class AdvisoryLock:
    """A PostgreSQL advisory lock. A server that goes down lets go of it: what is done under it must bear being done again."""

    def __init__(self, engine: Any, key: int) -> None:
        self.engine, self.key = engine, key
        self._connection: Any = None
        self._holder: Any = None  # the server's process that holds it, and when that server started

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
        self._connection = connection
        return True

    def check(self, connection: Any) -> None:
        """Raise `LockLost` unless the server of `connection` knows that this lock is held.

        Asked first in a transaction it holds to its end: a server that goes down takes the transaction with it.
        """
        from sqlalchemy import text

        held = text(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = :pid and pg_postmaster_start_time() = :began"
        )
        pid, began = self._holder
        if not connection.execute(held, {"pid": pid, "began": began}).scalar():
            raise LockLost("the server restarted and let go of the lock on the trials")

    def release(self) -> None:
        from sqlalchemy import text

        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.execute(text("select pg_advisory_unlock(:key)"), {"key": self.key})
            connection.close()
        except Exception:  # a connection that is gone holds no lock
            with contextlib.suppress(Exception):
                connection.invalidate()
                connection.close()

    def __enter__(self) -> AdvisoryLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

"""Heartbeats: how workers detect that another one died.

FileHeartbeat      one host: a locked file per worker. The operating system releases the lock when the process ends, so a
                   death is detected at once, and a suspended worker does not count as dead.
StorageHeartbeat   many hosts: a counter per worker in the storage, incremented every `interval` seconds. A worker is dead
                   if an observer sees its counter unchanged for `grace` seconds of the observer's monotonic clock. Clocks
                   of hosts are never compared. If the observer's own beat fails (storage unavailable), it starts
                   counting again, since no other worker could beat either.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from autovae.search.workers.locks import FileLock

__all__ = ["FileHeartbeat", "Heartbeat", "StorageHeartbeat"]

LEFT = -1  # the counter of a worker that has left


class Heartbeat(Protocol):
    """The contract. A worker's name is never used twice."""

    def beat(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Keep `name` alive until the block ends."""

    def is_dead(self, name: str) -> bool: ...


class FileHeartbeat:
    """Locked files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.folder / f"{name}.alive", temporary=True)

    @contextlib.contextmanager
    def beat(self, name: str) -> Iterator[None]:
        with self._lock(name):
            yield

    def is_dead(self, name: str) -> bool:
        probe = self._lock(name)
        if not probe.path.is_file():
            return True
        if not probe.acquire(wait=False):
            return False
        probe.release()
        return True


class StorageHeartbeat:
    """Counters in the attributes of a study; `clock` is monotonic."""

    def __init__(
        self, study: Any, interval: float = 10.0, grace: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.study, self.interval, self.grace, self.clock = study, interval, grace, clock
        self._seen: dict[str, tuple[int, float]] = {}  # (counter, since when) by worker

    @staticmethod
    def key(name: str) -> str:
        return f"beat:{name}"

    @contextlib.contextmanager
    def beat(self, name: str) -> Iterator[None]:
        left = threading.Event()
        self._write(name, 1)

        def beat() -> None:
            count = 1
            while not left.wait(self.interval):
                count += 1
                try:
                    self._write(name, count)
                except Exception:  # the storage is unavailable; the next beat tries again
                    self._seen = {}

        thread = threading.Thread(target=beat, name=f"heartbeat {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join(timeout=self.interval)
            with contextlib.suppress(Exception):
                self._write(name, LEFT)

    def _write(self, name: str, count: int) -> None:
        self.study._storage.set_study_user_attr(self.study._study_id, self.key(name), count)

    def is_dead(self, name: str) -> bool:
        count = self.study._storage.get_study_user_attrs(self.study._study_id).get(self.key(name), LEFT)
        if count == LEFT:
            return True
        now = self.clock()
        before, since = self._seen.get(name, (None, now))
        if before != count:
            self._seen[name] = (count, now)
            return False
        return now - since > self.grace

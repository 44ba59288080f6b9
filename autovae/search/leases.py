"""Who is alive: a worker holds a lease while it lives, and any other worker can tell when it is gone.

FileLeases   one host: a locked file a worker. The operating system lets go of the lock when the process ends, however it
             ends, so that a dead worker is known at once and a suspended one is not taken for dead.
BeatLeases   many hosts: a counter a worker in the storage, raised every `interval` seconds. A worker whose counter an
             observer has seen unchanged for `grace` seconds of the observer's own monotonic clock is dead. No two clocks
             are ever compared, so a clock that is wrong or set back does no harm. While the storage is away nobody can
             beat: who notices that begins to watch anew.

A worker that was taken for dead and comes back finds its trials with another worker, and drops what it had.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from autovae.search.locks import FileLock

__all__ = ["BeatLeases", "FileLeases", "Leases"]

GONE = -1  # the counter of a worker that has left


class Leases(Protocol):
    """What both kinds do. Names are never used twice."""

    def hold(self, name: str) -> contextlib.AbstractContextManager[None]: ...
    def is_dead(self, name: str) -> bool: ...


class FileLeases:
    """Locked files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.alive"

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        with FileLock(self._path(name), passing=True):
            yield

    def is_dead(self, name: str) -> bool:
        if not self._path(name).is_file():
            return True
        probe = FileLock(self._path(name), passing=True)
        if not probe.acquire(wait=False):
            return False
        probe.release()
        return True


class BeatLeases:
    """Counters in a study's attributes. `clock` is monotonic."""

    def __init__(
        self,
        study: Any,
        interval: float = 10.0,
        grace: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.study, self.interval, self.grace, self.clock = study, interval, grace, clock
        self._seen: dict[str, tuple[int, float]] = {}

    @staticmethod
    def key(name: str) -> str:
        return f"beat:{name}"

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        left = threading.Event()
        self._beat(name, 1)

        def beat() -> None:
            count = 1
            while not left.wait(self.interval):
                count += 1
                try:
                    self._beat(name, count)
                except Exception:  # the storage is away; the next beat tries again
                    self._seen = {}

        thread = threading.Thread(target=beat, name=f"beat {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join(timeout=self.interval)
            with contextlib.suppress(Exception):
                self._beat(name, GONE)

    def _beat(self, name: str, count: int) -> None:
        self.study._storage.set_study_user_attr(self.study._study_id, self.key(name), count)

    def is_dead(self, name: str) -> bool:
        count = self.study._storage.get_study_user_attrs(self.study._study_id).get(self.key(name), GONE)
        if count == GONE:
            return True
        now = self.clock()
        before, since = self._seen.get(name, (None, now))
        if before != count:
            self._seen[name] = (count, now)
            return False
        return now - since > self.grace

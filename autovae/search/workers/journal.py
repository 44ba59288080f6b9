"""The journal: Optuna's storage of a study on one host, an append-only file with one JSON record per line.

Two faults break Optuna's file backend: a process killed while holding the lock (the others wait for half a minute), and a
partial record after a kill or on a full disk (the next record is appended to it, and the file becomes unreadable). Here the
operating system locks the file and releases the lock when the process ends; the next writer truncates a partial record,
which no process has read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from autovae.search.workers.locks import FileLock

__all__ = ["Journal", "open_journal"]

BLOCK = 1 << 16
OPENING = b'{"op_code":'  # how every record begins


class Journal(JournalFileBackend):
    """The file of a `JournalStorage`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with FileLock(self.path), open(self.path, "r+b", buffering=0) as file:
            end = self._whole(file)
            file.truncate(end)
            file.seek(end)
            rest = memoryview(text.encode())
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)  # all or nothing
                raise OSError(
                    error.errno,
                    f"cannot write to {self.path}: {error.strerror}; earlier trials are kept: free disk space, then run "
                    "the same command again",
                ) from None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                yield log
                number += 1
        except json.JSONDecodeError:
            raise ValueError(
                f"{self.path}, line {number + 1} is not a record; restore the file from a copy, or use --results with "
                "another folder"
            ) from None

    def _whole(self, file: Any) -> int:
        """The end of the last complete record. A partial record after it is truncated."""
        end = file.seek(0, os.SEEK_END)
        while end:
            start = _line_start(file, end - 1)
            file.seek(start)
            line = file.read(end - start)
            if line.startswith(OPENING) and line.endswith(b"}\n"):
                return int(end)
            torn = line.strip(b"\0\n")  # a power cut may leave zeros
            if not (torn.startswith(OPENING) or OPENING.startswith(torn)):
                raise ValueError(f"{self.path} is not an Optuna journal; give another file")
            end = start
        return 0


def _line_start(file: Any, end: int) -> int:
    """The start of the line that ends before `end`."""
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return int(start + place + 1)
        end = start
    return 0


def open_journal(path: str | os.PathLike[str]) -> JournalStorage:
    """The storage of a journal file, created if absent. Raises `ValueError` if the file is not a journal."""
    try:
        return JournalStorage(Journal(path))
    except OSError as error:
        raise ValueError(f"cannot open the journal {path}: {error.strerror or error}") from None
    except (KeyError, TypeError, AttributeError, IndexError, AssertionError):
        raise ValueError(
            f"{path} is not an Optuna journal; give another file, or use --results with another folder"
        ) from None

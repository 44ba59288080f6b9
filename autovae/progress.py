"""Live progress on standard error: a rich display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["LiveProgress", "live_progress"]

PLAIN_EVERY = 10.0  # seconds between plain lines


class LiveProgress:
    """Displays `search.run.Progress`: trials done, epoch, throughput, best belief, pruned and failed, time left."""

    def __init__(self, name: str, display: Any | None) -> None:
        self.name, self._display = name, display
        self._began = time.monotonic()
        self._first_done: int | None = None
        self._last_line = -math.inf
        self._last_state: tuple[Any, ...] = ()
        self._tasks: dict[str, Any] = {}

    def phase(self, text: str) -> None:
        """Announce the next phase."""
        if self._display is None:
            print(f"{self.name}: {text}", file=sys.stderr, flush=True)
        else:
            self._display.console.print(f"{self.name}: {text}")

    def __call__(self, progress: Any) -> None:
        text = self._text(progress)
        if self._display is None:
            state = (progress.phase, progress.done)
            now = time.monotonic()
            if state != self._last_state or now - self._last_line > PLAIN_EVERY:
                print(f"{self.name}: {text}", file=sys.stderr, flush=True)
                self._last_line, self._last_state = now, state
            return
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._display.add_task(progress.phase, total=1.0, text="")
        self._display.update(self._tasks[progress.phase], completed=self._fraction(progress), text=text)

    @staticmethod
    def _fraction(progress: Any) -> float:
        epochs = progress.epoch / progress.epochs if progress.epochs else 0.0
        return epochs if progress.phase == "finals" else progress.done / max(progress.total, 1)

    def _text(self, progress: Any) -> str:
        if progress.phase == "finals":
            text = f"finals: {progress.total} fits over seeds, epoch {progress.epoch}/{progress.epochs}"
            return ", ".join([text, *_rate(progress.rate)])
        if progress.phase == "scores":
            return f"finals: {progress.done}/{progress.total} scores over seeds"
        if self._first_done is None:
            self._first_done = progress.done
        new = progress.done - self._first_done
        left = (time.monotonic() - self._began) / new * (progress.total - progress.done) if new else None
        parts = [f"{progress.done}/{progress.total} trials"]
        if progress.epoch:
            parts.append(f"epoch {progress.epoch}/{progress.epochs}")
            parts += _rate(progress.rate)
        if math.isfinite(progress.best):
            parts.append(f"best {progress.best:.4f} bits/dim ({progress.belief})")
        if progress.pruned:
            parts.append(f"{progress.pruned} pruned")
        if progress.failed:
            parts.append(f"{progress.failed} failed")
        if left is not None and progress.done < progress.total:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)


def _rate(rate: float) -> list[str]:
    """Throughput in words: epochs of one VAE per second, or seconds per epoch if slower than one per second."""
    if not math.isfinite(rate) or rate <= 0:
        return []
    return [f"{rate:.3g} VAE epochs/s" if rate >= 1 else f"{1 / rate:.3g} s a VAE epoch"]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@contextlib.contextmanager
def live_progress(name: str) -> Iterator[LiveProgress]:
    """A progress display, open for the length of a `with` block."""
    if not sys.stderr.isatty():
        yield LiveProgress(name, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield LiveProgress(name, display)

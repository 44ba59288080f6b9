"""The notebook of a reproduction: its results folder, with every finished step.

study.toml       the resolved study: compared on every run
checkpoints/     a JSON per finished step (`once`), and folders for fits in progress (`place`); not published
table.csv        our numbers and the paper's
figures/, README.md

A killed run repeats only the step it was in; a fit resumes from its last checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from autovae.files import write_text
from autovae.report.theme import save_figure
from autovae.search.result import ResultsFolder

__all__ = ["Notebook", "markdown_table", "run_again"]


class Notebook:
    """results/<study>/ of a reproduction; `say` receives progress in words."""

    def __init__(self, path: Path, say: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.say: Callable[[str], None] = say or (lambda text: None)
        self._folder = ResultsFolder(path)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Make the folder, or check that it holds this study. Raises `ValueError` with the differences."""
        self._folder.open(identity, 1)

    def place(self, name: str) -> Path:
        """A folder for the intermediate files of a step."""
        path = self.path / "checkpoints" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def once(self, name: str, compute: Callable[..., Mapping[str, Any]], *arguments: Any) -> dict[str, Any]:
        """The plain values of a step: read if finished before, else compute(*arguments), which are kept.

        Adds `seconds` and `cpu_seconds` (of the last attempt, if the step was killed before).
        """
        path = self.place("steps") / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        began, cpu = time.perf_counter(), time.process_time()
        values = dict(compute(*arguments))
        values["seconds"] = round(time.perf_counter() - began, 1)
        values["cpu_seconds"] = round(time.process_time() - cpu, 1)
        write_text(path, json.dumps(values))
        return values

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        return self._folder.write_table(name, rows)

    def write_figure(self, name: str, figure: Figure) -> Path:
        (self.path / "figures").mkdir(exist_ok=True)
        return save_figure(figure, self.path / "figures" / name)

    def write_readme(self, text: str) -> Path:
        return write_text(self.path / "README.md", text.strip() + "\n")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown; None is an empty cell."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join('' if cell is None else str(cell) for cell in line)} |" for line in lines)


def run_again(name: str, times: Iterable[Mapping[str, Any]]) -> str:
    """How to repeat a study, and what its steps took: `seconds` and `cpu_seconds` of each."""
    kept = list(times)
    minutes, cpu_minutes = (sum(float(step[key]) for step in kept) / 60 for key in ("seconds", "cpu_seconds"))
    return (
        f"Run again: `autovae run {name}`, or with `--full` in the paper's setting. Fits and tests took {minutes:.0f} "
        f"minutes, {cpu_minutes:.0f} minutes of processor time."
    )

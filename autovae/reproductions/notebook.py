"""The notebook of a reproduction: its results folder, where every finished step is kept.

study.toml       the resolved study: compared on every run
checkpoints/     one JSON a finished step (`once`), and folders for fits in progress (`place`); not published
table.csv        ours beside the paper's numbers
figures/, README.md

A run that was killed repeats the step it was in and nothing else; a fit goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from autovae.files import write_text
from autovae.report.theme import save_figure
from autovae.search.result import ResultsFolder

__all__ = ["Notebook", "StrictModel"]


class StrictModel(BaseModel):
    """Settings of a reproduction: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Notebook:
    """results/<study>/ of a reproduction. `say` is told, in words, what is being done."""

    def __init__(self, path: Path, say: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.say: Callable[[str], None] = say or (lambda text: None)
        self._folder = ResultsFolder(path)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Make the folder, or check that it holds this very study; another one's is an error that says what differs."""
        self._folder.open(identity, 1)

    def place(self, name: str) -> Path:
        """A folder for what a step leaves behind while it is under way."""
        path = self.path / "checkpoints" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def once(self, name: str, compute: Callable[..., Mapping[str, Any]], *arguments: Any) -> dict[str, Any]:
        """The plain values of a step: read if it was finished before, else compute(*arguments), kept.

        `seconds` and `cpu_seconds` (of the last run of a step that was killed) are added.
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

r"""The report of a study: importance.csv, figures/, README.md and report.html, made from results/<study>/.

    build_report("results/quickstart")      -> results/quickstart/report.html

Each part of the page is a function in `parts`, which returns the values for the template of the same name (None: the part
does not apply). A part whose data are missing is listed under "Not shown" with the reason; the rest is shown. Files are
written whole or not at all.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autovae.data.datasets import Data
from autovae.files import write_bytes, write_text
from autovae.report.content import Content
from autovae.report.importance import Importance, importance_rows
from autovae.report.page import render
from autovae.report.parts.again import again_part
from autovae.report.parts.bounds import bounds_part
from autovae.report.parts.computed import computed_part
from autovae.report.parts.drawings import drawings_part
from autovae.report.parts.fidelity import fidelity_part
from autovae.report.parts.latents import latents_part
from autovae.report.parts.leaderboard import leaderboard_part
from autovae.report.parts.mattered import mattered_part
from autovae.report.parts.result import result_part
from autovae.report.parts.search import search_part
from autovae.report.readme import readme
from autovae.report.record import read_record

__all__ = ["build_report"]

PARTS: list[tuple[str, str, Callable[[Content], dict[str, Any] | None]]] = [
    ("result", "Result", result_part),
    ("mattered", "What mattered", mattered_part),
    ("drawings", "Samples", drawings_part),
    ("latents", "Latents", latents_part),
    ("bounds", "Bounds", bounds_part),
    ("fidelity", "Fidelity", fidelity_part),
    ("leaderboard", "Leaderboard", leaderboard_part),
    ("search", "Search", search_part),
    ("computed", "Formulas", computed_part),
    ("again", "Reproduce", again_part),
]
COLUMNS = (
    "axis", "with_axis", "importance", "low", "high", "optuna", "ped_anova", "values", "trials", "surrogate_r2", "branch",
)  # fmt: skip


def build_report(folder: str | Path, data: Data | None = None) -> Path:
    """Write importance.csv, figures/, README.md and report.html into a results folder; returns the page's path.

    With `data`, the study's data set, a few points are kept in the folder for reconstructions. Raises `ValueError` if the
    folder holds no study.
    """
    content = Content(read_record(folder), data)
    parts = []
    for name, title, part in PARTS:
        values = content.attempt(title, lambda part=part: part(content), None)  # type: ignore[misc]
        if values is not None:
            parts.append((name, title, render(f"parts/{name}", **values)))
    if notes := [*content.record.notes, *dict.fromkeys(content.missing)]:
        parts.insert(1, ("missing", "Not shown", render("parts/missing", notes=notes)))
    finished = (content.record.summary or {}).get("finished", "")
    target = content.record.folder
    write_text(target / "importance.csv", importance_csv(content.importance))
    _write_figures(target / "figures", content.files)
    write_text(target / "README.md", readme(content.record, content.importance))
    return write_text(target / "report.html", render("report", record=content.record, parts=parts, finished=finished))


def _write_figures(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, figure in files.items():
        write_bytes(folder / name, figure)
    for old in folder.iterdir():
        if old.suffix in (".svg", ".png") and old.name not in files:
            old.unlink()


def importance_csv(result: Importance) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(importance_rows(result))
    return text.getvalue()

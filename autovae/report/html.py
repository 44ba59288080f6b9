r"""The report of a study: importance.csv, figures/ and report.html, made from results/<study>/ alone.

    build_report("results/quickstart")      -> results/quickstart/report.html

The page answers, in this order: what was found, which belief mattered and how sure that is, what the models draw and
what their latents do, what else was tried, how the search went, what exactly was maximised and judged, and how to do it
again. A part whose data are missing says so and why, and the rest is shown. Files are written whole or not at all.

Not here: the parts themselves (`parts`), how numbers are made (`importance`), drawn (`figures`), or worded (`words`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from autovae.data.datasets import Data
from autovae.files import write_bytes, write_text
from autovae.report.content import Content
from autovae.report.importance import Importance, importance_rows
from autovae.report.page import esc, page, section
from autovae.report.parts.bounds import bounds_part
from autovae.report.parts.computed import again_part, computed_part
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

PARTS: list[tuple[str, str, Callable[[Content], str]]] = [
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

    `data` is the study's data set where it is at hand: a few points of it are then kept beside the results for
    reconstructions. Raises `ValueError` where the folder holds no study.
    """
    content = Content(read_record(folder), data)
    parts = [(name, title, content.attempt(title, partial(make, content), "")) for name, title, make in PARTS]
    notes = [*content.record.notes, *dict.fromkeys(content.missing)]
    if notes:
        items = "".join(f"<li>{esc(note)}</li>" for note in notes)
        parts.insert(
            1, ("missing", "Not shown", section("missing", "What cannot be shown, and why", f"<ul>{items}</ul>"))
        )
    target = content.record.folder
    text = page(
        f"{content.record.title} – AutoVAE", _header(content), [part for part in parts if part[2]], _footer(content)
    )
    write_text(target / "importance.csv", importance_csv(content.importance))
    _write_figures(target / "figures", content.files)
    write_text(target / "README.md", readme(content.record, content.importance))
    return write_text(target / "report.html", text)


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


def _header(content: Content) -> str:
    record = content.record
    own = record.study.get("data", {}).get("path")
    elsewhere = f" <strong>Run on {esc(record.data_name)} instead of the study's own data.</strong>" if own else ""
    return (
        f'<p class="kicker">AutoVAE study · {esc(record.data_name)}</p><h1>{esc(record.title)}</h1>'
        f'<p class="lede">{esc(record.study.get("purpose", ""))}{elsewhere}</p>'
    )


def _footer(content: Content) -> str:
    finished = (content.record.summary or {}).get("finished", "")
    return f"Made by AutoVAE from {esc(content.record.folder.name)}/ alone{f'; finished {esc(finished)}' if finished else ''}."

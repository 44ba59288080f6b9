"""A results folder as plain data, and the reasons for what is missing.

All that a report shows comes through here, from results/<study>/. A file that is missing, empty or broken becomes a note;
reading never fails for it.
"""

from __future__ import annotations

import ast
import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autovae.renames import renamed
from autovae.search.files import read_toml

__all__ = ["Record", "belief_of", "pair_of", "pairing_text", "read_record", "role_words"]

Row = dict[str, Any]
MEASURED = ("elbo", "nll", "inception_score", "fid", "kid", "kid_error", "precision", "recall", "points")
"""Columns of beliefs.csv that are joined to the trials."""
NUMBERS = (
    "K", "gap", "gap_error", "bound", "points", "score", "score_se", "kid", "parameters", "alpha", "latent_dim", "epochs",
    "learning_rate", "seconds", "beta", "samples", "validation", "test", "common_head", *MEASURED,
)  # fmt: skip


@dataclass
class Record:
    """One study's results. Scores are bits per dimension: lower is better."""

    folder: Path
    study: Row = field(default_factory=dict)
    trials: list[Row] = field(default_factory=list)
    finals: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    summary: Row | None = None
    floor: Row = field(default_factory=dict)  # scores of real test data, if beliefs were measured
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.study.get("name", self.folder.name))

    @property
    def title(self) -> str:
        """The folder's name: a study run on other data has a folder of its own."""
        return self.folder.resolve().name

    @property
    def complete(self) -> list[Row]:
        """Trials with a score of their own: duplicates, which are not trained, are left out."""
        rows = [row for row in self.trials if row["state"] == "COMPLETE" and not row.get("duplicate_of")]
        return [row for row in rows if math.isfinite(row["score"])]

    @property
    def states(self) -> dict[str, int]:
        return dict(Counter(str(row["state"]) for row in self.trials))

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why trials failed, the most frequent reason first."""
        return Counter(str(row["reason"]) for row in self.trials if row["state"] == "FAIL").most_common()

    @property
    def data_name(self) -> str:
        return str(self.study.get("data", {}).get("name", "unknown data"))


def read_record(folder: str | Path) -> Record:
    """The record of a folder. Raises `ValueError` only if it holds no readable study.toml of a search."""
    path = Path(folder)
    if not (path / "study.toml").is_file():
        raise ValueError(f"{path} has no study.toml; expected a results folder such as results/quickstart")
    record = Record(path, read_toml(path / "study.toml"))
    if record.study.get("kind") == "reproduction":
        raise ValueError(
            f"{path} holds a reproduction of a published experiment; reports are of searches, and its page is README.md. "
            f"autovae run {record.name} makes its tables and figures again"
        )
    record.trials = _table(record, "trials.csv", "no trial is finished yet")
    record.finals = _table(record, "finals.csv", "the finals have not run")
    record.curves = _table(record, "curves.csv")  # studies of an earlier version have none
    _join(record, _table(record, "beliefs.csv"))  # written by `autovae fidelity --beliefs`
    record.summary = _summary(record)
    return record


def _join(record: Record, rows: Sequence[Row]) -> None:
    """Add what was measured of each trial; the row without a number is real data."""
    measured = {row.get("number"): {name: row[name] for name in MEASURED if name in row} for row in rows}
    floor = next((row for row in rows if row.get("number") == ""), {})
    record.floor = {name: floor[name] for name in (*MEASURED, "features") if name in floor}
    for trial in record.trials:
        trial |= measured.get(trial.get("number"), {})


def _table(record: Record, name: str, if_missing: str = "") -> list[Row]:
    """The rows of a CSV file; problems become notes, except a missing file that is optional."""
    path = record.folder / name
    if not path.is_file():
        record.notes += [f"{name} is missing: {if_missing}."] if if_missing else []
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        record.notes.append(f"{name} cannot be read ({error}).")
        return []
    whole = [row for row in rows if None not in row and None not in row.values()]
    if len(whole) < len(rows):
        record.notes.append(f"{name} has {len(rows) - len(whole)} broken rows, which are left out.")
    return [_typed(row) for row in whole]


def _summary(record: Record) -> Row | None:
    path = record.folder / "summary.json"
    if not path.is_file():
        record.notes.append("summary.json is missing: the study has no verdict yet.")
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        record.notes.append(f"summary.json cannot be read ({error}).")
        return None
    return dict(renamed(values))


def _typed(row: Mapping[str, str]) -> Row:
    values: Row = {"state": "", "score": math.nan, "reason": "", **renamed(row)}
    for name in ("number", "trial", "seed"):
        if values.get(name):
            values[name] = int(float(values[name]))
    for name in NUMBERS:
        if name in values:
            values[name] = _number(values[name])
    for name in ("posterior", "prior"):
        if name in values:
            values[name] = _families(values[name])
    return values


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _families(text: str) -> str | tuple[str, ...]:
    """A family, or one per latent if the cell holds a list."""
    if not text.startswith(("[", "(")):
        return text
    try:
        return tuple(map(str, ast.literal_eval(text)))
    except (ValueError, SyntaxError):
        return text


def pair_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """(posterior, prior) of a trial whose latents are all alike; None for a heterogeneous pairing."""
    posterior, prior = row.get("posterior"), row.get("prior")
    return (posterior, prior) if posterior and prior and isinstance(posterior, str) and isinstance(prior, str) else None


def pairing_text(row: Mapping[str, Any]) -> str:
    """The pairs of a trial in words: ``logistic|normal``, with counts if there are several."""
    pair = pair_of(row)
    if pair:
        return "|".join(pair)
    sides = [row.get("posterior") or "?", row.get("prior") or "?"]
    size = max(len(side) for side in sides if not isinstance(side, str))
    counts = Counter(zip(*((side,) * size if isinstance(side, str) else side for side in sides), strict=False))
    return " + ".join(f"{q}|{p} ×{count}" for (q, p), count in counts.items())


def belief_of(row: Mapping[str, Any]) -> str:
    """The belief of a trial in words."""
    parts = [pairing_text(row)] if row.get("posterior") else []
    scale = f" ({row['scale']} scale)" if row.get("scale") not in (None, "", "global") else ""
    parts += [f"{row['likelihood']}{scale}"] if row.get("likelihood") else []
    alpha = row.get("alpha", math.nan)
    parts += [f"α {alpha:g}"] if not math.isnan(alpha) and alpha != 1 else []
    return ", ".join(parts) or "unknown belief"


def role_words(rank: str) -> str:
    """The role of a row of finals.csv: a finalist by its place, the baseline, a twin, or a learned prior."""
    if rank.isdigit():
        return f"finalist {rank}"
    if rank.startswith("twin"):
        return f"matched normal, {rank}"
    return rank if rank == "baseline" else f"learned {rank} prior"

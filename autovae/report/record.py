"""A results folder as plain data: what is there, and for what is not, the reason why.

Everything the report shows comes through here, from results/<study>/ alone. A file that is missing, empty or broken
becomes a note in words; reading never fails for it. Not here: what is made of the data (`importance`, `figures`, `html`).
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

MEASURED = ("elbo", "nll", "inception_score", "fid", "kid", "kid_error", "precision", "recall", "points")
"""Columns of beliefs.csv that go beside the trials."""
NUMBERS = (
    "K",
    "gap",
    "gap_error",
    "bound",
    "points",
    "score",
    "score_se",
    "kid",
    "parameters",
    "alpha",
    "latent_dim",
    "epochs",
    "learning_rate",
    "seconds",
    "beta",
    "samples",
    *MEASURED,
)


@dataclass
class Record:
    """One study's results. Scores are bits per dimension: lower is better."""

    folder: Path
    study: dict[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    finals: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] | None = None
    floor: dict[str, Any] = field(default_factory=dict)  # what real test data score, where beliefs were measured
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.study.get("name", self.folder.name))

    @property
    def title(self) -> str:
        """The folder's name: a study run on other data has a folder of its own."""
        return self.folder.resolve().name

    @property
    def complete(self) -> list[dict[str, Any]]:
        """Trials with a score of their own: those that repeat a belief without training are left out."""
        return [
            row
            for row in self.trials
            if row["state"] == "COMPLETE" and math.isfinite(row["score"]) and not row.get("duplicate_of")
        ]

    @property
    def states(self) -> dict[str, int]:
        return dict(Counter(str(row["state"]) for row in self.trials))

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why trials failed, the commonest first."""
        return Counter(str(row["reason"]) for row in self.trials if row["state"] == "FAIL").most_common()

    @property
    def data_name(self) -> str:
        return str(self.study.get("data", {}).get("name", "unknown data"))


def read_record(folder: str | Path) -> Record:
    """The record of a folder. Raises `ValueError` only where there is no study.toml of a search that can be read."""
    path = Path(folder)
    if not (path / "study.toml").is_file():
        raise ValueError(
            f"{path} is no results folder: it has no study.toml; expected a folder such as results/quickstart"
        )
    record = Record(path, read_toml(path / "study.toml"))
    if record.study.get("kind") == "reproduction":
        raise ValueError(
            f"{path} holds a published experiment run again, whose page is its README.md; reports are of searches. "
            f"autovae run {record.name} makes its tables and figures anew"
        )
    record.trials = [_typed(row) for row in _table(record, "trials.csv", "no trial is finished yet")]
    record.finals = [_typed(row) for row in _table(record, "finals.csv", "the finals have not run")]
    if (path / "curves.csv").is_file():  # studies of an earlier version have none
        record.curves = [_typed(row) for row in _table(record, "curves.csv", "")]
    if (path / "beliefs.csv").is_file():  # made by `autovae fidelity --beliefs`
        _measured(record, [_typed(row) for row in _table(record, "beliefs.csv", "")])
    record.summary = _summary(record)
    return record


def _measured(record: Record, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put what was measured of each trial beside it; the row without a trial is real data."""
    found = {
        row["number"]: {name: row[name] for name in MEASURED if name in row} for row in rows if row.get("number") != ""
    }
    for trial in record.trials:
        trial |= found.get(trial.get("number"), {})
    floor = next((row for row in rows if row.get("number") == ""), {})
    record.floor = {name: floor[name] for name in (*MEASURED, "features") if name in floor}


def _table(record: Record, name: str, without: str) -> list[dict[str, str]]:
    path = record.folder / name
    if not path.is_file():
        record.notes.append(f"{name} is missing: {without}.")
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
    return whole


def _summary(record: Record) -> dict[str, Any] | None:
    path = record.folder / "summary.json"
    if not path.is_file():
        record.notes.append("summary.json is missing: the study has no verdict yet.")
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        record.notes.append(f"summary.json cannot be read ({error}).")
        return None
    if not isinstance(values, dict):
        record.notes.append("summary.json holds no table.")
        return None
    return dict(renamed(values))


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {"state": "", "score": math.nan, "reason": "", **renamed(row)}
    for name in ("number", "trial", "seed"):
        if values.get(name):
            values[name] = int(float(values[name]))
    for name in (*NUMBERS, "validation", "test"):
        if name in values:
            values[name] = _number(values[name])
    for name in ("posterior", "prior"):
        if isinstance(values.get(name), str):
            values[name] = _families(values[name])
    return values


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _families(text: str) -> str | tuple[str, ...]:
    """A family, or one per latent where the cell holds a list."""
    if not text.startswith(("[", "(")):
        return text
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return tuple(map(str, names))


def pair_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """(posterior, prior) of a trial whose latents are all alike; None for a heterogeneous pairing."""
    posterior, prior = row.get("posterior"), row.get("prior")
    return (posterior, prior) if posterior and prior and isinstance(posterior, str) and isinstance(prior, str) else None


def pairing_text(row: Mapping[str, Any]) -> str:
    """The pairs of a trial in words: ``logistic|normal``, or with counts where there are several."""
    pair = pair_of(row)
    if pair:
        return "|".join(pair)
    sides = [row.get("posterior") or "?", row.get("prior") or "?"]
    size = max(len(side) for side in sides if not isinstance(side, str))
    full = [(side,) * size if isinstance(side, str) else side for side in sides]
    counts = Counter(zip(*full, strict=False))
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
    """What a row of finals.csv stands for: a finalist by its place, the baseline, a twin, or a learned prior."""
    if rank.isdigit():
        return f"finalist {rank}"
    if rank.startswith("twin"):
        return f"matched normal, {rank}"
    return rank if rank == "baseline" else f"learned {rank} prior"

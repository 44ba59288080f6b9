"""Fidelity of the saved models against real data, with their bits and nats, as `autovae fidelity` kept it in the cards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autovae.export.card import CardError, read_card
from autovae.export.fidelity import FLOOR, folders_of
from autovae.report.content import Content
from autovae.report.page import Column, Table, words
from autovae.report.record import Record
from autovae.spec import VAESpec

__all__ = ["cards_of", "facts_of", "fidelity_part", "fidelity_rows", "labels_of"]

Cards = Mapping[str, Mapping[str, Any]]
SETS = {FLOOR: "test data", "reconstructions": "reconstructions", "prior": "samples of the prior"}
SCORES = ("fid", "kid", "kid_error", "inception_score", "precision", "recall")
COLUMNS = [
    Column("model", "model"), Column("belief", "belief"), Column("points from", "set"), Column("bits/dim", "bits", True),
    Column("nats", "nats", True, 2), Column("IS", "inception_score", True, 2), Column("FID", "fid", True, 2),
    Column("KID", "kid", True, 4), Column("±", "kid_error", True, 4), Column("precision", "precision", True, 3),
    Column("recall", "recall", True, 3), Column("N", "points", True, 0),
]  # fmt: skip


def fidelity_part(content: Content) -> dict[str, Any] | None:
    """A table for every network whose features were used."""
    cards = cards_of(content.record.folder)
    tables = []
    for label in labels_of(cards):
        rows, name = fidelity_rows(content.record, cards, label), "".join(c if c.isalnum() else "-" for c in label)
        scores = [scores for card in cards.values() for scores in _rows(card, label).values()]
        about = Table(COLUMNS, rows, f"FID, KID and others ({label})", f"fidelity-{name}", sortable=True)
        warnings = list(dict.fromkeys(text for own in scores for text in own.get("warnings", ())))
        if rows:
            tables.append({"table": about, "network": facts_of(cards, label), "warnings": warnings})
    return {"tables": tables, "title": content.record.title} if cards else None


def cards_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The cards of a study's models by name, with or without their weights."""
    try:
        return {name: read_card(path) for name, path in folders_of(folder).items()}
    except CardError:
        raise
    except ValueError:
        return {}


def labels_of(cards: Cards) -> list[str]:
    """The networks whose features were used. Raises `ValueError` for a card whose scores are broken."""
    for name, card in cards.items():
        networks = card.get("fidelity", {})
        if not isinstance(networks, dict) or not all(map(_well_formed, networks.values())):
            raise ValueError(
                f"the fidelity scores in the card of {name} are broken; score it again with autovae fidelity"
            )
    return list(dict.fromkeys(label for card in cards.values() for label in card.get("fidelity", {})))


def _well_formed(network: Any) -> bool:
    rows = network.get("rows") if isinstance(network, dict) else None
    return isinstance(rows, dict) and all(isinstance(scores, dict) for scores in rows.values())


def facts_of(cards: Cards, label: str) -> str:
    """The network in words, with its accuracy if it classifies."""
    facts = next(
        card["fidelity"][label].get("facts", {}) for card in cards.values() if label in card.get("fidelity", {})
    )
    accuracy = facts.get("accuracy")
    return f"{label}, accuracy {accuracy:.1%} on test" if isinstance(accuracy, float) else label


def _rows(card: Mapping[str, Any], label: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = card.get("fidelity", {}).get(label, {}).get("rows", {})
    return found


def fidelity_rows(record: Record, cards: Cards, label: str) -> list[dict[str, Any]]:
    """One row per model and set of points; real test data first, once."""
    rows: list[dict[str, Any]] = []
    for name, card in cards.items():
        spec, bits = VAESpec.from_dict(card["spec"]), _bits(record, name)
        about = {
            "model": name,
            "belief": words(spec.belief).removesuffix(", alpha 1"),
            "bits": bits,
            "nats": bits * math.prod(card["domain"]["shape"]) * math.log(2),
            "class": {"winner 1": "winner", "baseline": "baseline"}.get(name, ""),
        }
        for kind, scores in _rows(card, label).items():
            values = {key: math.nan if scores.get(key) is None else float(scores[key]) for key in SCORES}
            row = {**values, "set": SETS.get(kind, f"samples of the {kind}"), "points": scores.get("points")}
            if kind != FLOOR:
                rows.append({**row, **about})
            elif not rows or rows[0]["model"]:
                rows.insert(0, {**row, "model": "", "belief": "real data", "bits": math.nan, "nats": math.nan})
    return rows


def _bits(record: Record, name: str) -> float:
    """Mean validation bits over seeds of the model called `name` in the finals."""
    rank = name.removeprefix("winner ")
    values = [row.get("validation", math.nan) for row in record.finals if str(row.get("rank")) == rank]
    finite = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan

"""Fidelity of the saved models beside real data, and pairs x likelihoods with bits, nats, IS, FID and KID in one table.

The scores are those that `autovae fidelity` kept in the cards; a study without them has no such part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autovae.export.card import CardError, read_card
from autovae.export.fidelity import FLOOR, folders_of
from autovae.report.content import Content
from autovae.report.page import Column, esc, section, table
from autovae.report.record import Record
from autovae.spec import VAESpec

__all__ = ["cards_of", "fidelity_part", "fidelity_rows", "labels_of"]

SETS = {FLOOR: "test data", "reconstructions": "reconstructions", "prior": "samples of the prior"}
SCORES = ("fid", "kid", "kid_error", "inception_score", "precision", "recall")


def fidelity_part(content: Content) -> str:
    """A table for every network whose features were used; empty where no card has scores."""
    cards = cards_of(content.record.folder)
    parts = [part for label in labels_of(cards) for part in _of_network(content.record, cards, label)]
    if cards and not parts:
        command = f"autovae fidelity results/{esc(content.record.title)}"
        parts = [
            f"<p class='note'>Not scored yet: <code>{command}</code> compares what these models draw with real data (FID, KID, "
            "IS, precision and recall), and the next report shows it here.</p>"
        ]
    return section("fidelity", "Samples beside real data", *parts) if parts else ""


def cards_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The cards of a study's models by name; their weights need not be there."""
    try:
        return {name: read_card(path) for name, path in folders_of(folder).items()}
    except CardError:
        raise
    except ValueError:
        return {}


def labels_of(cards: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The networks under which they were scored. Raises `ValueError` for a card whose scores are broken."""
    return list(dict.fromkeys(label for name, card in cards.items() for label in _kept(name, card)))


def _kept(name: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """The scores in a card by network; raises `ValueError` where they are not of the form that was written."""
    found = card.get("fidelity", {})
    rows = (
        [value.get("rows") if isinstance(value, dict) else None for value in found.values()]
        if isinstance(found, dict)
        else [None]
    )
    if not all(isinstance(row, dict) and all(isinstance(scores, dict) for scores in row.values()) for row in rows):
        raise ValueError(f"the fidelity scores in the card of {name} are broken; score it again with autovae fidelity")
    return dict(found)


def fidelity_rows(record: Record, cards: Mapping[str, Mapping[str, Any]], label: str) -> list[dict[str, Any]]:
    """One row a model and set, the floor once and first."""
    rows: list[dict[str, Any]] = []
    for name, card in cards.items():
        spec, features = VAESpec.from_dict(card["spec"]), math.prod(card["domain"]["shape"])
        bits = _bits(record, name)
        about = {
            "model": name,
            "belief": spec.belief.replace("_", " ").removesuffix(", alpha 1"),
            "bits": bits,
            "nats": bits * features * math.log(2),
            "class": "winner" if name == "winner 1" else "baseline" if name == "baseline" else "",
        }
        for kind, scores in card.get("fidelity", {}).get(label, {}).get("rows", {}).items():
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


def _of_network(record: Record, cards: Mapping[str, Mapping[str, Any]], label: str) -> list[str]:
    rows = fidelity_rows(record, cards, label)
    if not rows:
        return []
    facts = next(
        card["fidelity"][label].get("facts", {}) for card in cards.values() if label in card.get("fidelity", {})
    )
    accuracy = facts.get("accuracy")
    right = f", right for {accuracy:.1%} of the test points" if isinstance(accuracy, float) else ""
    columns = [
        Column("model", "model"), Column("belief", "belief"), Column("points from", "set"),
        Column("bits/dim", "bits", True), Column("nats", "nats", True, 2), Column("IS", "inception_score", True, 2),
        Column("FID", "fid", True, 2), Column("KID", "kid", True, 4), Column("±", "kid_error", True, 4),
        Column("precision", "precision", True, 3), Column("recall", "recall", True, 3), Column("N", "points", True, 0),
    ]  # fmt: skip
    note = (
        f"Scores on {esc(label)}{esc(right)}: they compare models under this network alone. FID and KID: lower is nearer; "
        "the first row, real test points against training points, is what a perfect generator reaches. Bits and nats are "
        "means over seeds on validation; samples are those of one seed."
    )
    warnings = dict.fromkeys(
        text
        for card in cards.values()
        for scores in card.get("fidelity", {}).get(label, {}).get("rows", {}).values()
        for text in scores.get("warnings", ())
    )
    items = "".join(f"<li>{esc(text)}</li>" for text in warnings)
    caution = f'<div class="card warning"><ul>{items}</ul></div>' if items else ""
    name = f"fidelity-{''.join(c if c.isalnum() else '-' for c in label)}"
    return [
        table(columns, rows, f"FID, KID and others ({label})", name, sortable=True),
        f"<p class='note'>{note}</p>",
        caution,
    ]

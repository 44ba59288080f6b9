"""The belief axes of a study: the beliefs and settings on which its trials differ, whatever the sampler's parameters.

A study that searches the categorical `posterior|prior` still gets posterior and prior as two axes; heterogeneous pairings
become shares of families; axes that always change together become one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from autovae.finiteness import finiteness
from autovae.report.boxes import Joint
from autovae.report.forest import Axis

__all__ = ["belief_axes", "joint_of"]

SKIPPED = {"number", "state", "score", "score_se", "seed", "seconds", "reason", "bits", "nats", "duplicate_of", "kid",
           "parameters"}  # fmt: skip
FEW = 12  # distinct values up to which a number is a choice


def belief_axes(
    rows: Sequence[Mapping[str, Any]], space: Mapping[str, Any] | None = None
) -> tuple[list[Axis], list[dict[str, Any]], list[str]]:
    """The axes on which trials differ, the trials on these axes, and the names of axes that only some trials have.

    Heterogeneous pairings become shares of families. Ranges are those of the study's space where it names them, else
    what was tried.
    """
    points = [_beliefs(row) for row in rows]
    _fill_shares(points)
    _merge_tied(points)
    parameters = (space or {}).get("parameters", {})
    axes, partial = [], []
    for name in sorted({name for point in points for name in point}):
        values = [point.get(name) for point in points]
        different = set(values) - {None}
        if len(different) < 2:
            continue
        if None in values:
            partial.append(name)
            continue
        numbers = [value for value in different if isinstance(value, float) and math.isfinite(value)]
        if len(numbers) == len(different) > FEW:
            known = parameters.get(name, {})
            low, high = min([*numbers, known.get("low", math.inf)]), max([*numbers, known.get("high", -math.inf)])
            axes.append(Axis(name, low, high, log=bool(known.get("log", low > 0 and high / low >= 100))))
        elif len(different) <= max(FEW, len(rows) // 2):
            axes.append(Axis(name, choices=tuple(sorted(different, key=lambda value: (str(type(value)), value)))))
    return axes, points, partial


def _beliefs(row: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values by axis: text for choices, floats for numbers."""
    point: dict[str, Any] = {}
    for name, value in row.items():
        if name in SKIPPED or value == "" or value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, tuple):
            point.update({f"share of {family} in {name}": value.count(family) / len(value) for family in set(value)})
        else:
            point[name] = value
    return point


def _fill_shares(points: list[dict[str, Any]]) -> None:
    """A family that a heterogeneous trial does not hold has share 0 in it; a single pair has share 1."""
    shares = {name for point in points for name in point if name.startswith("share of ")}
    for side in ("posterior", "prior"):
        own = {name for name in shares if name.endswith(f" in {side}")}
        if not own:
            continue
        for point in points:
            single = point.pop(side, None)
            for name in own:
                point.setdefault(name, 1.0 if name == f"share of {single} in {side}" else 0.0)
    for (
        name
    ) in shares:  # matched pairs have the same shares on both sides: one axis, not two that nobody can tell apart
        family, side = name.removeprefix("share of ").rsplit(" in ", 1)
        sides = [f"share of {family} in posterior", f"share of {family} in prior"]
        if side == "posterior" and all(point.get(sides[0]) == point.get(sides[1]) for point in points):
            for point in points:
                point[f"share of {family}"] = point.pop(sides[0])
                point.pop(sides[1])


def _merge_tied(points: list[dict[str, Any]]) -> None:
    """Axes that always change together, as posterior and prior of matched pairs, are one axis: nobody can tell them apart."""
    names = sorted({name for point in points for name in point})
    for a, b in itertools.combinations(names, 2):
        sides = [[point.get(name) for point in points] for name in (a, b)]
        if any(None in side or len(set(side)) < 2 for side in sides) or any(
            isinstance(v, float) for v in sides[0] + sides[1]
        ):
            continue
        if len(set(zip(*sides, strict=True))) == len(set(sides[0])) == len(set(sides[1])):
            for point in points:
                first, second = point.pop(a), point.pop(b)
                point[f"{a} and {b}"] = first if first == second else f"{first}|{second}"


def joint_of(axes: Sequence[Axis], rows: Sequence[Mapping[str, Any]], space: Mapping[str, Any] | None) -> Joint | None:
    """Posterior and prior as joined axes, where the space does not offer all their combinations."""
    names = [axis.name for axis in axes]
    if "posterior" not in names or "prior" not in names or names.index("prior") != names.index("posterior") + 1:
        return None
    first = names.index("posterior")
    posteriors, priors = axes[first].choices, axes[first + 1].choices
    if not posteriors or not priors:
        return None
    listed = (space or {}).get("parameters", {}).get("pair", {}).get("choices")
    offered = {tuple(part.strip() for part in str(text).split("|")) for text in listed or ()}
    tried = {(row["posterior"], row["prior"]) for row in rows}
    cells = tuple(
        (a, b)
        for a, q in enumerate(posteriors)
        for b, p in enumerate(priors)
        if (q, p) in tried or ((q, p) in offered if listed else _finite(q, p))
    )
    return Joint(first, cells) if len(cells) < len(posteriors) * len(priors) else None


def _finite(posterior: str, prior: str) -> bool:
    try:
        return finiteness(posterior, prior) != "infinite"
    except ValueError:  # a family that this version does not know
        return False

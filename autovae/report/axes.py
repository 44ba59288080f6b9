"""The belief axes of a study: the beliefs and settings on which its trials differ, whatever the sampler's parameters.

A study that searches the categorical `posterior|prior` has two axes, posterior and prior. Heterogeneous pairings become
shares of families. Axes that always change together become one, since their effects cannot be separated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from autovae.finiteness import TAILS, finiteness
from autovae.report.boxes import Joint
from autovae.report.forest import Axis

__all__ = ["belief_axes", "joint_of"]

SKIPPED = {"number", "state", "score", "score_se", "seed", "seconds", "reason", "bits", "nats", "duplicate_of", "kid",
           "parameters"}  # fmt: skip
FEW = 12  # distinct values up to which a number counts as a choice
WIDE = 100  # high / low from which a range is logarithmic, unless the space says otherwise

Rows = Sequence[Mapping[str, Any]]
Space = Mapping[str, Any] | None


def belief_axes(rows: Rows, space: Space = None) -> tuple[list[Axis], list[dict[str, Any]], list[str]]:
    """The axes on which trials differ, the trials on these axes, and the names of axes that only some trials have.

    Ranges are those of the study's space if it names them, else the range of the trials.
    """
    points = [_beliefs(row) for row in rows]
    _fill_shares(points)
    _merge_tied(points)
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
            known = (space or {}).get("parameters", {}).get(name, {})
            low, high = min([*numbers, known.get("low", math.inf)]), max([*numbers, known.get("high", -math.inf)])
            axes.append(Axis(name, low, high, log=bool(known.get("log", low > 0 and high / low >= WIDE))))
        elif len(different) <= max(FEW, len(rows) // 2):
            axes.append(Axis(name, choices=tuple(sorted(different, key=lambda value: (str(type(value)), value)))))
    return axes, points, partial


def _beliefs(row: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values by axis: text for choices, floats for numbers."""
    point: dict[str, Any] = {}
    for name, value in row.items():
        if name in SKIPPED or value in ("", None) or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, tuple):
            point.update({f"share of {family} in {name}": value.count(family) / len(value) for family in set(value)})
        else:
            point[name] = value
    return point


def _fill_shares(points: list[dict[str, Any]]) -> None:
    """Absent families get share 0, a single family gets share 1; a share that is equal on both sides is one axis."""
    shares = {name for point in points for name in point if name.startswith("share of ")}
    for side in ("posterior", "prior"):
        own = {name for name in shares if name.endswith(f" in {side}")}
        for point in points if own else ():
            single = point.pop(side, None)
            for name in own:
                point.setdefault(name, 1.0 if name == f"share of {single} in {side}" else 0.0)
    for name in shares:
        both, _, side = name.rpartition(" in ")
        other = f"{both} in prior"
        if side == "posterior" and all(point.get(name) == point.get(other) for point in points):
            for point in points:
                point[both] = point.pop(name)
                del point[other]


def _merge_tied(points: list[dict[str, Any]]) -> None:
    """Merge categorical axes that determine each other, such as posterior and prior of matched pairs."""
    for a, b in itertools.combinations(sorted({name for point in points for name in point}), 2):
        first, second = ([point.get(name) for point in points] for name in (a, b))
        if any(value is None or isinstance(value, float) for value in first + second):
            continue
        if len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second)) > 1:
            for point in points:
                one, two = point.pop(a), point.pop(b)
                point[f"{a} and {b}"] = one if one == two else f"{one}|{two}"


def joint_of(axes: Sequence[Axis], rows: Rows, space: Space) -> Joint | None:
    """Posterior and prior as joined axes, if the space does not offer all their combinations."""
    names = [axis.name for axis in axes]
    first = names.index("posterior") if "posterior" in names else -1
    if first < 0 or names[first + 1 : first + 2] != ["prior"]:
        return None
    posteriors, priors = axes[first].choices, axes[first + 1].choices
    listed = (space or {}).get("parameters", {}).get("pair", {}).get("choices")
    offered = {tuple(part.strip() for part in str(text).split("|")) for text in listed or ()}
    offered |= {(row["posterior"], row["prior"]) for row in rows}
    cells = tuple(
        (a, b)
        for (a, q), (b, p) in itertools.product(enumerate(posteriors), enumerate(priors))
        if (q, p) in offered or (not listed and _finite(q, p))
    )
    return Joint(first, cells) if len(cells) < len(posteriors) * len(priors) else None


def _finite(posterior: str, prior: str) -> bool:
    """Unknown families count as infinite."""
    return posterior in TAILS and prior in TAILS and finiteness(posterior, prior) != "infinite"

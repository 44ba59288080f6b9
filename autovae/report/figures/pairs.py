"""Maps of two axes as tables of coloured numbers: posterior x prior, or the pair of axes that interacts most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from autovae.finiteness import TAILS, finiteness
from autovae.report.importance import Importance
from autovae.report.page import words
from autovae.report.record import pair_of
from autovae.report.theme import COLOURS, new_figure, style, tip

__all__ = ["pair_families", "pair_figure", "score_limits", "surface_figure"]


def pair_figure(
    rows: Sequence[Mapping[str, Any]],
    families: tuple[Sequence[str], Sequence[str]] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Score of every posterior x prior pair: the best of its trials; infinite pairs are hatched."""
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        pair = pair_of(row)
        if pair and math.isfinite(row["score"]):
            scores.setdefault(pair, []).append(row["score"])
    posteriors, priors = families or pair_families(rows)
    cells = {
        pair: (
            min(found),
            f"best {min(found):.4f}, mean {np.mean(found):.4f}, {len(found)} trial{'s' * (len(found) > 1)}",
        )
        for pair, found in scores.items()
    }
    blocked = {(q, p) for q in posteriors for p in priors if _infinite(q, p)}
    return _map_figure(("posterior", posteriors), ("prior", priors), cells, limits, blocked)


def surface_figure(result: Importance) -> Figure:
    """The forest's mean prediction for every combination of the two axes of `result.surface`, all else averaged out."""
    assert result.surface is not None  # asked only where there is one
    first, second, values = result.surface
    down, across = result.axes[first], result.axes[second]
    is_pair = (down.name, across.name) == ("posterior", "prior")
    blocked = {(q, p) for q in down.choices for p in across.choices if is_pair and _infinite(str(q), str(p))}
    offered = set(result.joint.cells) if is_pair and result.joint is not None else None
    cells = {
        (q, p): (float(values[a, b]), f"{values[a, b]:.4f} on average over all else")
        for a, q in enumerate(down.choices)
        for b, p in enumerate(across.choices)
        if (q, p) not in blocked and (offered is None or (a, b) in offered)
    }
    sides: list[tuple[str, Sequence[Any]]] = [(axis.name.replace("_", " "), axis.choices) for axis in (down, across)]
    if is_pair:
        sides = [(name, _in_order({str(choice) for choice in choices})) for name, choices in sides]
    return _map_figure(sides[0], sides[1], cells, None, blocked)


def _map_figure(
    down: tuple[str, Sequence[Any]],
    across: tuple[str, Sequence[Any]],
    cells: Mapping[tuple[Any, Any], tuple[float, str]],
    limits: tuple[float, float] | None,
    blocked: set[tuple[Any, Any]],
) -> Figure:
    """A table of coloured numbers; cells are (number, what it says when pointed at), bright is low."""
    low, high = limits or score_limits(value for value, _ in cells.values())
    colours = matplotlib.colormaps["viridis_r"]
    with style():
        figure = new_figure(0.85 + 0.31 * len(down[1]))
        axes: Axes = figure.subplots()
        for y, q in enumerate(down[1]):
            for x, p in enumerate(across[1]):
                box = Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, lw=0)
                if (q, p) in cells:
                    value, about = cells[q, p]
                    share = float(np.clip((value - low) / max(high - low, 1e-12), 0, 1))
                    box.set_facecolor(colours(share))
                    ink = "#111111" if share < 0.45 else "#ffffff"
                    axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink)
                elif (q, p) in blocked:
                    box.set(facecolor="none", hatch="//////", edgecolor=COLOURS["rule"])
                    about = "the divergence is infinite"
                else:
                    box.set_facecolor(COLOURS["wash"])
                    about = "not tried"
                tip(box, f"{down[0]} {words(q)}, {across[0]} {words(p)}: {about}")
                axes.add_patch(box)
        axes.set_xlim(-0.5, len(across[1]) - 0.5)
        axes.set_ylim(len(down[1]) - 0.5, -0.5)
        names = [words(choice) for choice in across[1]]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="left", rotation_mode="anchor")
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(down[1])), [words(choice) for choice in down[1]])
        axes.tick_params(length=0, labelcolor=COLOURS["ink"], labelsize=7.5)
        axes.set_ylabel(down[0])
        axes.set_xlabel(across[0], labelpad=3)
        axes.xaxis.set_label_position("top")
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def pair_families(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Posterior and prior families that occur in trials: in the project's order, then those it does not know."""
    pairs = {pair for row in rows if (pair := pair_of(row))}
    posteriors, priors = ({pair[side] for pair in pairs} for side in (0, 1))
    return _in_order(posteriors), _in_order(priors)


def _in_order(names: set[str]) -> list[str]:
    return [name for name in TAILS if name in names] + sorted(names - set(TAILS))


def _infinite(posterior: str, prior: str) -> bool:
    return posterior in TAILS and prior in TAILS and finiteness(posterior, prior) == "infinite"


def score_limits(scores: Any) -> tuple[float, float]:
    """Colour limits: from the best score to one that a few bad ones do not stretch."""
    found = np.array([score for score in scores if math.isfinite(score)])
    if not len(found):
        return 0.0, 1.0
    return float(found.min()), float(max(np.quantile(found, 0.8), found.min() + 1e-9))

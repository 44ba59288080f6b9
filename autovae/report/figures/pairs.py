"""Maps of two axes as tables of coloured numbers: posterior x prior, or the pair of axes that interacts most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from autovae.finiteness import TAILS, finiteness
from autovae.report.importance import Importance
from autovae.report.page import words
from autovae.report.record import pair_of
from autovae.report.theme import COLOURS, panel, tip

__all__ = ["pair_families", "pair_figure", "score_limits", "surface_figure"]

Side = tuple[str, Sequence[Any]]  # the name of an axis and its choices


def pair_figure(
    rows: Sequence[Mapping[str, Any]],
    families: tuple[Sequence[str], Sequence[str]] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """The best score of every pair of posterior and prior; infinite pairs are hatched."""
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if (pair := pair_of(row)) and math.isfinite(row["score"]):
            scores.setdefault(pair, []).append(row["score"])
    cells = {}
    for pair, own in scores.items():
        trials = f"{len(own)} trial{'s' * (len(own) > 1)}"
        cells[pair] = (min(own), f"best {min(own):.4f}, mean {np.mean(own):.4f}, {trials}")
    posteriors, priors = families or pair_families(rows)
    return _map_figure(("posterior", posteriors), ("prior", priors), cells, limits or score_limits(*scores.values()))


def surface_figure(found: Importance) -> Figure:
    """The forest's mean prediction for every combination of the two axes of `found.surface`, averaged over all else."""
    assert found.surface is not None  # the caller asks only if there is one
    first, second, values = found.surface
    down, across = found.axes[first], found.axes[second]
    sides: list[Side] = [(words(axis.name), axis.choices) for axis in (down, across)]
    offered = {(a, b) for a in range(len(down.choices)) for b in range(len(across.choices))}
    if (down.name, across.name) == ("posterior", "prior"):
        offered = set(found.joint.cells) if found.joint is not None else offered
        offered = {(a, b) for a, b in offered if not _infinite(down.choices[a], across.choices[b])}
        sides = [(name, _in_order(set(map(str, choices)))) for name, choices in sides]
    cells = {
        (down.choices[a], across.choices[b]): (float(values[a, b]), f"{values[a, b]:.4f}, averaged over all else")
        for a, b in sorted(offered)
    }
    return _map_figure(sides[0], sides[1], cells, score_limits([value for value, _ in cells.values()]))


def _map_figure(
    down: Side, across: Side, cells: Mapping[tuple[Any, Any], tuple[float, str]], limits: tuple[float, float]
) -> Figure:
    """A table of coloured numbers, bright is low; cells are (number, tooltip)."""
    low, high = limits
    colours = matplotlib.colormaps["viridis_r"]
    is_pair = (down[0], across[0]) == ("posterior", "prior")
    with panel(0.85 + 0.31 * len(down[1])) as (figure, axes):
        for y, q in enumerate(down[1]):
            for x, p in enumerate(across[1]):
                box = Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, lw=0)
                if (q, p) in cells:
                    value, about = cells[q, p]
                    share = float(np.clip((value - low) / max(high - low, 1e-12), 0, 1))
                    box.set_facecolor(colours(share))
                    ink = "#111111" if share < 0.45 else "#ffffff"
                    axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink)
                elif is_pair and _infinite(q, p):
                    box.set(facecolor="none", hatch="//////", edgecolor=COLOURS["rule"])
                    about = "the divergence is infinite"
                else:
                    box.set_facecolor(COLOURS["wash"])
                    about = "not tried"
                tip(box, f"{down[0]} {words(q)}, {across[0]} {words(p)}: {about}")
                axes.add_patch(box)
        axes.set(xlim=(-0.5, len(across[1]) - 0.5), ylim=(len(down[1]) - 0.5, -0.5))
        names = [words(choice) for choice in across[1]]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="left", rotation_mode="anchor")
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(down[1])), [words(choice) for choice in down[1]])
        axes.tick_params(length=0, labelcolor=COLOURS["ink"], labelsize=7.5)
        axes.set_ylabel(down[0])
        axes.set_xlabel(across[0], labelpad=3)
        axes.xaxis.set_label_position("top")
        axes.spines[:].set_visible(False)
    return figure


def pair_families(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Posterior and prior families that occur in trials: in the project's order, then unknown ones."""
    pairs = {pair for row in rows if (pair := pair_of(row))}
    return _in_order({q for q, _ in pairs}), _in_order({p for _, p in pairs})


def _in_order(names: set[str]) -> list[str]:
    return [name for name in TAILS if name in names] + sorted(names - set(TAILS))


def _infinite(posterior: Any, prior: Any) -> bool:
    return posterior in TAILS and prior in TAILS and finiteness(posterior, prior) == "infinite"


def score_limits(*scores: Sequence[float]) -> tuple[float, float]:
    """Colour limits: from the best score to one that a few bad ones do not stretch."""
    found = np.array([score for own in scores for score in own if math.isfinite(score)])
    if not len(found):
        return 0.0, 1.0
    return float(found.min()), float(max(np.quantile(found, 0.8), found.min() + 1e-9))

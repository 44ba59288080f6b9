r"""Figures of a study: data in, matplotlib Figure out. No global state, nothing is written or read.

Scores are bits per dimension and lower is better everywhere; gains are what was saved, so higher is better. Colours have
one meaning: `first` is the winner or the thing itself, `second` the baseline that it is compared with.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from autovae.finiteness import TAILS, finiteness
from autovae.report.importance import Importance
from autovae.report.pictures import sample_grid
from autovae.report.record import belief_of, pair_of
from autovae.report.theme import COLOURS, SERIES, new_figure, save_figure, style, tip

__all__ = [
    "curve_figure", "gain_figure", "history_figure", "importance_figure", "learning_figure", "pair_figure", "pareto_figure",
    "sample_grid", "save_figure", "surface_figure",
]  # fmt: skip

Array = NDArray[np.float64]
MOST_TIPS = 1500  # dots that speak when pointed at; more would make the page heavy


def gain_figure(gains: Mapping[str, tuple[Sequence[float], Mapping[str, float]]]) -> Figure:
    """Gain over the baseline for each row (its name -> differences per seed, interval with mean, low, high)."""
    with style():
        figure = new_figure(0.75 + 0.5 * len(gains))
        axes: Axes = figure.subplots()
        for place, (name, (differences, interval)) in enumerate(gains.items()):
            dots = axes.plot(
                differences,
                np.full(len(differences), place + 0.22),
                "o",
                ms=3.2,
                mew=0,
                color=COLOURS["muted"],
                alpha=0.6,
            )[0]
            tip(dots, f"{name}: a dot a seed, {len(differences)} seeds")
            mean, low, high = (float(interval[key]) for key in ("mean", "low", "high"))
            if all(map(math.isfinite, (mean, low, high))):
                bar = axes.plot(
                    [low, high], [place - 0.04] * 2, color=COLOURS["first"], lw=2.5, solid_capstyle="round"
                )[0]
                tip(bar, f"{name}: {mean:.4f}, interval {low:.4f} to {high:.4f}")
                axes.plot(mean, place - 0.04, "o", ms=6.5, mew=0, color=COLOURS["first"])
        axes.axvline(0, color=COLOURS["second"], lw=1.2)
        axes.set_yticks(range(len(gains)), list(gains))
        axes.set_ylim(len(gains) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("bits per dimension saved", loc="left")
    return figure


def importance_figure(result: Importance, limit: int = 12) -> Figure:
    """Bars of main effects and interactions with their intervals, the largest first."""
    values = result.values
    size = len(result.axes)
    bars = [(a, b) for a in range(size) for b in range(a + 1)]
    main = sorted((bar for bar in bars if bar[0] == bar[1]), key=lambda bar: -values[bar])
    both = sorted((bar for bar in bars if bar[0] != bar[1]), key=lambda bar: -values[bar])
    chosen = main[:limit] + both[: max(3, limit - len(main))]
    with style():
        figure = new_figure(0.6 + 0.27 * len(chosen))
        axes: Axes = figure.subplots()
        for place, (a, b) in enumerate(chosen):
            value, low, high = values[a, b], result.low[a, b], result.high[a, b]
            colour = COLOURS["first"] if a == b else COLOURS["fourth"]
            bar = axes.barh(place, value, 0.62, color=colour, alpha=0.85)[0]
            about = f"{_axis_words(result, a, b)}: {100 * value:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"
            tip(bar, f"{about}, {result.trials} trials")
            if math.isfinite(low) and math.isfinite(high):
                axes.plot([low, high], [place, place], color=COLOURS["ink"], lw=1)
            end = max(value, high if math.isfinite(high) else 0)
            axes.annotate(
                f"{100 * value:.0f} %", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(range(len(chosen)), [_axis_words(result, a, b) for a, b in chosen])
        axes.set_ylim(len(chosen) - 0.4, -0.6)
        axes.set_xlim(0, min(1.12, 1.18 * max(0.1, np.nanmax([*values.ravel(), *result.high.ravel()]))))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("share of the score's variance", loc="left")
    return figure


def _axis_words(result: Importance, a: int, b: int) -> str:
    name = result.axes[a].name.replace("_", " ")
    words = name if a == b else f"{result.axes[b].name.replace('_', ' ')} × {name}"
    return "\n".join(textwrap.wrap(words, 26))


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
        pair: (min(found), f"best {min(found):.4f}, mean {np.mean(found):.4f}, {_count(len(found), 'trial')}")
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
                tip(box, f"{down[0]} {_text(q)}, {across[0]} {_text(p)}: {about}")
                axes.add_patch(box)
        axes.set_xlim(-0.5, len(across[1]) - 0.5)
        axes.set_ylim(len(down[1]) - 0.5, -0.5)
        names = [_text(choice) for choice in across[1]]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="left", rotation_mode="anchor")
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(down[1])), [_text(choice) for choice in down[1]])
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


def history_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Score of every trial in the order they were asked, the best so far, and the failed ones."""
    complete = [row for row in rows if row["state"] == "COMPLETE" and math.isfinite(row["score"])]
    failed = [row for row in rows if row["state"] == "FAIL"]
    scores = np.array([row["score"] for row in complete])
    with style():
        figure = new_figure(2.5)
        axes: Axes = figure.subplots()
        top = _ceiling(scores)
        groups = list(dict.fromkeys(str(row.get("likelihood", "")) for row in complete))
        for place, group in enumerate(groups):
            for number, row in enumerate(row for row in complete if str(row.get("likelihood", "")) == group):
                inside, label = row["score"] <= top, group.replace("_", " ") if number == 0 else None
                dot = axes.plot(row["number"], min(row["score"], top), "o" if inside else "^", ms=4, mew=0, alpha=0.8,
                                color=SERIES[place % len(SERIES)], label=label)[0]  # fmt: skip
                if len(complete) <= MOST_TIPS:
                    tip(dot, f"trial {row['number']}: {row['score']:.4f}, {belief_of(row)}")
        if complete:
            numbers = [row["number"] for row in complete]
            axes.step(numbers, np.minimum.accumulate(scores), where="post", color=COLOURS["ink"], lw=1.2, label="best")
            span = top - float(scores.min())
            axes.set_ylim(float(scores.min()) - 0.06 * span, top + 0.1 * span)
        for number, row in enumerate(failed):
            cross = axes.plot(row["number"], 0.02, "x", ms=4, color=COLOURS["second"], clip_on=False,
                              transform=axes.get_xaxis_transform(), label="failed" if number == 0 else None)[0]  # fmt: skip
            tip(cross, f"trial {row['number']} failed: {str(row['reason'])[:200]}")
        axes.set_xlabel("trial")
        axes.set_ylabel("bits per dimension")
        axes.grid(axis="y")
        if complete or failed:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handletextpad=0.3)
    return figure


def curve_figure(result: Importance, place: int, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Scores of trials along one axis, and the forest's mean prediction there with its spread over trees."""
    axis = result.axes[place]
    assert result.decomposition is not None  # an axis comes from a decomposition
    at, predictions = result.decomposition.curves[place]
    mean, spread = predictions.mean(0), predictions.std(0)
    top = _ceiling(np.array([row["score"] for row in rows]))
    if np.median(mean) > top:  # a few bad trials count for most means: then those are what there is to see
        top = float(mean.max() + 0.1 * np.ptp(mean) + 1e-6)
    with style():
        figure = new_figure(2.4)
        axes: Axes = figure.subplots()
        values = [point.get(axis.name) for point in result.points]
        if axis.categorical:
            spots = {choice: number for number, choice in enumerate(axis.choices)}
            generator = np.random.default_rng(0)
            shift = 0.22 * generator.uniform(-1, 1, len(rows))
            across = np.array([spots.get(value, math.nan) for value in values], float) + shift
            for number, level in enumerate(mean):
                ends, look = ([-0.36, 0.36], "-") if level <= top else ([0.0], "^")
                bar = axes.plot(
                    [number + end for end in ends], [min(level, top)] * len(ends), look, color=COLOURS["first"], lw=2.5
                )[0]
                tip(bar, f"{axis.choices[number]}: mean {level:.4f}, spread between trees {spread[number]:.4f}")
            axes.set_xticks(range(len(at)), [_text(choice) for choice in axis.choices])
            if sum(len(_text(choice)) for choice in axis.choices) > 34:
                for label in axes.get_xticklabels():
                    label.set(rotation=35, ha="right", rotation_mode="anchor")
            axes.tick_params(axis="x", length=0, labelcolor=COLOURS["ink"], labelsize=7.5)
        else:
            where = np.exp(at) if axis.log else at
            axes.fill_between(where, mean - spread, mean + spread, color=COLOURS["first"], alpha=0.2, lw=0)
            axes.plot(where, mean, color=COLOURS["first"], lw=2)
            across = np.array([value if isinstance(value, (int, float)) else math.nan for value in values], float)
            if axis.log:
                axes.set_xscale("log")
        for spot, row in zip(across, rows, strict=True):
            if math.isfinite(spot):
                inside = row["score"] <= top
                dot = axes.plot(spot, min(row["score"], top), "o" if inside else "^", ms=3, mew=0, alpha=0.55,
                                color=COLOURS["muted"])[0]  # fmt: skip
                if len(rows) <= MOST_TIPS:
                    tip(dot, f"trial {row['number']}: {row['score']:.4f}, {belief_of(row)}")
        axes.set_ylabel("bits per dimension")
        axes.grid(axis="y")
    return figure


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _ceiling(scores: Array) -> float:
    """Where a score axis ends, so that a few bad trials do not flatten the good ones."""
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return 1.0
    high = float(np.quantile(scores, 0.9))
    return max(high + 0.35 * (high - float(scores.min())), float(scores.min()) + 1e-6)


def learning_figure(
    rows: Sequence[Mapping[str, Any]], losses: Mapping[int, Sequence[float]], winner: Mapping[str, Any]
) -> Figure:
    """Training loss by epoch: all trials thin, the winner's pair and the matched normal in their colours."""
    with style():
        figure = new_figure(2.5)
        axes: Axes = figure.subplots()
        wanted = (winner.get("posterior"), winner.get("prior"))
        ends, named = [], set()
        for row in sorted(rows, key=lambda row: pair_of(row) in (wanted, ("normal", "normal")))[-400:]:
            values = [
                value if value is not None and math.isfinite(value) else math.nan for value in losses[row["number"]]
            ]
            pair = pair_of(row)
            kind = "winner" if pair == wanted else "matched normal" if pair == ("normal", "normal") else "others"
            colour, width, alpha = {
                "winner": (COLOURS["first"], 1.6, 0.9),
                "matched normal": (COLOURS["second"], 1.6, 0.9),
                "others": (COLOURS["muted"], 0.7, 0.45),
            }[kind]
            label = None if kind in named else kind
            line = axes.plot(range(1, len(values) + 1), values, color=colour, lw=width, alpha=alpha, label=label)[0]
            tip(line, f"trial {row['number']}: {belief_of(row)}, last loss {values[-1]:.3f} nats")
            named.add(kind)
            ends += values[max(0, len(values) // 5) :]
        finite = np.array([value for value in ends if math.isfinite(value)])
        if len(finite):
            low, high = float(finite.min()), float(np.quantile(finite, 0.95))
            axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low) + 1e-9)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss, nats")
        axes.grid(axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    return figure


def pareto_figure(rows: Sequence[Mapping[str, Any]], name: str, words: str) -> Figure:
    """Score against a second measure, lower is better in both; the line joins trials that no other beats in both."""
    points = sorted(
        ((row["score"], row[name], row) for row in rows if math.isfinite(row[name])), key=lambda point: point[:2]
    )
    with style():
        figure = new_figure(2.5)
        axes: Axes = figure.subplots()
        front: list[tuple[float, float]] = []
        for score, other, row in points:
            best = not front or other < front[-1][1]
            if best:
                front.append((score, other))
            colour = COLOURS["first" if best else "muted"]
            dot = axes.plot(score, other, "o", ms=5 if best else 3.5, mew=0, alpha=0.8, color=colour)[0]
            tip(dot, f"trial {row['number']}: {score:.4f} bits/dim, {words} {other:.4f}, {belief_of(row)}")
        axes.step(*zip(*front, strict=True), where="post", color=COLOURS["first"], lw=1.2)
        axes.set_xlabel("bits per dimension")
        axes.set_ylabel(words)
        axes.grid()
    return figure


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

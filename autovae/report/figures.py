r"""Figures of a study: data in, matplotlib Figure out. No global state, nothing is written or read.

Scores are bits per dimension and lower is better everywhere; gains are what was saved, so higher is better. Colours have
one meaning: `first` is the winner or the thing itself, `second` the baseline that it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from autovae.finiteness import finiteness
from autovae.report.importance import Importance
from autovae.report.record import belief_of, pair_of
from autovae.report.theme import COLOURS, new_figure, save_figure, style, tip

__all__ = ["gain_figure", "history_figure", "importance_figure", "pair_figure", "sample_grid", "save_figure"]

SERIES = [COLOURS[name] for name in ("first", "second", "third", "fourth", "fifth")]
Array = NDArray[np.float64]


def gain_figure(gains: Mapping[str, tuple[Sequence[float], Mapping[str, float]]]) -> Figure:
    """Gain over the baseline for each row (its name -> differences per seed, interval with mean, low, high)."""
    with style():
        figure = new_figure(0.75 + 0.5 * len(gains))
        axes: Axes = figure.subplots()
        for place, (name, (differences, interval)) in enumerate(gains.items()):
            jitter = 0.16 * np.linspace(-1, 1, max(2, len(differences)))[: len(differences)]
            dots = axes.plot(differences, place + jitter, "o", ms=3, mew=0, color=COLOURS["muted"], alpha=0.7)[0]
            tip(dots, f"{name}: a dot a seed, {len(differences)} seeds")
            mean, low, high = (float(interval[key]) for key in ("mean", "low", "high"))
            if all(map(math.isfinite, (mean, low, high))):
                bar = axes.plot([low, high], [place, place], color=COLOURS["first"], lw=2.5, solid_capstyle="round")[0]
                tip(bar, f"{name}: {mean:.4f}, interval {low:.4f} to {high:.4f}")
                axes.plot(mean, place, "o", ms=6.5, mew=0, color=COLOURS["first"])
        axes.axvline(0, color=COLOURS["second"], lw=1.2)
        axes.set_yticks(range(len(gains)), list(gains))
        axes.set_ylim(len(gains) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("bits per dimension saved against the baseline")
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
            axes.text(end + 0.012, place, f"{100 * value:.0f} %", va="center", fontsize=8)
        axes.set_yticks(range(len(chosen)), [_axis_words(result, a, b) for a, b in chosen])
        axes.set_ylim(len(chosen) - 0.4, -0.6)
        axes.set_xlim(0, min(1.12, 1.18 * max(0.1, np.nanmax([*values.ravel(), *result.high.ravel()]))))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("share of the score's variance (fANOVA), with 95 % interval")
    return figure


def _axis_words(result: Importance, a: int, b: int) -> str:
    name = result.axes[a].name.replace("_", " ")
    return name if a == b else f"{result.axes[b].name.replace('_', ' ')} × {name}"


def pair_figure(
    rows: Sequence[Mapping[str, Any]],
    families: tuple[Sequence[str], Sequence[str]] | None = None,
    limits: tuple[float, float] | None = None,
    statistic: str = "best",
) -> Figure:
    """Score of every posterior x prior pair: the best (or mean) of its trials; infinite pairs are hatched."""
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        pair = pair_of(row)
        if pair and math.isfinite(row["score"]):
            scores.setdefault(pair, []).append(row["score"])
    posteriors, priors = families or pair_families(rows)
    value = {pair: min(found) if statistic == "best" else float(np.mean(found)) for pair, found in scores.items()}
    low, high = limits or score_limits(value.values())
    colours = matplotlib.colormaps["viridis_r"]
    with style():
        figure = new_figure(0.85 + 0.33 * len(posteriors))
        axes: Axes = figure.subplots()
        for down, q in enumerate(posteriors):
            for across, p in enumerate(priors):
                box = Rectangle((across - 0.47, down - 0.47), 0.94, 0.94, lw=0)
                infinite = finiteness(q, p) == "infinite"
                found = scores.get((q, p))
                if found:
                    share = float(np.clip((value[q, p] - low) / max(high - low, 1e-12), 0, 1))
                    box.set_facecolor(colours(share))
                    light = share < 0.45
                    axes.text(across, down, f"{value[q, p]:.2f}", ha="center", va="center", fontsize=7.5,
                              color="#111111" if light else "#ffffff")  # fmt: skip
                    about = f"best {min(found):.4f}, mean {np.mean(found):.4f}, {_count(len(found), 'trial')}"
                elif infinite:
                    box.set(facecolor="none", hatch="//////", edgecolor=COLOURS["rule"])
                    about = "the divergence is infinite"
                else:
                    box.set_facecolor(COLOURS["wash"])
                    about = "not tried"
                tip(box, f"posterior {q}, prior {p}: {about}")
                axes.add_patch(box)
        axes.set_xlim(-0.5, len(priors) - 0.5)
        axes.set_ylim(len(posteriors) - 0.5, -0.5)
        axes.set_xticks(range(len(priors)), priors, rotation=40, ha="left", rotation_mode="anchor")
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(posteriors)), posteriors)
        axes.tick_params(length=0, labelcolor=COLOURS["ink"], labelsize=7.5)
        axes.set_ylabel("posterior")
        axes.set_xlabel("prior", labelpad=3)
        axes.xaxis.set_label_position("top")
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def pair_families(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Posterior and prior families that occur in trials, in the order in which the project lists families."""
    from autovae.finiteness import TAILS

    pairs = {pair for row in rows if (pair := pair_of(row))}
    return tuple([name for name in TAILS if name in {pair[side] for pair in pairs}] for side in (0, 1))  # type: ignore[return-value]


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
        top = float(np.quantile(scores, 0.9) + 0.35 * (np.quantile(scores, 0.9) - scores.min())) if len(scores) else 1.0
        top = max(top, float(scores.min()) + 1e-6) if len(scores) else top
        groups = list(dict.fromkeys(str(row.get("likelihood", "")) for row in complete))
        for place, group in enumerate(groups):
            for number, row in enumerate(row for row in complete if str(row.get("likelihood", "")) == group):
                inside = row["score"] <= top
                dot = axes.plot(row["number"], min(row["score"], top), "o" if inside else "^", ms=4, mew=0, alpha=0.8,
                                color=SERIES[place % len(SERIES)], label=group if number == 0 else None)[0]  # fmt: skip
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


def sample_grid(x: NDArray[Any], columns: int = 8) -> Figure:
    """Points (n, *shape) side by side: pictures of (H, W), (1, H, W), (3, H, W) or (H, W, 3); other shapes as lines."""
    x = np.asarray(x, float)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"got an array of shape {x.shape}, expected (n, *shape) with at least one point")
    columns = max(1, min(columns, len(x)))
    rows = math.ceil(len(x) / columns)
    picture = mosaic(x, columns)
    with style():
        if picture is not None:
            width = 6.0
            figure = Figure(figsize=(width, width * picture.shape[0] / picture.shape[1]))
            axes = figure.add_axes((0, 0, 1, 1))
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            return figure
        flat = x.reshape(len(x), -1)
        figure = new_figure(0.9 * rows, 1.05 * columns)
        low, high = (float(value) for value in np.nanquantile(flat, [0, 1]))
        margin = 0.05 * (high - low) or 1.0
        for place, values in enumerate(flat):
            axes = figure.add_subplot(rows, columns, place + 1)
            axes.plot(values, lw=1, marker="o" if len(values) < 12 else "", ms=2.5, color=COLOURS["first"])
            axes.set_ylim(low - margin, high + margin)
            axes.set_xticks([])
            axes.tick_params(labelsize=6, length=2, labelleft=place % columns == 0)
    return figure


def mosaic(x: NDArray[Any], columns: int, gap: int = 1) -> Array | None:
    """One picture (H, W) or (H, W, 3) in [0, 1] of points that are pictures; None for other shapes.

    Values outside [0, 1], as of standardised data, are stretched from the smallest to the largest.
    """
    x = np.asarray(x, float)
    if x.ndim == 4 and x.shape[1] in (1, 3):
        x = np.moveaxis(x, 1, -1)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or min(x.shape[1:3]) < 2:
        return None
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    if low < -1e-6 or high > 1 + 1e-6:
        x = (x - low) / max(high - low, 1e-12)
    count, height, width, channels = x.shape
    rows = math.ceil(count / columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for place in range(count):
        down, across = divmod(place, columns)
        top, left = down * (height + gap), across * (width + gap)
        sheet[top : top + height, left : left + width] = np.clip(x[place], 0, 1)
    return sheet[..., 0] if channels == 1 else sheet


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""Which belief mattered, how sure that is, and which pair under which likelihood."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from autovae.report import figures as draw
from autovae.report.content import Content
from autovae.report.importance import Importance, importance_rows
from autovae.report.page import Column, esc, section, table
from autovae.report.record import pair_of, pairing_text

__all__ = ["mattered_part"]


def mattered_part(content: Content) -> str:
    result = content.importance
    if result.decomposition is None:
        return section("mattered", "What mattered", content.warning(result.reason), _pairs(content))
    first = [_bars(content, result), content.attempt("Interaction map", partial(_surface, content, result), "")]
    grids = [f'<div class="figures">{"".join(charts)}</div>' for charts in (first, _curves(content, result)) if charts]
    return section("mattered", "What mattered", *grids, _numbers(result), _pairs(content))


def _bars(content: Content, result: Importance) -> str:
    r2 = result.decomposition.r2 if result.decomposition else math.nan
    trust = "could not be checked on unseen trials"
    if math.isfinite(r2):
        trust = f"predicts trials it has not seen with R² = {r2:.2f}{'' if r2 >= 0.3 else ', which is little: read with care'}"
    holes = ""
    if result.holes:
        holes = f" {result.holes} pairs with infinite divergence or outside the space do not count."
    spoken = "; ".join(
        f"{row['axis']}{' and ' + row['with_axis'] + ' together' if row['with_axis'] else ''} {100 * row['importance']:.0f} %"
        for row in importance_rows(result)[:8]
    )
    return content.chart(
        draw.importance_figure(result),
        "importance",
        "Importance of beliefs",
        f"Share of the score's variance by axis: {spoken}",
        f"fANOVA over {result.trials} complete trials: blue, what an axis explains alone; violet, what two explain only "
        f"together. Lines are 95 % intervals. The forest behind it {trust}.{holes}",
    )


def _surface(content: Content, result: Importance) -> str:
    if result.surface is None:
        return ""
    first, second, values = result.surface
    names = [result.axes[place].name.replace("_", " ") for place in (first, second)]
    share = 100 * result.values[first, second]
    return content.chart(
        draw.surface_figure(result),
        "interaction",
        f"{names[0].capitalize()} × {names[1]}, all else averaged out",
        f"The forest's mean prediction for every {names[0]} and {names[1]}, from {values.min():.3f} to {values.max():.3f}",
        f"What the forest predicts on average over everything else, in bits per dimension, bright is better. What the two "
        f"explain only together is {share:.0f} % of the variance. Cells without trials are the forest's guess.",
    )


def _curves(content: Content, result: Importance) -> list[str]:
    order = sorted(range(len(result.axes)), key=lambda place: -result.values[place, place])[:6]
    charts = []
    for place in order:
        axis = result.axes[place]
        figure = content.attempt(
            f"Curve of {axis.name}",
            partial(draw.curve_figure, result, place, content.record.complete),
            None,
        )
        if figure is None:
            continue
        counts = ", ".join(f"{_words(value)} ×{count}" for value, count in list(result.counts[place].items())[:20])
        tried = f" Trials: {esc(counts)}." if axis.categorical else ""
        name = axis.name.replace("_", " ")
        charts.append(
            content.chart(
                figure,
                f"axis_{axis.name.replace(' ', '_')}",
                f"Score by {name}",
                f"Scores of the trials by {name}, and the forest's mean prediction with all else averaged out",
                "Dots are trials, lower is better. Bars: the forest's mean with all else averaged out. Triangles lie above "
                f"the picture.{tried}",
            )
        )
    return charts


def _words(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _numbers(result: Importance) -> str:
    columns = [
        Column("axis", "axis"), Column("with", "with_axis"), Column("fANOVA", "importance", True, 3),
        Column("from", "low", True, 3), Column("to", "high", True, 3), Column("Optuna's fANOVA", "optuna", True, 3),
        Column("PED-ANOVA", "ped_anova", True, 3), Column("values", "values", True), Column("trials", "trials", True),
        *([Column("among", "branch")] if result.branches else []),
    ]  # fmt: skip
    return (
        "<details><summary>All numbers, and two other ways to ask</summary>"
        "<p>fANOVA asks how much of <em>all</em> variation of the score is due to an axis, bad trials included; every belief "
        "that can be searched counts alike. Optuna's own evaluator has the same forest, but averages over the cube of the "
        "one-hot columns, where most points are no belief at all. PED-ANOVA asks another question: how differently do the "
        "<em>best tenth</em> of the trials choose this axis? An axis that only spoils scores is large in the first and small "
        "in the last.</p>"
        + table(columns, importance_rows(result), "Importance by axis and pair of axes")
        + "</details>"
    )


def _pairs(content: Content) -> str:
    rows = [row for row in content.record.complete if pair_of(row)]
    if not rows:
        return "<p class='note'>No trial with a score has one pair for all latents, so there is no map of pairs.</p>"
    families, limits = draw.pair_families(rows), draw.score_limits([row["score"] for row in rows])
    likelihoods: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        likelihoods.setdefault(str(row.get("likelihood", "")), []).append(row)
    charts = []
    for place, (name, own) in enumerate(
        sorted(likelihoods.items(), key=lambda item: min(row["score"] for row in item[1]))
    ):
        top, words = min(own, key=lambda row: row["score"]), name.replace("_", " ") or "all likelihoods"
        charts.append(
            content.chart(
                draw.pair_figure(own, families, limits),
                f"pairs_{place + 1}_{name or 'all'}",
                f"{words[:1].upper()}{words[1:]} likelihood",
                f"Best score of every pair of posterior and prior under the {words} likelihood; the best is "
                f"{pairing_text(top)} with {top['score']:.4f} bits per dimension, of {len(own)} trials",
                f"{len(own)} trials.",
            )
        )
    return (
        "<h3>Which pair, under which likelihood</h3><p class='note'>Best of each pair's trials in bits per dimension; bright "
        "is better, on one scale for all maps. Hatched: the divergence is infinite. Plain grey: not tried.</p>"
        f'<div class="figures">{"".join(charts)}</div>'
    )

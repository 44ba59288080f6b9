"""How tight the bounds of winner and baseline are: against K and against alpha."""

from __future__ import annotations

from autovae.report.content import Content
from autovae.report.curve_figures import against_alpha, against_k
from autovae.report.page import section

__all__ = ["bounds_part"]


def bounds_part(content: Content) -> str:
    rows = content.record.curves
    if not rows:
        if content.record.finals:
            content.missing.append(
                f"Bounds against K and alpha: {content.record.title} has no curves.csv; autovae restore makes it."
            )
        return ""
    points = int(rows[0]["points"])
    largest = max(row["K"] for row in rows)
    shared = (
        f"Mean over {points} validation points; log p(x) is what {largest:g} samples together give. All curves share their "
        "samples. Not comparable with a score: a bound of one model against that model's own likelihood."
    )
    charts = [
        content.chart(
            against_k(rows, (0.0, 1.0)),
            "bound_k",
            "The bound against K",
            f"How far the bound is below log p(x) with 1 to {largest:g} samples, at alpha 0 and 1",
            f"alpha = 0 is the importance-weighted bound, alpha = 1 the ELBO, which K does not change. {shared}",
        ),
        content.chart(
            against_alpha(rows, (5.0, 50.0)),
            "bound_alpha",
            "The bound against alpha",
            "How far the Renyi bound is from log p(x) by alpha, with 5 and 50 samples",
            f"For alpha below 0 it is no lower bound. {shared}",
        ),
    ]
    return section("bounds", "How tight the bounds are", f'<div class="figures">{"".join(charts)}</div>')

"""How the search went: what could be chosen, scores in order, learning curves, the front of several objectives."""

from __future__ import annotations

from typing import Any

from autovae.report import figures as draw
from autovae.report.content import Content
from autovae.report.losses import read_losses
from autovae.report.page import Column, esc, section, table
from autovae.report.record import Record

__all__ = ["search_part"]


def search_part(content: Content) -> str:
    record = content.record
    if not record.trials:
        return section("search", "The search", content.warning("No trial is finished."), _space(record))
    charts = [
        content.chart(
            draw.history_figure(record.trials),
            "history",
            "Scores in the order of trials",
            f"Scores of {len(record.complete)} trials in the order in which they were asked, and the best so far",
            "Triangles lie above the picture. The line is the best so far: a single fit, partly lucky.",
        ),
        content.attempt("Learning curves", lambda: _curves(content), ""),
        content.attempt("Front of objectives", lambda: _front(content), ""),
    ]
    return section("search", "The search", f'<div class="figures">{"".join(charts)}</div>', _space(record))


def _curves(content: Content) -> str:
    record = content.record
    if not record.complete:
        return ""
    losses = read_losses(record.folder)
    if not losses:
        raise ValueError(
            "trials.journal, which keeps the losses by epoch, is not among the results; autovae fidelity --beliefs leaves them "
            "in losses.csv."
        )
    spec = (record.summary or {}).get("winner") or {}
    likelihood = spec.get("likelihood") or min(record.complete, key=lambda row: row["score"])["likelihood"]
    rows = [
        row for row in record.trials if row.get("likelihood") == likelihood and len(losses.get(row["number"], ())) > 1
    ]
    if not rows:
        return ""
    words = str(likelihood).replace("_", " ")
    return content.chart(
        draw.learning_figure(rows, losses, spec),
        "learning",
        f"Learning curves, {words} likelihood",
        f"Training loss by epoch of {len(rows)} trials with the {words} likelihood",
        "Training loss in nats. Losses compare only within one likelihood and order, which is why trials are not judged by "
        "them. Blue: the winner's pair; orange: the matched normal.",
    )


def _front(content: Content) -> str:
    """A second measure beside the score, where trials have one."""
    for name, words in (("kid", "KID"), ("fid", "FID"), ("parameters", "the number of weights")):
        rows = [row for row in content.record.complete if isinstance(row.get(name), float)]
        if len(rows) > 1:
            return content.chart(
                draw.pareto_figure(rows, name, words), "pareto", f"Bits per dimension against {words}",
                f"{len(rows)} trials by bits per dimension and {words}; the line joins those that no other beats in both",
                "Lower is better in both; the line joins trials that no other beats in both.",
            )  # fmt: skip
    return ""


def _space(record: Record) -> str:
    study, space = record.study, record.study.get("space", {})
    rows: list[dict[str, Any]] = []
    for name, parameter in (space.get("parameters") or {}).items():
        if "posteriors" in parameter:
            what = f"posterior {', '.join(parameter['posteriors'])}; prior {', '.join(parameter['priors'])}; finite pairs only"
        elif "choices" in parameter:
            what = ", ".join(map(str, parameter["choices"]))
        else:
            what = f"{parameter.get('low')} to {parameter.get('high')}{', logarithmic' if parameter.get('log') else ''}"
        rows.append({"what": name.replace("_", " "), "value": what.replace("_", " ")})
    fixed = {**study.get("training", {}), **space.get("fixed", {})}
    about = study.get("data", {})
    batch, share = study.get("batch", "?"), 100 * float(study.get("random_share", 0))
    rows += [
        {
            "what": "same for all",
            "value": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in fixed.items()),
        },
        {
            "what": "sampler",
            "value": f"{study.get('sampler', '?')}, {share:.0f} % of trials random, {batch} trained together",
        },
        {
            "what": "data",
            "value": (record.summary or {}).get("data") or f"{about.get('name')}, {about.get('levels')} levels",
        },
        {
            "what": "data digest",
            "value": f"<code>{esc(about.get('digest', '?'))}</code> (SHA-256 of contents and split)",
        },
    ]
    for row in rows[:-1]:
        row["value"] = esc(row["value"])
    purpose = str(space.get("purpose", ""))
    title = f"What was searched: {purpose[:1].lower()}{purpose[1:]}" if purpose else "What was searched"
    return f"<h3>{esc(title)}</h3>" + table(
        [Column("setting", "what"), Column("values", "value", html=True)], rows, "The space, and what was fixed"
    )

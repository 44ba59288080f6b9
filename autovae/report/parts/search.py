"""The search: scores in order, learning curves, the Pareto front of a second objective, the search space."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from autovae.report.content import Content
from autovae.report.figures.search import history_figure, learning_figure, pareto_figure
from autovae.report.losses import read_losses
from autovae.report.page import Column, Table, words
from autovae.report.record import Record

__all__ = ["search_part"]

SECOND = {"kid": "KID", "fid": "FID", "parameters": "the number of weights"}  # objectives next to the score


def search_part(content: Content) -> dict[str, Any]:
    record = content.record
    about = {
        "trials": len(record.trials),
        "scored": len(record.complete),
        "purpose": _purpose(record),
        "space": _space(record),
    }
    if not record.trials:
        return about
    return about | {
        "history": content.drawing(history_figure(record.trials), "history"),
        "learning": content.attempt("Learning curves", lambda: _learning(content), None),
        "front": content.attempt("Pareto front", lambda: _front(content), None),
    }


def _learning(content: Content) -> dict[str, Any] | None:
    record = content.record
    if not record.complete:
        return None
    losses = read_losses(record.folder)
    if not losses:
        raise ValueError(
            "trials.journal, which holds the losses by epoch, is not among the results; autovae fidelity --beliefs writes "
            "them to losses.csv."
        )
    winner = (record.summary or {}).get("winner") or {}
    likelihood = winner.get("likelihood") or min(record.complete, key=lambda row: row["score"])["likelihood"]
    own = [row for row in record.trials if row.get("likelihood") == likelihood]
    rows = [row for row in own if len(losses.get(row["number"], ())) > 1]
    if not rows:
        return None
    figure = learning_figure(rows, losses, winner)
    return {"drawing": content.drawing(figure, "learning"), "trials": len(rows), "likelihood": words(likelihood)}


def _front(content: Content) -> dict[str, Any] | None:
    """A second objective next to the score, if trials have one."""
    for name, title in SECOND.items():
        rows = [row for row in content.record.complete if isinstance(row.get(name), float)]
        if len(rows) > 1:
            figure = pareto_figure(rows, name, title)
            return {"drawing": content.drawing(figure, "pareto"), "trials": len(rows), "second": title}
    return None


def _purpose(record: Record) -> str:
    purpose = str(record.study.get("space", {}).get("purpose", ""))
    return purpose[:1].lower() + purpose[1:]


def _space(record: Record) -> Table:
    study, space, data = record.study, record.study.get("space", {}), record.study.get("data", {})
    values = {name: _range(parameter) for name, parameter in (space.get("parameters") or {}).items()}
    fixed = {**study.get("training", {}), **space.get("fixed", {})}
    share = 100 * float(study.get("random_share", 0))
    values |= {
        "same for all": ", ".join(f"{name} {value}" for name, value in fixed.items()),
        "sampler": f"{study.get('sampler', '?')}, {share:.0f} % of trials random, batches of {study.get('batch', '?')}",
    }
    rows = [{"name": words(name), "value": words(value)} for name, value in values.items()]
    known = (record.summary or {}).get("data") or f"{data.get('name')}, {data.get('levels')} levels"
    rows += [
        {"name": "data", "value": known},
        {
            "name": "data digest",
            "value": Markup("<code>{}</code> (SHA-256 of contents and split)").format(data.get("digest", "?")),
        },
    ]
    return Table([Column("setting", "name"), Column("values", "value")], rows, "The search space, and what was fixed")


def _range(parameter: dict[str, Any]) -> str:
    if "posteriors" in parameter:
        sides = f"posterior {', '.join(parameter['posteriors'])}; prior {', '.join(parameter['priors'])}"
        return f"{sides}; finite pairs only"
    if "choices" in parameter:
        return ", ".join(map(str, parameter["choices"]))
    return f"{parameter.get('low')} to {parameter.get('high')}{', logarithmic' if parameter.get('log') else ''}"

"""A results folder in a page of Markdown: what was found, in the numbers of its own files, and how to make it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from autovae.report.importance import Importance
from autovae.report.parts.fidelity import cards_of, fidelity_rows, labels_of
from autovae.report.record import Record, role_words

__all__ = ["readme"]

MOST = 8  # rows of the importance table


def readme(record: Record, importance: Importance) -> str:
    """README.md of a results folder."""
    summary, study = record.summary or {}, record.study
    states = ", ".join(f"{count} {state.lower()}" for state, count in sorted(record.states.items()))
    repeats = sum(1 for row in record.trials if row.get("duplicate_of"))
    again = f"; {repeats} of them repeat a belief and were not trained" if repeats else ""
    parts = [
        f"# {record.title}",
        str(study.get("purpose", "")),
        f"**{summary['sentence']}**" if summary.get("sentence") else "The finals have not run.",
        f"Data {record.data_name}; {len(record.trials)} trials ({states}{again}). Scores are bits per dimension: lower is "
        "better.",
    ]
    if record.finals:
        parts.append(_finals(record.finals, int(summary.get("samples", 0))))
    if importance.decomposition is not None:
        parts.append(_importance(importance))
    parts += _fidelity(record)
    where = f"`autovae run {study.get('name', record.title)}`"
    parts.append(
        f"Made by {where}; the page with pictures is made from this folder by `autovae report results/{record.title}`."
    )
    return "\n\n".join(parts) + "\n"


def _finals(rows: Sequence[dict[str, Any]], samples: int) -> str:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[str(row.get("rank"))].append(row)
    several = len({row.get("network") or "" for row in rows}) > 1
    belief = "belief; network" if several else "belief"
    lines = [f"| finals | {belief} | seeds | validation | test |", "|---|---|---|---|---|"]
    for rank, group in groups.items():
        cells = [_mean([row.get(part, np.nan) for row in group]) for part in ("validation", "test")]
        belief = str(group[0].get("belief", "")).replace("|", "\\|")  # a bar would end the cell
        if several:
            belief += f"; {group[0]['network']}"
        lines.append(f"| {role_words(rank)} | {belief} | {len(group)} | {cells[0]} | {cells[1]} |")
    twins = " A twin is the matched normal with a finalist's network; the best of these on validation is the baseline."
    return "\n".join(lines) + (
        f"\n\nMean and standard deviation over seeds of the bound with K = {samples}; test is measured once, for the winner "
        f"and what it is compared with.{twins if any(rank.startswith('twin') for rank in groups) else ''}"
    )


def _fidelity(record: Record) -> list[str]:
    """What the models draw beside real data, a table a network, where they were scored."""
    try:
        cards = cards_of(record.folder)
        labels = labels_of(cards)
    except ValueError:
        return []  # the page says what is wrong with them
    found = []
    for label in labels:
        facts = next(card["fidelity"][label].get("facts", {}) for card in cards.values() if label in card["fidelity"])
        lines = ["| model | points from | FID | KID | IS | precision | recall |", "|---|---|---|---|---|---|---|"]
        rows = fidelity_rows(record, cards, label)
        for row in rows:
            who = f"{row['model']}: {row['belief'].split(',')[0]}" if row["model"] else "real data"
            scores = (
                f"{row['fid']:.2f} | {row['kid']:.3f} ± {row['kid_error']:.3f} | {row['inception_score']:.2f} | "
                f"{row['precision']:.3f} | {row['recall']:.3f}"
            ).replace("nan", "-")
            lines.append("| " + who.replace("|", "\\|") + f" | {row['set']} | {scores} |")
        accuracy = facts.get("accuracy")
        right = f", right for {accuracy:.1%} of the test points" if isinstance(accuracy, float) else ""
        counts = ", ".join(dict.fromkeys(f"{row['points']:,}" for row in rows if row["points"]))
        found.append(
            "\n".join(lines)
            + f"\n\nScores on {label}{right}, of {counts} points a set against training points, one seed a "
            f"model: they compare models under this network alone. `autovae fidelity results/{record.title}` makes them."
        )
    return found


def _mean(values: Sequence[Any]) -> str:
    numbers = np.array([value for value in values if isinstance(value, float) and np.isfinite(value)])
    if not len(numbers):
        return "-"
    return f"{numbers.mean():.4f} ± {numbers.std(ddof=1):.4f}" if len(numbers) > 1 else f"{numbers[0]:.4f}"


def _importance(found: Importance) -> str:
    assert found.decomposition is not None
    names, values = [axis.name for axis in found.axes], found.values
    cells = [(a, b) for a in range(len(names)) for b in range(a, len(names))]
    lines = ["| belief | share of the variance | 95 % interval |", "|---|---|---|"]
    for a, b in sorted(cells, key=lambda cell: -values[cell])[:MOST]:
        name = names[a] if a == b else f"{names[a]} x {names[b]}"
        lines.append(f"| {name} | {values[a, b]:.3f} | {found.low[a, b]:.3f} to {found.high[a, b]:.3f} |")
    words = f"fANOVA over {found.trials} trials; the forest's out-of-bag R² is {found.decomposition.r2:.2f}"
    doubt = "" if found.trusted else ": it predicts nothing, so these shares mean nothing"
    others = [f"{words}{doubt}."]
    for name, branch in found.branches.items():
        if branch.decomposition is not None and name in (places := [axis.name for axis in branch.axes]):
            at = places.index(name)
            share, low, high = branch.values[at, at], branch.low[at, at], branch.high[at, at]
            others.append(
                f"Of the {branch.trials} trials that have one, {name} explains {share:.3f} ({low:.3f} to {high:.3f}; "
                f"out-of-bag R² {branch.decomposition.r2:.2f})."
            )
    return "\n".join(lines) + "\n\n" + " ".join(others)

"""What exactly was maximised and judged, what that does not say, and how to do it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autovae.report.content import Content
from autovae.report.page import Column, esc, letters, section, table
from autovae.report.words import Formula, limits, objective_formula, score_formula

__all__ = ["again_part", "computed_part"]


def computed_part(content: Content) -> str:
    record, summary = content.record, content.record.summary or {}
    winner, baseline = summary.get("winner"), summary.get("baseline")
    parts = ["<h3>Training maximised, on average over the training points</h3>"]
    if isinstance(winner, dict):
        parts += [
            _formula(objective_formula(winner)),
            f"<p class='note'>These are the winner's weights; the baseline has {esc(_differences(winner, baseline or {}))}.</p>",
        ]
    else:
        parts.append("<p class='note'>The formula with its weights is that of the winner, and there is none yet.</p>")
    likelihoods = {str(row.get("likelihood")) for row in record.trials}
    lines = limits(record.study, record.summary, likelihoods)
    parts += [
        "<h3>Trials were judged by bits per dimension</h3>",
        _formula(score_formula(record.study, record.summary, _features(content))),
        "<h3>What these numbers do not say</h3>",
        f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in lines)}</ul>",
    ]
    return section("computed", "What was computed", *parts)


def _formula(formula: Formula) -> str:
    label = f'role="math" aria-label="{esc(formula.text)}"'
    return f'<div class="formula" tabindex="0" {label}>{formula.mathml}</div>{letters(formula.letters)}'


def _differences(winner: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    names = [name for name in baseline if name not in ("seed", "data_seed") and baseline[name] != winner.get(name)]
    return ", ".join(f"{name.replace('_', ' ')} {baseline[name]}".replace("_", " ") for name in names) or "the same"


def _features(content: Content) -> int | None:
    for model in content.models.values():
        return math.prod(model.vae.domain.shape)
    return None


def again_part(content: Content) -> str:
    record = content.record
    study, about = record.study, record.study.get("data", {})
    path = about.get("path")
    command = f"autovae run {record.study.get('name', record.name)}" + (f" --dataset {path}" if path else "")
    finals = list(dict.fromkeys(str(row.get("seed")) for row in record.finals))
    rows = [
        {"what": "seed of the study", "value": study.get("seed", "?")},
        {"what": "seeds of the finals", "value": ", ".join(finals) or "–"},
    ]
    card = next(iter(content.cards.values()), None)
    if card:
        origin = card.get("data", {})
        rows += [
            {
                "what": "versions",
                "value": ", ".join(f"{name} {text}" for name, text in card.get("versions", {}).items()),
            },
            {"what": "machine", "value": card.get("machine", "not recorded")},
            {"what": "data from", "value": origin.get("source", "?")},
            {"what": "licence of the data", "value": origin.get("licence", "?")},
            {"what": "split", "value": origin.get("note", "?")},
        ]
    name = f"results/{esc(record.title)}"
    lines = [
        esc(command),
        f"autovae sample {name}/winners/1 -n 64 --to grid.png",
        f"autovae export {name} --trial N --to DIR",
    ]
    seconds = sum(
        row["seconds"]
        for row in record.trials
        if isinstance(row.get("seconds"), float) and row["seconds"] == row["seconds"]
    )
    spent = f" The trials took {seconds:,.0f} seconds together." if seconds else ""
    return section(
        "again",
        "Do it again",
        f"<pre><code>{chr(10).join(lines)}</code></pre>",
        "<p class='note'>Every trial's seed comes from the study's seed and the trial's number, so the same command gives the "
        f"same trials, and resumes where it stopped.{spent} All numbers are in trials.csv, finals.csv, importance.csv and "
        "summary.json beside this page.</p>",
        table([Column("what", "what"), Column("value", "value")], rows, "What it takes to get the same numbers"),
    )

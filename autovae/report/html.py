r"""The report of a study: importance.csv, figures/ and report.html, made from results/<study>/ alone.

    build_report("results/quickstart")      -> results/quickstart/report.html

The page answers, in this order: what was found, which belief mattered and how sure that is, what the samples look like,
what else was tried, how the search went, what exactly was maximised and judged, and how to do it again. A part whose
data are missing says so and why, and the rest is shown. Files are written whole or not at all.

Not here: how numbers are made (`importance`), drawn (`figures`), or worded (`words`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from autovae.files import write_bytes, write_text
from autovae.report import figures as draw
from autovae.report.importance import Importance, importance_of, importance_rows
from autovae.report.page import Column, chart, esc, letters, number, page, picture, png_of, section, table, tiles
from autovae.report.record import Record, belief_of, pair_of, pairing_text, read_record
from autovae.report.theme import save_figure
from autovae.report.words import limits, objective_formula, score_formula

__all__ = ["build_report"]

MOST_ROWS = 1000  # of the leaderboard
SAMPLES, COLUMNS = 64, 8
COLUMNS_OF_CSV = (
    "axis", "with_axis", "importance", "low", "high", "optuna", "ped_anova", "values", "trials", "surrogate_r2", "branch",
)  # fmt: skip


class Report:
    """What is known of one study while its page is made: the record, the importances, figures by name, notes."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.importance: Importance = importance_of(record.complete, record.study.get("space"))
        self.files: dict[str, Figure | bytes] = {}
        self.notes: list[str] = list(record.notes)
        self.cards: dict[str, dict[str, Any]] = {}

    def chart(self, figure: Figure, name: str, title: str, label: str, caption: str = "") -> str:
        self.files[f"{name}.svg"] = figure
        return chart(figure, name, title, label, caption)

    def picture(self, png: bytes, name: str, title: str, label: str, caption: str = "") -> str:
        self.files[f"{name}.png"] = png
        return picture(png, title, label, caption)


def build_report(folder: str | Path) -> Path:
    """Write importance.csv, figures/ and report.html into a results folder; returns the page's path.

    Raises `ValueError` where the folder holds no study.
    """
    report = Report(read_record(folder))
    record = report.record
    samples = samples_part(report)  # first: it reads the cards
    parts = [
        ("verdict", "Result", verdict_part(report)),
        ("mattered", "What mattered", mattered_part(report)),
        ("samples", "Samples", samples),
        ("leaderboard", "Leaderboard", leaderboard_part(report)),
        ("search", "The search", search_part(report)),
        ("objective", "What was computed", objective_part(report)),
        ("again", "Reproduce", again_part(report)),
    ]
    text = page(f"{record.name} – AutoVAE", header_of(report), parts, footer_of(report))
    write_text(record.folder / "importance.csv", importance_csv(report.importance))
    _write_figures(record.folder / "figures", report.files)
    return write_text(record.folder / "report.html", text)


def _write_figures(folder: Path, files: Mapping[str, Figure | bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        if isinstance(content, bytes):
            write_bytes(folder / name, content)
        else:
            save_figure(content, folder / name)
    for old in folder.iterdir():
        if old.suffix in (".svg", ".png") and old.name not in files:
            old.unlink()


def importance_csv(result: Importance) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS_OF_CSV, lineterminator="\n")
    writer.writeheader()
    writer.writerows(importance_rows(result))
    return text.getvalue()


def header_of(report: Report) -> str:
    record = report.record
    purpose = record.study.get("purpose", "")
    return (
        f'<p class="kicker">AutoVAE study · {esc(record.data_name)}</p><h1>{esc(record.name)}</h1>'
        f'<p class="lede">{esc(purpose)}</p>'
    )


def footer_of(report: Report) -> str:
    finished = (report.record.summary or {}).get("finished", "")
    return f"Made by AutoVAE from {esc(report.record.folder.name)}/ alone{f', finished {esc(finished)}' if finished else ''}."


# ------------------------------------------------------------------------------------------------------------- result


def verdict_part(report: Report) -> str:
    record, summary = report.record, report.record.summary or {}
    sentence = summary.get("sentence")
    if not sentence:
        sentence = (
            "No trial has a score, so there is no result."
            if not record.complete
            else "The finals have not run, so no winner is named; scores below are of single fits."
        )
    notes = "".join(f"<li>{esc(note)}</li>" for note in report.notes)
    missing = f'<div class="card warning"><h3>What cannot be shown</h3><ul>{notes}</ul></div>' if notes else ""
    gains = _gains(record)
    chart_html = ""
    if gains:
        chart_html = (
            '<div class="figures">'
            + report.chart(
                draw.gain_figure(gains),
                "gain",
                "Gain over the matched normal",
                "Gain in bits per dimension over the baseline for each finalist, a dot a seed, bars are intervals: "
                + "; ".join(
                    f"{name} {gain['mean']:.4f} [{gain['low']:.4f}, {gain['high']:.4f}]"
                    for name, (_, gain) in gains.items()
                ),
                "A dot is one seed: the baseline's bits less the finalist's, trained with the same seed and data order. Bars "
                "hold the mean with the confidence that is left after picking the best of the finalists (Bonferroni).",
            )
            + "</div>"
        )
    return section(
        "verdict",
        "Result",
        f'<div class="card verdict{" wins" if summary.get("wins") else ""}"><p>{esc(sentence)}</p></div>',
        missing,
        tiles(_key_numbers(report)),
        chart_html,
    )


def _gains(record: Record) -> dict[str, tuple[list[float], dict[str, float]]]:
    """Per finalist on validation, and for the winner on test: differences per seed, interval."""
    from autovae.search.finals import paired_gain

    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for row in record.finals:
        groups.setdefault(str(row.get("rank")), {})[int(row.get("seed") or 0)] = row
    base = groups.pop("baseline", {})
    found: dict[str, tuple[list[float], dict[str, float]]] = {}
    for rank, group in groups.items():
        seeds = [seed for seed in group if seed in base]
        own_baseline = seeds and group[seeds[0]].get("belief") == base[seeds[0]].get("belief")
        for part in ("test", "validation"):
            sides = [np.array([rows[seed].get(part, math.nan) for seed in seeds], float) for rows in (base, group)]
            if own_baseline or len(seeds) < 2 or not np.isfinite(sides[0] - sides[1]).any():
                continue
            gain = paired_gain(sides[0], sides[1], len(groups))
            name = f"{str(group[seeds[0]]['belief']).split(',')[0]}\n#{rank}, {part}"
            found[name] = ([float(d) for d in sides[0] - sides[1]], vars(gain))
    return found


def _key_numbers(report: Report) -> list[tuple[str, str, str]]:
    record, summary = report.record, report.record.summary or {}
    states = record.states
    extra = ", ".join(f"{count} {state.lower()}" for state, count in states.items() if state != "COMPLETE")
    values = [("trials with a score", f"{len(record.complete):,}", extra or "none failed")]
    if record.complete:
        best = min(record.complete, key=lambda row: row["score"])
        values.append(("best in the search", f"{best['score']:.4f}", "bits per dimension, one fit"))
    gain = summary.get("gain_test")
    if isinstance(gain, dict):
        interval = f"{number(gain.get('low'))} to {number(gain.get('high'))} bits/dim"
        values.append(("gain on test", number(gain.get("mean")), interval))
    if report.importance.decomposition is not None:
        main = report.importance.values.diagonal()
        top = int(np.argmax(main))
        name = report.importance.axes[top].name.replace("_", " ")
        values.append(("mattered most", name, f"{100 * main[top]:.0f} % of the variance, alone"))
    return values


# ------------------------------------------------------------------------------------------------------- what mattered


def mattered_part(report: Report) -> str:
    result = report.importance
    if result.decomposition is None:
        return section(
            "mattered", "What mattered", f'<p class="card warning">{esc(result.reason)}</p>', _pairs_html(report)
        )
    r2 = result.decomposition.r2
    counts = "; ".join(
        f"{axis.name.replace('_', ' ')}: " + ", ".join(f"{value} ×{count}" for value, count in list(found.items())[:20])
        for axis, found in zip(result.axes, result.counts, strict=True)
        if axis.categorical
    )
    trust = (
        f"The forest behind it predicts trials it has not seen with R² = {r2:.2f}."
        if math.isfinite(r2)
        else "The forest behind it could not be checked on unseen trials."
    )
    if math.isfinite(r2) and r2 < 0.3:
        trust += " That is little: read the bars with care."
    bars = report.chart(
        draw.importance_figure(result),
        "importance",
        "Importance of beliefs",
        "Share of the score's variance by axis: "
        + "; ".join(f"{row['axis']}{' × ' + row['with_axis'] if row['with_axis'] else ''} {100 * row['importance']:.0f} %"
                    for row in importance_rows(result)[:8]),
        f"{result.trials} complete trials. {trust} Tried: {esc(counts)}.",
    )  # fmt: skip
    columns = [
        Column("axis", "axis"), Column("with", "with_axis"), Column("fANOVA", "importance", True, 3),
        Column("from", "low", True, 3), Column("to", "high", True, 3), Column("Optuna's fANOVA", "optuna", True, 3),
        Column("PED-ANOVA", "ped_anova", True, 3), Column("values", "values", True),
    ]  # fmt: skip
    details = (
        "<details><summary>All numbers, and two other ways to ask</summary>"
        "<p>fANOVA asks how much of <em>all</em> variation of the score is due to an axis, bad trials included; here every "
        "choice counts alike. Optuna's own evaluator averages over the cube of the one-hot columns, where most points are no "
        "belief at all. PED-ANOVA asks how differently the best tenth of the trials choose the axis: an axis that only spoils "
        "scores is large in the first and small there. Intervals come from resampling the trials.</p>"
        + table(columns, importance_rows(result), "Importance by axis and pair of axes")
        + "</details>"
    )
    return section("mattered", "What mattered", f'<div class="figures">{bars}</div>', _pairs_html(report), details)


def _pairs_html(report: Report) -> str:
    rows = [row for row in report.record.complete if pair_of(row)]
    if not rows:
        return "<p class='note'>No trial has one pair for all latents, so there is no map of pairs.</p>"
    families = draw.pair_families(rows)
    limits_ = draw.score_limits([row["score"] for row in rows])
    likelihoods = list(dict.fromkeys(str(row.get("likelihood", "")) for row in rows))
    best = {name: min(row["score"] for row in rows if str(row.get("likelihood", "")) == name) for name in likelihoods}
    charts = []
    for place, name in enumerate(sorted(likelihoods, key=lambda name: best[name])):
        own = [row for row in rows if str(row.get("likelihood", "")) == name]
        top = min(own, key=lambda row: row["score"])
        words = name.replace("_", " ") or "all likelihoods"
        charts.append(
            report.chart(
                draw.pair_figure(own, families, limits_),
                f"pairs_{place + 1}_{name or 'all'}",
                f"Posterior × prior, {words}",
                f"Best score of every pair of posterior and prior under the {words} likelihood; the best is "
                f"{pairing_text(top)} with {top['score']:.4f} bits per dimension in {len(own)} trials",
                f"Best of a pair's trials, bits per dimension, darker is worse; {len(own)} trials. Hatched: the divergence "
                "is infinite. Grey: not tried.",
            )
        )
    return f'<h3>Which pair, under which likelihood</h3><div class="figures">{"".join(charts)}</div>'


# -------------------------------------------------------------------------------------------------------------- samples


def samples_part(report: Report) -> str:
    """The winner's samples beside the baseline's, from the same standard normal source where the sizes agree."""
    import torch

    from autovae.export.card import CardError, load_prior

    shown, notes = [], []
    for name, title in (("winners/1", "Winner"), ("baseline", "Baseline")):
        try:
            prior = load_prior(report.record.folder / name)
            with torch.no_grad():
                xi = prior.sample_normal(SAMPLES, generator=torch.Generator().manual_seed(0))
                x = prior.decode(prior.from_normal(xi)).numpy()
        except (CardError, ValueError, OSError, RuntimeError) as error:
            notes.append(f"{name}: {error}")
            continue
        report.cards[name] = prior.card
        shown.append(_grid(report, x, name.replace("/", "_"), title, _belief_of_card(prior.card)))
    words = "".join(f'<p class="card warning">Not shown, {esc(note)}</p>' for note in notes)
    about = (
        "<p class='note'>E[x|z] of 64 latents z drawn from each prior, not picked; both start from the same standard "
        "normal numbers.</p>"
    )
    return section(
        "samples", "What they draw", about if shown else "", f'<div class="figures">{"".join(shown)}</div>', words
    )


def _grid(report: Report, x: np.ndarray, name: str, title: str, belief: str) -> str:
    pixels = draw.mosaic(x, COLUMNS)
    label = f"{len(x)} samples of the {title.lower()}, {belief}"
    if pixels is not None:
        return report.picture(png_of(pixels), f"samples_{name}", title, label, esc(belief))
    figure = draw.sample_grid(x[:12], 3)
    return report.chart(
        figure, f"samples_{name}", title, label, f"{esc(belief)}; each line is one point, in data units"
    )


def _belief_of_card(card: Mapping[str, Any]) -> str:
    return belief_of({**card.get("spec", {}), "posterior": _name(card, "posterior"), "prior": _name(card, "prior")})


def _name(card: Mapping[str, Any], side: str) -> Any:
    value = card.get("spec", {}).get(side)
    return tuple(value) if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------------- leaderboard


def leaderboard_part(report: Report) -> str:
    record = report.record
    if not record.complete:
        return section(
            "leaderboard", "Leaderboard", '<p class="card warning">No trial has a score.</p>', _failures(record)
        )
    rows = sorted(record.complete, key=lambda row: row["score"])[:MOST_ROWS]
    extra = [axis.name for axis in report.importance.axes
             if axis.name in rows[0] and axis.name not in ("posterior", "prior", "likelihood", "alpha")]  # fmt: skip
    varied = {name for name in ("alpha",) if len({row.get(name) for row in record.complete}) > 1}
    winner = (record.summary or {}).get("winner", {})
    cells = []
    for place, row in enumerate(rows, 1):
        posterior, prior = pair_of(row) or (pairing_text(row), "")
        is_baseline = pair_of(row) == ("normal", "normal")
        cells.append({**row, "place": place, "posterior": posterior, "prior": prior,
                      "class": "baseline" if is_baseline else "winner" if _same(row, winner) else ""})  # fmt: skip
    columns = [
        Column("#", "place", True), Column("bits/dim", "score", True), Column("± se", "score_se", True),
        Column("posterior", "posterior"), Column("prior", "prior"), Column("likelihood", "likelihood"),
        *[Column("alpha", "alpha", True, 2) for _ in varied],
        *[Column(name.replace("_", " "), name, isinstance(rows[0][name], (int, float))) for name in extra],
        Column("trial", "number", True), Column("seconds", "seconds", True, 1),
    ]  # fmt: skip
    cut = f", the best {MOST_ROWS:,} of {len(record.complete):,}" if len(record.complete) > MOST_ROWS else ""
    return section(
        "leaderboard",
        "Leaderboard",
        _finals_table(record),
        "<h3>All trials of the search</h3>",
        "<p class='note'>Single fits, one seed each: neighbours in this list may change places with another seed. "
        "Blue marks trials of the winner's belief, orange the matched normal.</p>",
        _tools(cells),
        table(columns, cells, f"Trials by score, lower is better{cut}", "trials", sortable=True),
        _failures(record),
    )


def _same(row: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    sides = {
        name: tuple(spec[name]) if isinstance(spec.get(name), list) else spec.get(name)
        for name in ("posterior", "prior")
    }
    return (
        bool(spec)
        and all(row.get(name) == value for name, value in sides.items())
        and all(str(row.get(name)) == str(spec.get(name)) for name in ("likelihood",))
    )


def _tools(cells: Sequence[Mapping[str, Any]]) -> str:
    selects = []
    for column, name in ((3, "posterior"), (4, "prior"), (5, "likelihood")):
        values = sorted({str(row.get(name, "")) for row in cells} - {""})
        if 1 < len(values) <= 40:
            options = "".join(f"<option>{esc(value)}</option>" for value in values)
            selects.append(
                f'<label>{name}<select data-column="{column}"><option value="">all</option>{options}</select></label>'
            )
    return (
        f'<div class="tools" data-table="trials" hidden><label>Find<input type="search" placeholder="words"></label>'
        f'{"".join(selects)}<output class="note" aria-live="polite"></output></div>'
    )


def _finals_table(record: Record) -> str:
    if not record.finals:
        return ""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in record.finals:
        groups.setdefault(str(row.get("rank")), []).append(row)
    lines = []
    for rank, group in groups.items():
        line: dict[str, Any] = {"rank": rank, "belief": group[0].get("belief", ""), "seeds": len(group)}
        for part in ("validation", "test"):
            values = np.array([row.get(part, math.nan) for row in group], float)
            values = values[np.isfinite(values)]
            line[part] = float(values.mean()) if len(values) else math.nan
            line[f"{part}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        line["class"] = "winner" if rank == "1" else "baseline" if rank == "baseline" else ""
        lines.append(line)
    columns = [
        Column("rank", "rank"), Column("belief", "belief"), Column("validation", "validation", True),
        Column("sd", "validation_sd", True), Column("test", "test", True), Column("sd", "test_sd", True),
        Column("seeds", "seeds", True),
    ]  # fmt: skip
    note = "<p class='note'>Test was measured once, after picking on validation, for the winner and the baseline alone.</p>"
    return (
        "<h3>Finals</h3>"
        + table(columns, lines, "Mean bits per dimension over seeds, and their standard deviation")
        + note
    )


def _failures(record: Record) -> str:
    if not record.reasons:
        return ""
    items = "".join(f"<li>{count} × {esc(reason or 'no reason given')}</li>" for reason, count in record.reasons[:20])
    return f'<div class="card warning"><h3>Trials without a score</h3><ul>{items}</ul></div>'


# --------------------------------------------------------------------------------------------------------------- search


def search_part(report: Report) -> str:
    record = report.record
    if not record.trials:
        return section("search", "The search", _space(record), '<p class="card warning">No trial is finished.</p>')
    figure = report.chart(
        draw.history_figure(record.trials),
        "history",
        "Scores in the order of trials",
        f"Score of {len(record.complete)} complete trials in order, with the best so far",
        "Triangles lie above the picture. The line is the best so far, a single fit that was partly lucky.",
    )
    return section("search", "The search", _space(record), f'<div class="figures">{figure}</div>')


def _space(record: Record) -> str:
    study, space = record.study, record.study.get("space", {})
    rows = []
    for name, parameter in (space.get("parameters") or {}).items():
        if "posteriors" in parameter:
            what = f"posterior {', '.join(parameter['posteriors'])}; prior {', '.join(parameter['priors'])}; finite pairs only"
        elif "choices" in parameter:
            what = ", ".join(map(str, parameter["choices"]))
        else:
            what = f"{parameter.get('low')} to {parameter.get('high')}{', logarithmic' if parameter.get('log') else ''}"
        rows.append({"what": name.replace("_", " "), "value": what})
    fixed = {**study.get("training", {}), **space.get("fixed", {})}
    data = study.get("data", {})
    rows += [
        {"what": "the same for all", "value": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in fixed.items())},
        {"what": "sampler", "value": f"{study.get('sampler', '?')}, {100 * study.get('random_share', 0):.0f} % of trials random, "
                                     f"{study.get('batch', '?')} trained together"},
        {"what": "data", "value": (record.summary or {}).get("data") or f"{data.get('name')}, {data.get('levels')} levels"},
        {"what": "data digest", "value": f"SHA-256 {data.get('digest', '?')}"},
    ]  # fmt: skip
    purpose = space.get("purpose", "")
    return (f"<p>{esc(purpose)}.</p>" if purpose else "") + table(
        [Column("", "what"), Column("searched", "value")], rows, "What was searched"
    )


# ------------------------------------------------------------------------------------------------- objective, reproduce


def objective_part(report: Report) -> str:
    record, summary = report.record, report.record.summary
    parts = []
    specs = {"winner": (summary or {}).get("winner"), "baseline": (summary or {}).get("baseline")}
    if isinstance(specs["winner"], dict):
        formula = objective_formula(specs["winner"])
        parts += [
            "<h3>Training maximised, averaged over the training points</h3>",
            f'<div class="formula" tabindex="0" role="math" aria-label="{esc(formula.text)}">{formula.mathml}</div>',
            letters(formula.letters),
            f"<p class='note'>These are the winner's weights. The baseline has the same with {esc(_differences(specs))}.</p>",
        ]
    else:
        parts.append(
            "<p class='note'>The formula of the training objective is shown for the winner, and there is none yet.</p>"
        )
    features = _features(report)
    score = score_formula(record.study, summary, features)
    parts += [
        "<h3>Trials were judged by</h3>",
        f'<div class="formula" tabindex="0" role="math" aria-label="{esc(score.text)}">{score.mathml}</div>',
        letters(score.letters),
        "<h3>Limits</h3>",
        "<ul>"
        + "".join(
            f"<li>{esc(line)}</li>"
            for line in limits(record.study, summary, {str(row.get("likelihood")) for row in record.trials})
        )
        + "</ul>",
    ]
    return section("objective", "What was computed", *parts)


def _differences(specs: Mapping[str, Any]) -> str:
    winner, baseline = specs["winner"] or {}, specs["baseline"] or {}
    other = [f"{name.replace('_', ' ')} {baseline[name]}" for name in baseline
             if name not in ("seed", "data_seed") and baseline[name] != winner.get(name)]  # fmt: skip
    return ", ".join(other) or "no difference"


def _features(report: Report) -> int | None:
    for card in report.cards.values():
        shape = card.get("domain", {}).get("shape")
        if isinstance(shape, list) and all(isinstance(size, int) for size in shape):
            return math.prod(shape)
    return None


def again_part(report: Report) -> str:
    record = report.record
    study, data = record.study, record.study.get("data", {})
    source = data.get("path")
    command = f"autovae run {record.study.get('name', record.name)}" + (f" --dataset {source}" if source else "")
    rows = [
        {"what": "study seed", "value": study.get("seed", "?")},
        {
            "what": "seeds of the finals",
            "value": ", ".join(dict.fromkeys(str(row.get("seed")) for row in record.finals)) or "–",
        },
    ]
    card: Mapping[str, Any] = next(iter(report.cards.values()), {})
    if card:
        about = card.get("data", {})
        rows += [
            {
                "what": "versions",
                "value": ", ".join(f"{name} {version}" for name, version in card.get("versions", {}).items()),
            },
            {"what": "data from", "value": about.get("source", "?")},
            {"what": "licence of the data", "value": about.get("licence", "?")},
            {"what": "split", "value": about.get("note", "?")},
        ]
    return section(
        "again",
        "Do it again",
        f"<pre><code>{esc(command)}\nautovae sample {esc(record.folder.name)}/winners/1 -n 64 --to grid.png\n"
        f"autovae export {esc(record.folder.name)} --trial N --to DIR</code></pre>",
        "<p class='note'>Every trial's seed comes from the study's seed and the trial's number, so the same command gives the "
        "same trials; it resumes where it stopped. The files beside this page hold all numbers: trials.csv, finals.csv, "
        "importance.csv, summary.json.</p>",
        table([Column("", "what"), Column("value", "value")], rows, "What it takes to get the same numbers"),
    )

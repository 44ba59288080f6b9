"""What was found: the sentence, the key numbers, the gain over the baseline with its interval."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from autovae.report import figures as draw
from autovae.report.content import Content
from autovae.report.page import esc, number, section, tiles
from autovae.report.record import Record, pairing_text, role_words

__all__ = ["result_part"]

Gain = tuple[list[float], dict[str, float]]


def result_part(content: Content) -> str:
    record, summary = content.record, content.record.summary or {}
    gains = content.attempt("Gain over the baseline", partial(gains_of, record), None) or {}
    kind = " wins" if summary.get("wins") else ""
    return section(
        "result",
        "Result",
        f'<div class="card verdict{kind}"><p>{esc(sentence_of(record))}</p></div>',
        tiles(_key_numbers(content)),
        f'<div class="figures">{_gain_chart(content, gains)}</div>' if gains else "",
    )


def sentence_of(record: Record) -> str:
    """The verdict in words, or why there is none."""
    if (record.summary or {}).get("sentence"):
        return str((record.summary or {})["sentence"]).replace("_", " ")
    if not record.trials:
        return "No trial is finished yet, so there is no result."
    if not record.complete:
        return f"All {len(record.trials)} trials failed, so there is no result."
    best = min(record.complete, key=lambda row: row["score"])
    return (
        f"The finals have not run, so no winner is named. The best single fit of the search is {pairing_text(best)} with "
        f"{best['score']:.4f} bits per dimension."
    )


def _gain_chart(content: Content, gains: dict[str, Gain]) -> str:
    spoken = "; ".join(
        f"{name.replace(chr(10), ' ')} {gain['mean']:.4f}, interval {gain['low']:.4f} to {gain['high']:.4f}"
        for name, (_, gain) in gains.items()
    )
    level = 100 * next(iter(gains.values()))[1].get("level", math.nan)
    picked = ", more than 95 because the best of the finalists was picked" if level > 95.01 else ""
    learned = " Learned priors were not picked, so theirs is 95 %." if any("learned" in name for name in gains) else ""
    return content.chart(
        draw.gain_figure(gains),
        "gain",
        "Gain over the matched normal",
        f"Bits per dimension saved against the baseline, a dot a seed, with intervals: {spoken}",
        "A dot is one seed: the baseline's bits less the finalist's, trained with the same seed and data order. To the right "
        f"of the orange line the finalist is better. Bars hold the mean with {level:.3g} % confidence{picked}. Test was "
        f"measured once, after picking.{learned}",
    )


def gains_of(record: Record) -> dict[str, Gain]:
    """Differences to the matched normal per seed with their interval: finalists on validation, the winner and the learned
    priors on test. A finalist that is the matched normal itself is left out."""
    from autovae.search.verdict import paired_gain

    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for row in record.finals:
        groups.setdefault(str(row.get("rank")), {})[int(row.get("seed") or 0)] = row
    base = groups.pop("baseline", {})
    found: dict[str, Gain] = {}
    finalists = sum(rank.isdigit() for rank in groups)
    for rank, group in groups.items():
        seeds = [seed for seed in group if seed in base]
        if len(seeds) < 2 or (rank.isdigit() and group[seeds[0]].get("belief") == base[seeds[0]].get("belief")):
            continue
        for part in ("test", "validation") if rank.isdigit() else ("test",):
            reference, own = (
                np.array([rows[seed].get(part, math.nan) for seed in seeds], float) for rows in (base, group)
            )
            if not np.isfinite(reference - own).any():
                continue
            gain = paired_gain(reference, own, finalists if rank.isdigit() else 1)
            words = str(group[seeds[0]].get("belief", "")).split(",")[0] if rank.isdigit() else role_words(rank)
            name = f"{words}\n{f'#{rank}, ' if rank.isdigit() else ''}{part}"
            found[name] = ([float(difference) for difference in reference - own], vars(gain))
    return found


def _key_numbers(content: Content) -> list[tuple[str, str, str]]:
    record, summary = content.record, content.record.summary or {}
    others = ", ".join(f"{count} {state.lower()}" for state, count in record.states.items() if state != "COMPLETE")
    values = [("trials with a score", f"{len(record.complete):,}", others or "none failed")]
    gain = summary.get("gain_test")
    if content.baseline_won:
        values.append(("gain on test", "none", "the matched normal is the best of the finalists"))
    elif isinstance(gain, dict):
        interval = f"{number(gain.get('low'))} to {number(gain.get('high'))} bits per dimension"
        values.append(("gain on test", number(gain.get("mean")), interval))
    if record.complete:
        best = min(record.complete, key=lambda row: row["score"])
        values.append(("best in the search", f"{best['score']:.4f}", "bits per dimension, a single fit"))
    if content.importance.decomposition is not None:
        main = content.importance.values.diagonal()
        top = int(np.argmax(main))
        low, high = content.importance.low[top, top], content.importance.high[top, top]
        name = content.importance.axes[top].name.replace("_", " ") if content.importance.trusted else "unclear"
        share = f"{100 * main[top]:.0f} % of the variance ({100 * low:.0f} to {100 * high:.0f} %)"
        doubt = f"the trials do not predict each other (R² {content.importance.decomposition.r2:.2f})"
        values.append(("mattered most", name, share if content.importance.trusted else doubt))
    return values

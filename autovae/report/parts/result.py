"""The result: the verdict, key numbers, the gain over the matched normal with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from autovae.report.content import Content
from autovae.report.figures.gain import gain_figure
from autovae.report.finals import gains_of
from autovae.report.page import number, words
from autovae.report.record import Record, pairing_text

__all__ = ["result_part", "sentence_of"]


def result_part(content: Content) -> dict[str, Any]:
    record = content.record
    gains = content.attempt("Gain over the baseline", lambda: gains_of(record), {})
    return {
        "wins": bool((record.summary or {}).get("wins")),
        "sentence": sentence_of(record),
        "numbers": _key_numbers(content),
        "gains": {name.replace("\n", " "): gain for name, gain in gains.items()},
        "chart": content.drawing(gain_figure(gains), "gain") if gains else None,
    }


def sentence_of(record: Record) -> str:
    """The verdict in words, or why there is none."""
    if (record.summary or {}).get("sentence"):
        return words((record.summary or {})["sentence"])
    if not record.trials:
        return "No trial is finished yet, so there is no result."
    if not record.complete:
        return f"All {len(record.trials)} trials failed, so there is no result."
    best = min(record.complete, key=lambda row: row["score"])
    return (
        f"The finals have not run, so no winner is named. The best single fit of the search is {pairing_text(best)} with "
        f"{best['score']:.4f} bits per dimension."
    )


def _key_numbers(content: Content) -> list[tuple[str, str, str]]:
    """(name, value, small print)."""
    record, gain = content.record, (content.record.summary or {}).get("gain_test")
    others = ", ".join(f"{count} {state.lower()}" for state, count in record.states.items() if state != "COMPLETE")
    values = [("trials with a score", f"{len(record.complete):,}", others or "none failed")]
    if content.baseline_won:
        values.append(("gain on test", "none", "the matched normal is the best of the finalists"))
    elif isinstance(gain, dict):
        interval = f"{number(gain.get('low'))} to {number(gain.get('high'))} bits per dimension"
        values.append(("gain on test", number(gain.get("mean")), interval))
    if record.complete:
        best = min(row["score"] for row in record.complete)
        values.append(("best in the search", f"{best:.4f}", "bits per dimension, a single fit"))
    found = content.importance
    if found.decomposition is not None and found.trusted:
        top = int(np.argmax(found.values.diagonal()))
        share, low, high = (100 * values[top, top] for values in (found.values, found.low, found.high))
        small = f"{share:.0f} % of the variance ({low:.0f} to {high:.0f} %)"
        values.append(("mattered most", words(found.axes[top].name), small))
    elif found.decomposition is not None:
        small = f"the forest does not predict unseen trials (R² {found.decomposition.r2:.2f})"
        values.append(("mattered most", "unclear", small))
    return values

"""The finals over seeds: means and standard deviations, and gains over the matched normal with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from autovae.report.record import Record, role_words
from autovae.search.verdict import paired_gain

__all__ = ["Gain", "finals_rows", "gains_of"]


class Gain(NamedTuple):
    """Bits per dimension saved against the baseline: per seed, and their mean with its interval."""

    differences: Sequence[float]
    mean: float
    low: float
    high: float
    level: float


def finals_rows(record: Record) -> list[dict[str, Any]]:
    """One row per finalist or baseline, with mean and standard deviation over seeds of every measure (NaN: not measured)."""
    rows = []
    for rank, group in _by_rank(record).items():
        network = str(group[0].get("network") or "")
        row = {"rank": rank, "belief": str(group[0].get("belief", "")), "network": network, "seeds": len(group)}
        for part in ("validation", "test", "common_head"):
            values = np.array([fit.get(part, math.nan) for fit in group], float)
            values = values[np.isfinite(values)]
            row[part] = float(values.mean()) if len(values) else math.nan
            row[f"{part}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        rows.append(row)
    return rows


def _by_rank(record: Record) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in record.finals:
        groups.setdefault(str(row.get("rank")), []).append(row)
    return groups


def gains_of(record: Record) -> dict[str, Gain]:
    """Gains over the matched normal by name: finalists on validation, the winner and the learned priors on test.

    A finalist that is the matched normal itself is left out.
    """
    groups = {rank: {int(row.get("seed") or 0): row for row in rows} for rank, rows in _by_rank(record).items()}
    base = groups.pop("baseline", {})
    finalists = sum(rank.isdigit() for rank in groups)
    found: dict[str, Gain] = {}
    for rank, group in groups.items():
        seeds, picked = [seed for seed in group if seed in base], rank.isdigit()
        if len(seeds) < 2 or (picked and group[seeds[0]].get("belief") == base[seeds[0]].get("belief")):
            continue
        name = (
            f"{str(group[seeds[0]].get('belief', '')).split(',')[0]}\n#{rank}, " if picked else f"{role_words(rank)}\n"
        )
        for part in ("test", "validation") if picked else ("test",):
            reference, own = (np.array([rows[s].get(part, math.nan) for s in seeds], float) for rows in (base, group))
            if np.isfinite(reference - own).any():
                gain = paired_gain(reference, own, finalists if picked else 1)
                found[name + part] = Gain((reference - own).tolist(), gain.mean, gain.low, gain.high, gain.level)
    return found

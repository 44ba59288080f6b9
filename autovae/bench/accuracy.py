r"""Accuracy of the divergence table, pair by pair, and a gallery of its landscapes.

    python -m autovae.bench.accuracy results/divergences [VALUES.csv]

`accuracy.csv` has one row a pair: kind, points, and the largest errors of the value in float64 and float32 (relative to
max(KL, 1e-3)) and of the gradient in loc and log scale (relative to max(abs gradient, 1e-3)). The truth is 25-digit
quadrature (`oracle`), computed here (minutes) or read from a file of `write_values`. `gallery.png` draws all pairs.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autovae.beliefs.divergences import kl, kl_kind
from autovae.bench.oracle import kl_and_gradient
from autovae.finiteness import TAILS, finiteness
from autovae.report.landscape import gallery_figure
from autovae.report.theme import save_figure

__all__ = ["accuracy", "run", "write_values"]

FIELDS = ["posterior", "prior", "loc", "scale", "kl", "dloc", "dlog"]


def write_values(path: str | Path, points: int = 7, seed: int = 2) -> None:
    """Random points of every finite cell with their KL and gradient, by the oracle."""
    rng = np.random.default_rng(seed)
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for posterior in TAILS:
            for prior in TAILS:
                if finiteness(posterior, prior) == "infinite":
                    continue
                for number in range(points):
                    loc, scale = _point(rng, posterior, prior, number)
                    exact = kl_and_gradient(posterior, prior, loc, scale)
                    writer.writerow([posterior, prior, loc, scale, *(f"{float(v):.17g}" for v in exact)])


def _point(rng: np.random.Generator, posterior: str, prior: str, number: int) -> tuple[float, float]:
    loc, scale = rng.uniform(-8, 8), math.exp(rng.uniform(math.log(1e-3), math.log(10)))
    if number % 7 == 5:
        loc, scale = rng.normal() * 0.02, math.exp(rng.normal() * 0.02)
    if number % 7 == 6:
        loc = 0.0
    if finiteness(posterior, prior) == "conditional":
        scale = scale if prior == "exponential" else min(scale, 1 / scale, 0.99)
        loc = {"uniform": loc / 8 * (1 - scale), "exponential": abs(loc) + scale}.get(prior, loc)
    return float(loc), float(scale)


def accuracy(values: str | Path) -> list[dict[str, Any]]:
    """A row per pair; infinite pairs must be inf everywhere."""
    cells: dict[tuple[str, str], list[list[float]]] = {(q, p): [] for q in TAILS for p in TAILS}
    with Path(values).open(newline="") as file:
        for row in csv.DictReader(file):
            cells[row["posterior"], row["prior"]].append([float(row[name]) for name in FIELDS[2:]])
    return [_row(*pair, np.array(points)) for pair, points in cells.items()]


def _row(posterior: str, prior: str, points: np.ndarray) -> dict[str, Any]:
    row: dict[str, Any] = {"posterior": posterior, "prior": prior, "kind": kl_kind(posterior, prior)}
    if not len(points):
        loc, scale = torch.linspace(-3, 3, 7), torch.linspace(0.1, 3, 7)[:, None]
        found = bool(kl(posterior, prior, loc, scale).isinf().all())
        return row | {"points": 49, "float64": 0.0 if found else math.nan, "float32": 0.0, "gradient": 0.0}
    mu, sigma = (torch.tensor(points[:, k], requires_grad=True) for k in (0, 1))
    value = kl(posterior, prior, mu, sigma)
    by_mu, by_sigma = torch.autograd.grad(value.sum(), (mu, sigma))
    triple = torch.stack([value, by_mu, by_sigma * sigma]).detach().numpy()
    error = np.abs(triple - points[:, 2:].T) / np.maximum(np.abs(points[:, 2:].T), 1e-3)
    single, same = mu.detach().float(), sigma.detach().float()
    exact = kl(posterior, prior, single.double(), same.double())
    coarse = ((kl(posterior, prior, single, same) - exact).abs() / exact.clamp(min=1e-3)).nan_to_num(0)
    return row | {
        "points": len(points), "float64": error[0].max(), "float32": float(coarse.max()), "gradient": error[1:].max(),
    }  # fmt: skip


def run(results_dir: str | Path, values: str | Path | None = None) -> dict[str, dict[str, float]]:
    """Write accuracy.csv and gallery.png; the largest errors of each kind."""
    folder = Path(results_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = folder / "values.csv"
        write_values(values)
    rows = accuracy(values)
    with (folder / "accuracy.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        writer.writerows([f"{v:.2e}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    save_figure(gallery_figure(), folder / "gallery.png")
    kinds = sorted({row["kind"] for row in rows})
    return {
        kind: {
            name: max(float(r[name]) for r in rows if r["kind"] == kind) for name in ("float64", "float32", "gradient")
        }
        for kind in kinds
    }


if __name__ == "__main__":
    print(run(*sys.argv[1:3]))

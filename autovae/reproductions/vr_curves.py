r"""What alpha and K do to the variational Renyi bound and to its gradient: the pictures of `vr_alpha`.

The gradient with respect to the model is sum_k v_k d log w_k, with v_k = w_k^(1-alpha) / sum: alpha = 1 weighs all samples
alike, alpha = 0 in proportion to w_k, alpha = -inf only the largest. For the encoder (doubly reparameterised) sample k
counts alpha v_k + (1 - alpha) v_k^2.
References: Li and Turner, Renyi Divergence Variational Inference, 2016; Tucker, Lawson, Gu and Maddison, Doubly
Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from autovae.report.theme import COLOURS, new_figure, style
from autovae.reproductions.settings import Curves

__all__ = ["gap_figure", "gradient_weights", "weights_figure"]

ORDERS = (1.0, 0.5, 0.0, -1.0, -math.inf)
LINES = ("first", "second", "third", "fourth", "fifth")


def gradient_weights(log_w: Tensor, samples: int, trained_with: str) -> list[dict[str, Any]]:
    """Mean over points and blocks of the sorted weights of K samples, for the model and for the encoder's path."""
    blocks = log_w.shape[0] // samples
    sets = log_w[: blocks * samples].unflatten(0, (blocks, samples)).transpose(0, 1).flatten(1).T  # (sets, K)
    rows = []
    for alpha in ORDERS:
        ordered = sets.sort(-1, descending=True).values
        if math.isinf(alpha):
            v = torch.zeros_like(ordered)
            v[:, 0] = 1.0
        else:
            v = torch.softmax((1 - alpha) * ordered, -1)
        path = alpha * v + (1 - alpha) * v.square() if math.isfinite(alpha) else None
        for rank in range(samples):
            rows.append(
                {
                    "trained_with": trained_with, "alpha": alpha, "rank": rank + 1, "model_weight": float(v[:, rank].mean()),
                    "path_weight": None if path is None else float(path[:, rank].mean()),
                    "effective_samples": float((1 / v.square().sum(-1)).mean()),
                }
            )  # fmt: skip
    return rows


def gap_figure(curves: dict[str, Any], settings: Curves, against: str) -> Figure:
    """Bound minus log p(x) of the first model, against "alpha" with a line per K, or against "K" with a line per alpha."""
    rows = [row for row in curves["bound"] if row["trained_with"] == curves["bound"][0]["trained_with"]]
    lines: dict[str, list[dict[str, Any]]] = {}
    if against == "alpha":
        sizes = [k for k in settings.K if k in (1, 5, 50, 500)] or settings.K[:3]
        for size in sizes:
            lines[f"K = {size}"] = [row for row in rows if row["K"] == size and math.isfinite(row["alpha"])]
    else:
        for alpha in (-math.inf, -0.5, 0.0, 0.5, 1.0):
            lines[f"alpha = {alpha:g}"] = [row for row in rows if row["alpha"] == alpha]
    with style():
        figure = new_figure(2.6)
        axes = figure.subplots()
        for colour, (label, here) in zip(LINES, ((name, line) for name, line in lines.items() if line), strict=False):
            axes.plot([r[against] for r in here], [r["gap"] for r in here], color=COLOURS[colour], label=label)
        axes.axhline(0, color=COLOURS["muted"], lw=0.8, ls=":")
        axes.set(xlabel=against, ylabel="bound − log p(x), nats", xscale="linear" if against == "alpha" else "log")
        axes.legend()
    return figure


def weights_figure(curves: dict[str, Any]) -> Figure:
    """Mean weight against rank in the gradients of the model and of the encoder's path."""
    rows = [row for row in curves["weights"] if row["trained_with"] == curves["weights"][0]["trained_with"]]
    with style():
        figure = new_figure(2.4, width=6.0)
        left, right = figure.subplots(1, 2)
        for colour, alpha in zip(LINES, ORDERS, strict=True):
            here = [row for row in rows if row["alpha"] == alpha]
            ranks = [row["rank"] for row in here]
            left.plot(
                ranks,
                [row["model_weight"] for row in here],
                color=COLOURS[colour],
                label=f"alpha = {alpha:g}",
                marker="." if math.isinf(alpha) else None,
            )
            if math.isfinite(alpha):
                right.plot(ranks, [row["path_weight"] for row in here], color=COLOURS[colour])
        left.set_title("model: vₖ")
        right.set_title("encoder's path: α vₖ + (1 − α) vₖ²")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xlabel("rank of the weight")
        left.set_ylim(-0.02, 1.05)
        left.legend()
    return figure

r"""The variational Renyi bound: which order alpha trains the better model, and what alpha and K do to the bound.

    L_alpha(K) = 1/(1 - alpha) log (1/K) sum_k w_k^(1 - alpha),    w_k = p(x, z_k) / q(z_k|x)

alpha = 1 is the VAE, 0 the IWAE, -inf "VR-max" (the largest weight, which is no lower bound). Li and Turner, Renyi
Divergence Variational Inference, 2016, Table 2: average test log likelihood by importance sampling (k = 5000), K = 5.

Beside the table, three pictures of a trained model: the bound against alpha, the bound against K, and what the bound's
gradient listens to. The gradient with respect to the model is sum_k v_k d log w_k, with v_k = w_k^(1-alpha) / sum:
alpha = 1 hears all samples alike, alpha = 0 in proportion to their weight, alpha = -inf only the largest; to the
encoder (doubly reparameterised; Tucker et al. 2019) sample k counts alpha v_k + (1 - alpha) v_k^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from autovae.data.datasets import Data, Split, load
from autovae.metrics.curves import bound_curves, encoder_weights
from autovae.report.theme import COLOURS, new_figure, style
from autovae.reproductions.comparison import Standing, compare
from autovae.reproductions.evaluation import evaluate, random_points
from autovae.reproductions.lr_schedule import fit_stages, total_epochs
from autovae.reproductions.notebook import Notebook, StrictModel
from autovae.seeds import stream_seed
from autovae.spec import VAESpec

__all__ = ["PAPER", "Experiment", "Settings", "run"]

# Average test log likelihood by (data, K, alpha), in nats.
PAPER: dict[tuple[str, int, float], float] = {
    ("freyface", 5, 1.0): 1322.96,
    ("freyface", 5, 0.5): 1374.64,
    ("freyface", 5, 0.0): 1380.30,
    ("freyface", 5, -math.inf): 1377.40,
    ("caltech101_silhouettes", 5, 1.0): -119.69,
    ("caltech101_silhouettes", 5, 0.0): -117.89,
    ("caltech101_silhouettes", 5, -math.inf): -118.01,
    ("caltech101_silhouettes", 50, 1.0): -119.61,
    ("caltech101_silhouettes", 50, 0.0): -117.21,
    ("caltech101_silhouettes", 50, -math.inf): -117.10,
    ("mnist_dynamic", 5, 0.5): -85.50,
    ("mnist_dynamic", 5, 0.0): -85.54,
    ("mnist_dynamic", 5, -math.inf): -85.42,
}
NAMES = {1.0: "VAE", 0.0: "IWAE", -math.inf: "VR-max"}


class Experiment(StrictModel):
    """One data set: network, training, and the orders compared on it."""

    data: str
    split: Literal["published", "shuffled"] = "published"
    likelihood: str = "bernoulli"
    scale: str = "global"
    hidden: list[int]
    latent_dim: int = Field(ge=1)
    activation: str = "tanh"
    K: int = Field(5, ge=1)
    alphas: list[float] = Field(min_length=1)
    seeds: int = Field(ge=1)
    stages: list[tuple[int, float]] = Field(min_length=1)
    batch_size: int = Field(100, ge=1)
    points: int = Field(ge=2)  # test points, at random
    samples: int = Field(5000, ge=10)  # importance samples a point


class Curves(StrictModel):
    """The pictures: points and samples of the trained models of the first experiment."""

    points: int = Field(100, ge=2)
    samples: int = Field(5000, ge=100)
    K: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    alphas: tuple[float, ...] = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


class Settings(StrictModel):
    """What `[short]` and `[full]` of the study file may say."""

    experiments: list[Experiment] = Field(min_length=1)
    curves: Curves = Curves()


def title(alpha: float) -> str:
    return NAMES.get(alpha, f"alpha = {alpha:g}")


def step_name(place: int, experiment: Experiment) -> str:
    return f"{place + 1}_{Path(experiment.data).stem}"


def run(settings: Settings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Train every order on every data set, estimate, draw, write; the summary."""
    rows, sentences = [], []
    for place, experiment in enumerate(settings.experiments):
        name = step_name(place, experiment)
        found = notebook.once(name, _experiment, name, experiment, notebook, data_dir, device)
        rows += table(experiment, found)
        sentences.append(_sentence(rows[-len(experiment.alphas) :]))
    first = settings.experiments[0]
    curves = notebook.once("curves", _curves, settings, notebook, data_dir, device)
    notebook.write_table("table.csv", rows)
    notebook.write_table("bound.csv", curves["bound"])
    notebook.write_table("gradient_weights.csv", curves["weights"])
    notebook.write_figure("bound_against_alpha.png", _alpha_figure(curves, settings.curves))
    notebook.write_figure("bound_against_k.png", _k_figure(curves, settings.curves))
    notebook.write_figure("gradient_weights.png", _weights_figure(curves))
    summary = {"rows": rows, "sentence": "; ".join(sentences)}
    notebook.write_readme(_readme(settings, rows, curves, sentences, first))
    return summary


def data_of(experiment: Experiment, data_dir: Path | None) -> Data:
    """The data set with its published split, or shuffled first as the paper's code does (frames of one video leak)."""
    data = load(experiment.data, data_dir)
    if experiment.split == "published":
        return data
    x = torch.cat([data.train.x, data.validation.x, data.test.x])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(stream_seed("shuffled split")))
    train, validation, test = (Split(part) for part in x[order].split(list(data.points)))
    return replace(
        data,
        train=train,
        validation=validation,
        test=test,
        digest=data.digest + "-shuffled",
        note=f"{data.note}; shuffled before splitting here",
    )


def _fits(name: str, experiment: Experiment, data: Data, notebook: Notebook, device: torch.device) -> list[Any]:
    """The models, orders first, seeds within."""
    specs = [
        VAESpec(
            likelihood=experiment.likelihood, objective="density", scale=experiment.scale, alpha=alpha, samples=experiment.K,
            latent_dim=experiment.latent_dim, hidden=tuple(experiment.hidden), activation=experiment.activation,
            batch_size=experiment.batch_size, epochs=total_epochs(experiment.stages),
            learning_rate=experiment.stages[0][1], seed=seed,
        )
        for alpha in experiment.alphas
        for seed in range(experiment.seeds)
    ]  # fmt: skip
    label = f"{experiment.data}, {len(specs)} fits"
    return fit_stages(specs, experiment.stages, data, device, notebook.place(name), notebook.say, label)


def _experiment(
    name: str, experiment: Experiment, notebook: Notebook, data_dir: Path | None, device: torch.device
) -> dict[str, Any]:
    data = data_of(experiment, data_dir)
    models = _fits(name, experiment, data, notebook, device)
    test = random_points(data.test, experiment.points)

    def estimate(place: int) -> dict[str, Any]:
        notebook.say(f"{experiment.data}: log likelihood of fit {place + 1}/{len(models)}")
        return evaluate(models[place], data, test, experiment.samples, device)

    fits = [notebook.once(f"{name}-fit{place}", estimate, place) for place in range(len(models))]
    return {"fits": fits, "test_points": len(test), "train_points": len(data.train), "note": data.note}


def _values(experiment: Experiment, found: dict[str, Any], key: str) -> dict[str, Tensor]:
    """(seeds, points) of each order, by title."""
    stacked = torch.tensor([fit[key] for fit in found["fits"]], dtype=torch.float64)
    parts = stacked.unflatten(0, (len(experiment.alphas), experiment.seeds))
    return {title(alpha): part for alpha, part in zip(experiment.alphas, parts, strict=True)}


def table(experiment: Experiment, found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row an order: the paper's test log likelihood, ours with its errors, the paired lead over the first order."""
    values = _values(experiment, found, "log_likelihood")
    tenths, elbos = (_values(experiment, found, key) for key in ("tenth", "elbo"))
    standings: dict[str, Standing] = compare(values, title(experiment.alphas[0]))
    first = PAPER.get((experiment.data, experiment.K, experiment.alphas[0]))
    rows = []
    for alpha in experiment.alphas:
        name = title(alpha)
        standing, paper = standings[name], PAPER.get((experiment.data, experiment.K, alpha))
        rows.append(
            {
                "data": experiment.data,
                "split": experiment.split,
                "method": name,
                "alpha": alpha,
                "K": experiment.K,
                "log_likelihood_paper": paper,
                "log_likelihood": round(standing.mean, 3),
                "error_seeds": round(standing.error_seeds, 3),
                "error_points": round(standing.error_points, 3),
                "lead_over_first_paper": None if paper is None or first is None else round(paper - first, 2),
                "lead_over_first": round(standing.lead, 3),
                "lead_error": round(standing.lead_error, 3),
                "beyond_error": standing.sure,
                "elbo": round(float(elbos[name].mean()), 3),
                "gain_of_last_tenfold_k": round(standing.mean - float(tenths[name].mean()), 3),
                "epochs": total_epochs(experiment.stages),
                "seeds": experiment.seeds,
                "test_points": found["test_points"],
                "importance_samples": experiment.samples,
                "seconds": found["seconds"],
                "cpu_seconds": found["cpu_seconds"],
            }
        )
    return rows


def _sentence(rows: Sequence[dict[str, Any]]) -> str:
    parts = []
    for row in rows[1:]:
        sure = row["beyond_error"]
        verb = "leads" if row["lead_over_first"] > 0 else "trails"
        parts.append(
            f"{row['method']} {verb} {rows[0]['method']} by {abs(row['lead_over_first']):.2f} ± {row['lead_error']:.2f} nats"
            + ("" if sure else " (within two standard errors)")
        )
    return f"{rows[0]['data']} ({rows[0]['split']} split): " + ", ".join(parts)


def _curves(settings: Settings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Bound against alpha and K, and gradient weights, for a model trained with each order (the first seed)."""
    experiment, curves = settings.experiments[0], settings.curves
    data = data_of(experiment, data_dir)
    models = _fits(step_name(0, experiment), experiment, data, notebook, device)
    test = random_points(data.test, curves.points)
    bound, weights = [], []
    orders = sorted({*curves.alphas, -math.inf, math.inf})
    for place, trained_with in enumerate(experiment.alphas):
        notebook.say(f"curves of {title(trained_with)}")
        model = models[place * experiment.seeds]
        log_w = encoder_weights(model, data, test, curves.samples, device, density="density")
        bound += [
            {"trained_with": title(trained_with), **row.to_dict(), "log_p": row.bound - row.gap}
            for row in bound_curves(log_w, orders, curves.K)
        ]
        weights += _gradient_weights(log_w, min(50, curves.samples), title(trained_with))
    return {"bound": bound, "weights": weights}


def _gradient_weights(log_w: Tensor, samples: int, trained_with: str) -> list[dict[str, Any]]:
    """Mean over points and blocks of the sorted weights of K samples, for the model and for the encoder's path."""
    blocks = log_w.shape[0] // samples
    sets = log_w[: blocks * samples].unflatten(0, (blocks, samples)).transpose(0, 1).flatten(1).T  # (sets, K)
    rows = []
    for alpha in (1.0, 0.5, 0.0, -1.0, -math.inf):
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


LINES = ("first", "second", "third", "fourth", "fifth")


def _alpha_figure(curves: dict[str, Any], settings: Curves) -> Any:
    """Bound minus log p(x) against alpha, a line a K, for the model trained at alpha = 1 (the first)."""
    rows = [row for row in curves["bound"] if row["trained_with"] == curves["bound"][0]["trained_with"]]
    with style():
        figure = new_figure(2.6)
        axes = figure.subplots()
        sizes = [k for k in settings.K if k in (1, 5, 50, 500)] or settings.K[:3]
        for colour, samples in zip(LINES, sizes, strict=False):
            here = [row for row in rows if row["K"] == samples and math.isfinite(row["alpha"])]
            axes.plot(
                [r["alpha"] for r in here], [r["gap"] for r in here], color=COLOURS[colour], label=f"K = {samples}"
            )
        axes.axhline(0, color=COLOURS["muted"], lw=0.8, ls=":")
        axes.set_xlabel("alpha")
        axes.set_ylabel("bound − log p(x), nats")
        axes.legend()
    return figure


def _k_figure(curves: dict[str, Any], settings: Curves) -> Any:
    rows = [row for row in curves["bound"] if row["trained_with"] == curves["bound"][0]["trained_with"]]
    with style():
        figure = new_figure(2.6)
        axes = figure.subplots()
        present = {row["alpha"] for row in rows}
        orders = [alpha for alpha in (-math.inf, -0.5, 0.0, 0.5, 1.0) if alpha in present]
        for colour, alpha in zip(LINES, orders, strict=False):
            here = [row for row in rows if row["alpha"] == alpha]
            axes.plot(
                [r["K"] for r in here], [r["gap"] for r in here], color=COLOURS[colour], label=f"alpha = {alpha:g}"
            )
        axes.axhline(0, color=COLOURS["muted"], lw=0.8, ls=":")
        axes.set_xscale("log")
        axes.set_xlabel("K")
        axes.set_ylabel("bound − log p(x), nats")
        axes.legend()
    return figure


def _weights_figure(curves: dict[str, Any]) -> Any:
    """Mean weight against rank: what the gradient of the model, and of the encoder's path, listens to."""
    rows = [row for row in curves["weights"] if row["trained_with"] == curves["weights"][0]["trained_with"]]
    with style():
        figure = new_figure(2.4, width=6.0)
        left, right = figure.subplots(1, 2)
        for colour, alpha in zip(LINES, (1.0, 0.5, 0.0, -1.0, -math.inf), strict=True):
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


def _readme(
    settings: Settings,
    rows: Sequence[dict[str, Any]],
    curves: dict[str, Any],
    sentences: Sequence[str],
    first: Experiment,
) -> str:
    lines = [
        "| data | method | K | paper | ours | ± seeds | ± points | lead over VAE: paper | ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['data']} ({row['split']}) | {row['method']} | {row['K']} | {_number(row['log_likelihood_paper'])} "
            f"| {row['log_likelihood']:.2f} | {row['error_seeds']:.2f} | {row['error_points']:.2f} "
            f"| {_number(row['lead_over_first_paper'])} | {row['lead_over_first']:.2f} ± {row['lead_error']:.2f} |"
        )
    seconds = {(row["data"], row["split"]): (row["seconds"], row["cpu_seconds"]) for row in rows}
    minutes, cpu_minutes = (sum(pair[i] for pair in seconds.values()) / 60 for i in (0, 1))
    networks = "\n".join(
        f"  - {e.data} ({e.split} split): hidden {e.hidden}, {e.latent_dim} latents, {e.activation}, {e.likelihood}"
        f"{' with a scale a pixel' if e.scale == 'pixel' else ''}, {total_epochs(e.stages)} epochs in batches of {e.batch_size}, "
        f"{e.seeds} seeds, {e.points} test points at most"
        for e in settings.experiments
    )
    largest = max(abs(row["gain_of_last_tenfold_k"]) for row in rows)
    return f"""
# The variational Renyi bound

Li and Turner, *Renyi Divergence Variational Inference*, 2016. Test log likelihood in nats, more is better.

{chr(10).join(lines)}

{chr(10).join("- " + sentence + "." for sentence in sentences)}

![bound against alpha](figures/bound_against_alpha.png)
![bound against K](figures/bound_against_k.png)

The bound minus log p(x) (importance sampling, k = {settings.curves.samples}) of the {title(first.alphas[0])} trained on
{first.data}. It falls with alpha. For alpha >= 0 it stays below log p(x) and rises with K, except at alpha = 1, where K
changes nothing in expectation; for alpha < 0 it is no lower bound and rises above zero with K.

![gradient weights](figures/gradient_weights.png)

What the gradient listens to: mean weight of the K = 50 samples by rank. Left, the model's gradient; right, the encoder's
path. `gradient_weights.csv` has the numbers and the effective number of samples, `bound.csv` every bound with its error.

Run again: `autovae run vr_alpha`, or with `--full`. Fits and tests took {minutes:.0f} minutes here, {cpu_minutes:.0f} of
them of processor time.

## Why the numbers differ from the paper's

- **Setting.** The paper's tables do not say everything; its public code says H = 200, softplus, Adam at 5e-4, batches of
  100. Ours:
{networks}
- **Frey Face** is a density in [0, 1] units with a scale for every pixel. Ours trains and is tested on dequantised values,
  (v + u)/256, with a scale of at least a quarter of a level; without either, densities of discrete data have no upper
  limit, and the paper's level is not reached by design. Its public code shuffles the frames of the video before
  splitting, which puts near duplicates of the test frames into training; the split is named in the table, and the
  published one here is in the order of the video.
- **Caltech 101** as in the file: 0 is the object. Validation points are not trained on.
- **Gradient.** alpha = 0 and 0.5 take the doubly reparameterised estimator, -inf the plain one (the largest weight).
- **Estimate.** Importance sampling is low on average; going from a tenth of the samples to all moved the rows by up to
  {largest:.2f} nats, and not by the same: {_moved(rows)}. A lead no larger than such a
  difference is not settled by this number of samples, whatever its error says.
- **Length.** The paper trains until nothing moves, `--full` for hundreds of epochs. After as few as here the methods need
  not stand in the paper's order.
"""


def _moved(rows: Sequence[dict[str, Any]]) -> str:
    """By how much the last tenfold of the samples moved each row."""
    parts: dict[str, list[str]] = {}
    for row in rows:
        parts.setdefault(f"{row['data']} K = {row['K']}", []).append(
            f"{row['method']} {row['gain_of_last_tenfold_k']:.2f}"
        )
    return "; ".join(f"{name}: {', '.join(found)}" for name, found in parts.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

r"""The plain VAE on statically binarised MNIST: is the trainer as good as its peers?

Normal posterior, normal prior, Bernoulli likelihood, the plain ELBO, on Larochelle and Murray's fixed binary draw of
MNIST, official splits. The table compares the test ELBO and the importance-sampled log likelihood (k = 5000) with the 89.78
nats that pythae reports for its VAE at full length: a check of the trainer, not a comparison of beliefs.
References: Larochelle and Murray, The neural autoregressive distribution estimator, 2011; Chadebec, Vincent and
Allassonniere, Pythae, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from autovae.data.datasets import load
from autovae.report.theme import COLOURS, new_figure, style
from autovae.reproductions.evaluation import evaluate, random_points
from autovae.reproductions.lr_schedule import fit_stages
from autovae.reproductions.notebook import Notebook
from autovae.reproductions.settings import BinarizedSettings
from autovae.spec import VAESpec

__all__ = ["PUBLISHED", "run"]

PUBLISHED = 89.78  # nats: pythae's VAE, fixed binarisation, negative log likelihood at full length


def run(settings: BinarizedSettings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Train, estimate ELBO and log likelihood on test points, write table and README; the summary."""
    data = load(settings.data, data_dir)
    test = random_points(data.test, settings.points)

    def fit_and_estimate() -> dict[str, Any]:
        (model,) = fit_stages(
            [VAESpec(**settings.training)], settings.stages, data, device, notebook.place("fit"), notebook.say, "VAE"
        )
        notebook.say("log likelihood of the test points")
        return evaluate(model, data, test, settings.samples, device)

    found = notebook.once("fit", fit_and_estimate)
    elbo, likelihood = (torch.tensor(found[name], dtype=torch.float64) for name in ("elbo", "log_likelihood"))
    row = {
        "belief": "normal|normal, bernoulli",
        "epochs": settings.epochs,
        "test_points": len(elbo),
        "negative_elbo": round(-float(elbo.mean()), 2),
        "nll": round(-float(likelihood.mean()), 2),
        "nll_error_points": round(float(likelihood.std()) / len(likelihood) ** 0.5, 2),
        "importance_samples": settings.samples,
        "nll_published": PUBLISHED,
        "gap_to_published": round(-float(likelihood.mean()) - PUBLISHED, 2),
        "seconds": found["seconds"],
    }
    notebook.write_table("table.csv", [row])
    sentence = (
        f"Test -ELBO {row['negative_elbo']}, NLL {row['nll']} +- {row['nll_error_points']} nats after {row['epochs']} "
        f"epochs ({row['test_points']} test points, k = {settings.samples}); published {PUBLISHED}, gap "
        f"{row['gap_to_published']}"
    )
    notebook.write_figure("nll.png", _figure(row))
    notebook.write_readme(
        f"# Plain VAE on statically binarised MNIST\n\n{sentence}.\n\n![NLL](figures/nll.png)\n\n"
        f"Network {data.domain.features}-{'-'.join(map(str, settings.hidden))}-(2 x {settings.latent_dim}) and back, Adam, "
        f"batches of {settings.batch_size}, stages (epochs, learning rate) {settings.stages}. The published number is "
        "pythae's, at full length and with its own network; a shorter training explains a positive gap.\n"
    )
    return {"rows": [row], "sentence": sentence}


def _figure(row: Mapping[str, Any]) -> Figure:
    """-ELBO and NLL with two standard errors over points, and the published number."""
    with style():
        figure = new_figure(1.4, 4.6)
        axes = figure.subplots()
        axes.plot(row["negative_elbo"], 1, "o", color=COLOURS["second"])
        axes.errorbar(row["nll"], 0, xerr=2 * row["nll_error_points"], fmt="o", color=COLOURS["first"])
        axes.axvline(row["nll_published"], color=COLOURS["muted"], ls=":", label="pythae, full length")
        axes.set_yticks([0, 1], ["NLL", "−ELBO"])
        axes.set(ylim=(-0.6, 1.6), xlabel="test nats (less is better)")
        axes.legend()
    return figure

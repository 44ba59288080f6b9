r"""The continuous Bernoulli: what the commonly omitted normaliser is worth.

Loaiza-Ganem and Cunningham, The continuous Bernoulli: fixing a pervasive error in variational autoencoders, 2019. Grey
levels in [0, 1] are commonly given the Bernoulli formula x log l + (1 - x) log(1 - l), which is no density of them: its
integral over [0, 1] is 1/C(l), C(l) = 2 artanh(1 - 2l) / (1 - 2l). With log C it is the continuous Bernoulli.

Protocol of the paper's MNIST experiment: z = 20, two hidden layers of 500, learning rate 1e-3; train with and without
the normaliser; evaluate the ELBO and the importance-weighted bound of k = 100 of every model both with and without it;
15-nearest-neighbour accuracy of the latents; inception score of samples by an MNIST classifier; and the other
likelihoods on [0, 1], normal and beta.

The densities of different likelihoods are on one scale here (nats of x in [0, 1]), but reward sharpness without limit
on discrete data; bits per dimension, the mass of each level, do not, and are given too. The comparison "with and without"
rests on each model under the density with the normaliser: `elbo_with`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autovae.data.batches import network_input
from autovae.data.datasets import Data, Split, load
from autovae.metrics.bits import log_mass_bounds, score
from autovae.metrics.curves import encoder_weights
from autovae.model.bounds import iwae
from autovae.model.vae import VAE
from autovae.report.theme import COLOURS, new_figure, style
from autovae.reproductions.evaluation import random_points
from autovae.reproductions.lr_schedule import fit_stages
from autovae.reproductions.notebook import Notebook, markdown_table, run_again
from autovae.reproductions.settings import COINS, CoinSettings
from autovae.seeds import stream_seed
from autovae.spec import VAESpec

__all__ = ["inception_score", "run"]

SPLITS = 10  # of the samples, for the error of the inception score


def run(settings: CoinSettings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Train with every likelihood, evaluate, write table, figure and README; the summary."""
    data = load(settings.data, data_dir)
    found = {
        name: notebook.once(name, _likelihood, name, settings, data, notebook, device) for name in settings.likelihoods
    }
    rows = table(settings, found)
    notebook.write_table("table.csv", rows)
    notebook.write_figure("samples.png", _figure(found, data))
    sentence = _sentence(rows)
    notebook.write_readme(_readme(settings, rows, found, data, sentence))
    return {"rows": rows, "sentence": sentence}


def _likelihood(
    name: str, settings: CoinSettings, data: Data, notebook: Notebook, device: torch.device
) -> dict[str, Any]:
    """The fits of one likelihood and all their measures."""
    specs = [
        VAESpec(likelihood=name, objective="density", scale="pixel", seed=seed, **settings.training)
        for seed in range(settings.seeds)
    ]
    models = fit_stages(specs, settings.stages, data, device, notebook.place(name), notebook.say, name)
    notebook.say(f"{name}: measuring")
    test = random_points(data.test, settings.points)
    few = random_points(data.test, settings.bits_points)
    masses = log_mass_bounds(models, data, few, settings.bits_samples, device=device)
    classifier, accuracy = _classifier(settings, data) if data.train.y is not None else (None, None)
    fits = []
    for seed, model in enumerate(models):
        fit: dict[str, Any] = {"bits": score(masses[seed], data, few, settings.bits_samples).bits}
        for head, key in ((name, "own"), *zip(COINS, ("with", "without"), strict=True)):
            if head == name or name in COINS:
                weights = encoder_weights(under(model, head), data, test, settings.samples, device, density="density")
                fit |= {f"elbo_{key}": float(weights.mean()), f"iw_{key}": float(iwae(weights).mean())}
        fit["neighbour_accuracy"] = _neighbour_accuracy(model, settings, data)
        if classifier is not None:
            drawn = _draw(model, settings.drawn, seed)
            for kind, x in drawn.items():
                fit[f"inception_{kind}"], fit[f"inception_{kind}_error"] = inception_score(classifier(x))
            fit["pictures"] = drawn["means"][:8].tolist()
        fits.append(fit)
    return {"fits": fits, "classifier_accuracy": accuracy}


def under(model: VAE, likelihood: str) -> VAE:
    """The same weights under a likelihood with the same parameters: with or without the normaliser."""
    if likelihood == model.spec.likelihood:
        return model
    other = VAE(model.spec.replace(likelihood=likelihood), model.domain, model.encoder, model.decoder)
    return other.eval()


@torch.no_grad()
def _latents(model: VAE, split: Split, data: Data) -> Tensor:
    """Posterior locations (N, D)."""
    stack = model.stacked.eval()
    return torch.cat([stack.encode(network_input(x, data))[0][0] for x in split.flat.split(2000)])


def _neighbour_accuracy(model: VAE, settings: CoinSettings, data: Data) -> float | None:
    """Accuracy on the test set of a vote among the nearest training latents."""
    if data.train.y is None or data.test.y is None:
        return None
    from sklearn.neighbors import KNeighborsClassifier

    train = random_points(data.train, settings.neighbour_points)
    test = random_points(data.test, settings.points)
    assert train.y is not None  # the split it was drawn from has labels
    assert test.y is not None
    vote = KNeighborsClassifier(settings.neighbours).fit(_latents(model, train, data).numpy(), train.y.numpy())
    return float(vote.score(_latents(model, test, data).numpy(), test.y.numpy()))


@torch.no_grad()
def _draw(model: VAE, count: int, seed: int) -> dict[str, Tensor]:
    """x of z from the prior: the head's mean, and a draw from the head (clamped to [0, 1])."""
    stack = model.stacked.eval()
    generator = torch.Generator().manual_seed(stream_seed(seed, "inception"))
    xi = torch.randn(count, model.spec.latent_dim, generator=generator)
    z = stack.pairing.sample_prior(xi[None])
    outputs = stack.decode(z)
    return {"means": stack.mean(outputs)[0, 0], "draws": stack.sample(outputs, generator)[0, 0].clamp(0, 1)}


def _classifier(settings: CoinSettings, data: Data) -> tuple[nn.Module, float]:
    """A small classifier of the training set, for the inception score, and its test accuracy."""
    train, test = data.train, data.test
    if train.y is None or test.y is None:
        raise ValueError("the inception score needs labels; got data without y")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("classifier") % 2**63)
        net = nn.Sequential(
            nn.Linear(data.dim, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, int(train.y.max()) + 1)
        )
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(settings.classifier_epochs):
            for index in torch.randperm(len(train)).split(100):
                x = network_input(train.flat[index], data)
                loss = nn.functional.cross_entropy(net(x), train.y[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    net.eval().requires_grad_(False)
    hits = [
        net(network_input(x, data)).argmax(-1) == y
        for x, y in zip(test.flat.split(2000), test.y.split(2000), strict=True)
    ]
    return net, float(torch.cat(hits).float().mean())


def inception_score(logits: Tensor) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)) over the samples, mean over SPLITS parts and its standard error."""
    scores = []
    for part in logits.double().log_softmax(-1).tensor_split(min(SPLITS, len(logits))):
        marginal = (torch.logsumexp(part, 0) - math.log(len(part)))[None]
        scores.append((part.exp() * (part - marginal)).sum(-1).mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _mean(fits: Sequence[dict[str, Any]], key: str) -> tuple[float | None, float | None]:
    """Mean over seeds and its standard error."""
    values = [fit[key] for fit in fits if fit.get(key) is not None]
    if not values:
        return None, None
    tensor = torch.tensor(values, dtype=torch.float64)
    return float(tensor.mean()), float(tensor.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


MEASURES = {
    "elbo_own": 2, "iw_own": 2, "elbo_with": 2, "iw_with": 2, "elbo_without": 2, "iw_without": 2, "bits": 4,
    "neighbour_accuracy": 4, "inception_means": 3, "inception_draws": 3,
}  # fmt: skip


def table(settings: CoinSettings, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per training likelihood: every measure with its error over seeds."""
    rows = []
    for name, values in found.items():
        row: dict[str, Any] = {"trained_with": name}
        for measure, digits in MEASURES.items():
            mean, error = _mean(values["fits"], measure)
            row[measure] = None if mean is None else round(mean, digits)
            row[f"{measure}_error"] = None if error is None or math.isnan(error) else round(error, digits)
        row |= {"epochs": settings.epochs, "seeds": settings.seeds, "test_points": settings.points}
        row |= {"k": settings.samples, "seconds": values["seconds"], "cpu_seconds": values["cpu_seconds"]}
        rows.append(row)
    return rows


def _sentence(rows: Sequence[dict[str, Any]]) -> str:
    by_name = {row["trained_with"]: row for row in rows}
    if not set(COINS) <= set(by_name):
        return "trained with " + ", ".join(by_name)
    ours, without = (by_name[name] for name in COINS)
    gain = ours["elbo_with"] - without["elbo_with"]
    error = math.hypot(ours["elbo_with_error"] or math.nan, without["elbo_with_error"] or math.nan)
    verb = "gains" if gain > 0 else "loses"
    return (
        f"Training with the normaliser {verb} {abs(gain):.1f} ± {error:.1f} nats of ELBO under the density with it, over "
        f"training without it"
    )


def _figure(found: dict[str, dict[str, Any]], data: Data) -> Any:
    """Means of prior samples, a row a likelihood."""
    with style():
        figure = new_figure(0.75 * len(found), width=5.5)
        grid = figure.subplots(len(found), 8, squeeze=False)
        for row, (name, values) in zip(grid, found.items(), strict=True):
            pictures = values["fits"][0].get("pictures") or []
            for place, axes in enumerate(row):
                axes.set_axis_off()
                if place < len(pictures) and len(data.shape) == 2:
                    axes.imshow(torch.tensor(pictures[place]).view(data.shape).numpy(), cmap="gray_r", vmin=0, vmax=1)
            row[0].text(
                -0.15,
                0.5,
                name.replace("_", "\n"),
                ha="right",
                va="center",
                transform=row[0].transAxes,
                color=COLOURS["ink"],
            )
    return figure


def _pair(row: dict[str, Any], key: str) -> str:
    if row[key] is None:
        return ""
    error = row[f"{key}_error"]
    return f"{row[key]:g}" + (f" ± {error:g}" if error is not None else "")


def _readme(
    settings: CoinSettings, rows: Sequence[dict[str, Any]], found: dict[str, dict[str, Any]], data: Data, sentence: str
) -> str:
    heads = [name for name in MEASURES if name not in ("iw_with", "iw_without")]
    cells = [[row["trained_with"], *(_pair(row, key) for key in heads)] for row in rows]
    accuracy = next(iter(found.values()))["classifier_accuracy"]
    seen = "" if accuracy is None else f" by a small classifier trained here ({accuracy:.1%} on test)"
    return f"""
# The continuous Bernoulli

Loaiza-Ganem and Cunningham, *The continuous Bernoulli: fixing a pervasive error in variational autoencoders*, 2019:
the protocol of its MNIST experiment. Nats of x in [0, 1] a point, ± standard error over {settings.seeds} seeds.

{markdown_table(["trained with", *heads], cells)}

{sentence}.

- `elbo_own`, `iw_own`: under the training likelihood (importance-weighted with k = {settings.samples}). `bernoulli` is not a
  density: its number is not comparable with the others.
- `elbo_with`, `elbo_without`: the same weights with and without the normaliser log C.
- `bits`: bits per dimension, the mass of each of the {data.levels} levels, K = {settings.bits_samples}, on
  {settings.bits_points} test points: comparable between rows (`bernoulli` is scored as the continuous Bernoulli with the
  same logits and loses partly by construction).
- `neighbour_accuracy`: vote of the {settings.neighbours} nearest of {settings.neighbour_points:,} training latents.
- `inception_means`, `inception_draws`: inception score of {settings.drawn:,} prior samples{seen}: the head's
  mean, and draws from the head.

![means of prior samples](figures/samples.png)

{run_again("continuous_bernoulli", rows)}

## Deviations

- **The paper's numbers** are not given: this follows its protocol, not its tables. Only the direction is comparable.
- **Length:** {settings.epochs} epochs (at learning rate: {settings.schedule}), batches of
  {settings.batch_size}; the paper trains for longer, in batches of 50.
- **No dropout** (the paper keeps 0.9).
- **Dequantisation:** continuous heads train and are tested on (v + u)/256, u uniform; the Bernoulli trains on the middle
  of the level. The paper adds noise in some of its experiments.
- **Normal and beta** have a scale per pixel, never below a quarter of a level.
- **Test:** {settings.points:,} test points drawn at random once.
"""

r"""Conditional digits from an unconditional generator: HMC, mean field and MGVI beside a conditional GAN.

    p(xi | y) ~ p_y(G(xi))^alpha N(xi; 0, I),   alpha = 100,  p_y from a digit classifier

A question is answered for every digit; answers are scored by the classifier that was asked (*model*) and by a judge that
was trained on other images, with another architecture (*judge*), and by a Frechet distance to the training images of that
digit in the features of the judge: not an FID, whose features are Inception's, so its numbers stand beside the paper's
only in their order. The test images of the digit show what a perfect generator would score.

HMC runs the chains of all digits in one tensor: they share step size and mass, learnt from all of them, and nothing else.
Priors are a WGAN and a VAE of this library, so that both kinds of generator are asked the same.
References: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.1, table 1, figures 1
and 2. Not here: tables and figures (`conditional_digits_report`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from autovae.data.batches import network_input
from autovae.export.card import load_prior, save_vae
from autovae.export.prior import PriorModule
from autovae.metrics.frechet import frechet_distance
from autovae.reasoning.constraints import Categorical, Constraint, Feature, Scene
from autovae.reasoning.draws import Draws
from autovae.reasoning.hmc import HMC
from autovae.reasoning.mean_field import MeanField
from autovae.reasoning.mgvi import MGVI
from autovae.reasoning.posterior import LatentPosterior
from autovae.reproductions.digit_modules import DigitModules, GANPlan
from autovae.reproductions.notebook import Notebook, StrictModel
from autovae.spec import VAESpec
from autovae.streams import stream_seed
from autovae.tables import lookup

__all__ = ["LabelOfRow", "Settings", "run"]

SHOWN = 10  # draws in the picture of a digit


class HMCPlan(StrictModel):
    """The paper: 8 chains, 10,000 draws each, 10 leapfrogs, acceptance .6.

    Chains start at draws of the prior and go through the powers of `ladder` first, `burn_in` iterations each: at the full
    power, a start that looks like another digit is a mode of its own, which a chain does not leave.
    """

    ladder: tuple[float, ...] = (1.0, 10.0)
    burn_in: int = Field(40, ge=1)
    chains: int = Field(8, ge=2)
    warmup: int = Field(500, ge=1)
    draws: int = Field(1000, ge=4)
    steps: int = Field(10, ge=1)
    target: float = Field(0.6, gt=0, lt=1)


class VAEPlan(StrictModel):
    """The VAE that is asked beside the WGAN, by default with normal posteriors and priors."""

    posterior: str = "normal"
    prior: str = "normal"
    latent_dim: int = Field(20, ge=1)
    hidden: tuple[int, ...] = (400, 400)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(250, ge=1)
    learning_rate: float = Field(1e-3, gt=0)

    def spec(self) -> VAESpec:
        return VAESpec(likelihood="continuous_bernoulli", **self.model_dump())


class Settings(StrictModel):
    """What `[short]` and `[full]` of the study file may say."""

    data: str = "mnist"
    gan: GANPlan = GANPlan()
    conditional: GANPlan = GANPlan()
    vae: VAEPlan = VAEPlan()
    priors: tuple[str, ...] = ("wgan", "vae")
    study: str = "mnist_pairing_v1"  # whose exported winner is the prior "winner"
    methods: tuple[str, ...] = ("cwgan", "hmc", "mean_field", "mgvi")
    digits: tuple[int, ...] = tuple(range(10))
    power: float = Field(100.0, gt=0)
    samples: int = Field(8000, ge=2)
    hmc: HMCPlan = HMCPlan()
    mean_field_iterations: int = Field(1000, ge=1)
    pairs: int = Field(5, ge=1)
    mgvi_rounds: int = Field(5, ge=1)

    @field_validator("digits")
    @classmethod
    def _digits(cls, digits: tuple[int, ...]) -> tuple[int, ...]:
        for digit in digits:
            if not 0 <= digit <= 9:
                raise ValueError(f"got the digit {digit}, expected 0 to 9")
        if not digits or len(set(digits)) < len(digits):
            raise ValueError(f"got digits {digits}, expected one or more different ones")
        return digits

    @field_validator("priors")
    @classmethod
    def _priors(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup(PRIORS, name, "prior")
        return names

    @field_validator("methods")
    @classmethod
    def _methods(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup({"cwgan": 0, "hmc": 0, **VARIATIONAL}, name, "method")
        if "hmc" not in names:
            raise ValueError(f"got methods {names}, expected hmc among them: the others are compared with it")
        return names


class LabelOfRow(Constraint):
    """Row i of a batch has the class labels[i mod len(labels)]: chains of several questions in one tensor."""

    def __init__(self, net: Feature, labels: Sequence[int], power: float = 1.0) -> None:
        self._settle(power, None, net)
        self.net, self.labels = net, torch.tensor(list(labels))

    def log_likelihood(self, scene: Scene) -> Tensor:
        log_probs = scene.log_probs(self.net)
        labels = self.labels.to(log_probs.device)[
            torch.arange(len(log_probs), device=log_probs.device) % len(self.labels)
        ]
        return log_probs.gather(1, labels[:, None])[:, 0]

    @property
    def log_bound(self) -> float:
        return 0.0


# -- priors -----------------------------------------------------------------------------------------------------------


def _wgan(settings: Settings, modules: DigitModules, notebook: Notebook, device: torch.device) -> PriorModule:
    return modules.prior(device)


def _vae(settings: Settings, modules: DigitModules, notebook: Notebook, device: torch.device) -> PriorModule:
    """The VAE as it was exported, trained where there is none yet."""
    from autovae.training.loop import fit

    folder = notebook.place("vae")
    if not (folder / "card.json").is_file():
        notebook.say("the VAE")
        save_vae(fit(settings.vae.spec(), modules.data, device=str(device)).model, modules.data, folder)
    return load_prior(folder).to(device)


def _winner(settings: Settings, modules: DigitModules, notebook: Notebook, device: torch.device) -> PriorModule:
    """The winner of a study, from its results folder beside this one."""
    folder = notebook.path.parent / settings.study / "winners" / "1"
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} holds no exported winner; run the study first: autovae run {settings.study}")
    return load_prior(folder).to(device)


PRIORS: dict[str, Callable[[Settings, DigitModules, Notebook, torch.device], PriorModule]] = {
    "wgan": _wgan,
    "vae": _vae,
    "winner": _winner,
}


# -- methods ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Who reads the answers: the classifier that was asked, the judge, and the training images in the judge's features."""

    asked: nn.Module
    judge: nn.Module
    real: dict[int, Tensor]

    def score(self, images: Tensor, digit: int) -> dict[str, float]:
        """Accuracies and Frechet distance of images (n, H, W) that should show the digit."""
        flat = images.flatten(1)
        with torch.no_grad():
            asked, judged = (
                torch.cat([net(part).argmax(1) for part in flat.split(1000)]) for net in (self.asked, self.judge)
            )
        return {
            "accuracy_model": float((asked == digit).double().mean()),
            "accuracy_judge": float((judged == digit).double().mean()),
            "frechet": frechet_distance(features(self.judge, images), self.real[digit]),
        }


def features(judge: nn.Module, images: Tensor) -> Tensor:
    """The judge's last hidden layer at images (n, H, W)."""
    with torch.no_grad():
        return torch.cat([judge.features(part) for part in images.flatten(1).split(1000)]).cpu()  # type: ignore[operator]


def thumbnails(images: Tensor) -> list[Any]:
    """The mean and some draws as grey levels, (1 + SHOWN, H, W)."""
    places = torch.linspace(0, len(images) - 1, SHOWN).long()
    shown = torch.cat([images.mean(0, keepdim=True), images[places]])
    return (shown.clamp(0, 1) * 255).round().byte().tolist()


def thinned(xi: Tensor, count: int) -> Tensor:
    """At most `count` of xi (n, dim), evenly spread."""
    if len(xi) <= count:
        return xi
    return xi[torch.linspace(0, len(xi) - 1, count, device=xi.device).long()]


def answer_by_hmc(
    prior: PriorModule, asked: nn.Module, scorer: Scorer, settings: Settings, say: Callable[[str], None]
) -> dict[str, Any]:
    """All digits by HMC in one tensor: scores, diagnostics, pictures, distances during warm-up."""
    plan, count = settings.hmc, len(settings.digits)
    together = LatentPosterior(prior, LabelOfRow(asked, settings.digits, power=settings.power))
    method = HMC(chains=plan.chains * count, trajectory="fixed", steps=plan.steps, target=plan.target, keep_warmup=True)
    seed = stream_seed("digits") % 2**31
    start: Tensor | None = None
    before: list[Tensor] = []
    seconds = 0.0
    for power in plan.ladder:
        settled = method.run(
            together.with_power(power / settings.power), 1, warmup=plan.burn_in, seed=seed, start=start
        )
        start, seconds = settled.xi[:, -1], seconds + settled.seconds
        before.append(settled.warmup)  # type: ignore[arg-type]
        say(f"HMC: power {power:g}, {settled.seconds:.0f} s")
    found = method.run(together, plan.draws, warmup=plan.warmup, seed=seed, start=start)
    assert found.warmup is not None
    found = dataclasses.replace(found, warmup=torch.cat([*before, found.warmup], 1), seconds=found.seconds + seconds)
    say(f"HMC: acceptance {float(found.acceptance.mean()):.2f}, {found.seconds:.0f} s")  # type: ignore[union-attr]
    rows, pictures, early = {}, {}, {}
    for place, digit in enumerate(settings.digits):
        posterior = LatentPosterior(prior, Categorical(asked, digit, power=settings.power))
        own = dataclasses.replace(
            found, xi=found.xi[place::count], log_prob=found.log_prob[place::count], posterior=posterior,
            acceptance=found.acceptance[place::count], divergences=found.divergences[place::count],  # type: ignore[index]
            hamiltonian=found.hamiltonian[place::count], warmup=found.warmup[place::count],  # type: ignore[index]
        )  # fmt: skip
        images = posterior.decode(thinned(own.flat, settings.samples))
        rows[str(digit)] = scorer.score(images, digit) | diagnosis(own)
        pictures[str(digit)] = thumbnails(images)
        early[str(digit)] = distances_during_warmup(own, scorer, digit)
        say(f"HMC: digit {digit}, {_in_words(rows[str(digit)])}")
    cost = {
        "solving_seconds": found.seconds,
        "leapfrogs": found.info["leapfrogs"],
        "step_size": found.info["step_size"],
    }
    return {"rows": rows, "pictures": pictures, "warmup": early, **cost}


def diagnosis(draws: Draws) -> dict[str, float]:
    """R-hat and effective sizes of the chains of one digit."""
    return {
        "rhat_mean": float(np.mean(draws.rhat)),
        "rhat_max": float(np.max(draws.rhat)),
        "rhat_xi2_mean": float(np.mean(draws.of_xi_square.rhat)),
        "rhat_energy": float(draws.of_energy.rhat[0]),
        "ess_xi": float(np.mean(draws.ess)),
        "ess_xi2": float(np.mean(draws.of_xi_square.ess_bulk)),
        "ess_energy": float(draws.of_energy.ess_bulk[0]),
        "acceptance": float(draws.acceptance.mean()),  # type: ignore[union-attr]
        "divergences": int(draws.divergences.sum()),  # type: ignore[union-attr]
    }


def distances_during_warmup(draws: Draws, scorer: Scorer, digit: int) -> dict[str, list[Any]]:
    """Frechet distance of all samples of a chain up to an iteration, (chains, points)."""
    assert draws.warmup is not None
    chains, iterations = draws.warmup.shape[:2]
    images = draws.posterior.decode(draws.warmup).flatten(0, 1)
    found = features(scorer.judge, images).reshape(chains, iterations, -1)
    least = found.shape[2] + 1
    at = sorted({int(t) for t in np.linspace(least, iterations, 8)}) if iterations >= least else []
    curves = [[frechet_distance(chain[:t], scorer.real[digit]) for t in at] for chain in found]
    return {"iterations": at, "distance": curves}


def answer_by_mean_field(posterior: LatentPosterior, settings: Settings, seed: int) -> Draws:
    method = MeanField(pairs=settings.pairs, optimizer="advi", iterations=settings.mean_field_iterations, eta=1.0)
    return method.run(posterior, settings.samples, seed=seed)


def answer_by_mgvi(posterior: LatentPosterior, settings: Settings, seed: int) -> Draws:
    """In three powers, each from where the last one settled; the last one gives the draws."""
    start: Tensor | None = None
    for power in (0.01, 0.1):
        easier = MGVI(pairs=settings.pairs, rounds=2, newton=5)
        start = easier.run(posterior.with_power(power), seed=seed, start=start).xi[0].mean(0)
    return MGVI(pairs=settings.pairs, rounds=settings.mgvi_rounds, newton=10).run(
        posterior, settings.samples, seed=seed, start=start
    )


VARIATIONAL: dict[str, Callable[[LatentPosterior, Settings, int], Draws]] = {
    "mean_field": answer_by_mean_field,
    "mgvi": answer_by_mgvi,
}


def answer_variational(
    name: str, prior: PriorModule, asked: nn.Module, scorer: Scorer, settings: Settings, digit: int,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """One digit by a variational method."""
    posterior = LatentPosterior(prior, Categorical(asked, digit, power=settings.power))
    draws = VARIATIONAL[name](posterior, settings, stream_seed(name, digit) % 2**31)
    images = posterior.decode(draws.flat)
    row = scorer.score(images, digit) | {"khat": draws.khat}
    say(f"{name}: digit {digit}, {_in_words(row)}")
    return {"row": row, "picture": thumbnails(images), "solving_seconds": draws.seconds, "flags": list(draws.flags)}


def _in_words(row: dict[str, float]) -> str:
    return (
        f"accuracy {row['accuracy_model']:.3f}, by the judge {row['accuracy_judge']:.3f}, distance {row['frechet']:.1f}"
    )


def score_conditional(modules: DigitModules, settings: Settings, scorer: Scorer) -> dict[str, Any]:
    """The conditional GAN, which needs no inference."""
    began, rows, pictures = time.perf_counter(), {}, {}
    for digit in settings.digits:
        generator = torch.Generator().manual_seed(stream_seed("conditional", digit))
        images = modules.conditional.sample(settings.samples, generator, digit)
        rows[str(digit)] = scorer.score(images, digit)
        pictures[str(digit)] = thumbnails(images)
    return {"rows": rows, "pictures": pictures, "solving_seconds": time.perf_counter() - began}


def score_test_images(modules: DigitModules, settings: Settings, scorer: Scorer) -> dict[str, Any]:
    """Real images that nothing was trained on: what a perfect generator would score."""
    test = modules.data.test
    assert test.y is not None
    images, rows, pictures = network_input(test.x, modules.data), {}, {}
    for digit in settings.digits:
        own = images[test.y == digit]
        rows[str(digit)] = scorer.score(own, digit)
        pictures[str(digit)] = thumbnails(own)
    return {"rows": rows, "pictures": pictures, "solving_seconds": 0.0}


# -- all of it --------------------------------------------------------------------------------------------------------


def run(settings: Settings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Train what is missing, answer for every digit by every method, write tables, figures and README; the summary."""
    from autovae.reproductions.conditional_digits_report import write_report

    modules = DigitModules.of(settings.data, settings.gan, data_dir, notebook.say, conditional=settings.conditional)
    asked, judge = modules.network("digit").to(device), modules.judge().to(device)
    scorer = Scorer(asked, judge, {digit: features(judge, modules.images_of(digit)) for digit in settings.digits})
    found = {
        ("", "test images"): notebook.once("test_images", score_test_images, modules, settings, scorer),
        ("", "cwgan"): {},
    }
    for name in settings.priors:
        prior = PRIORS[name](settings, modules, notebook, device)
        found[name, "hmc"] = notebook.once(f"{name}_hmc", answer_by_hmc, prior, asked, scorer, settings, notebook.say)
        for method in [method for method in VARIATIONAL if method in settings.methods]:
            parts = {
                str(digit): notebook.once(
                    f"{name}_{method}_{digit}", answer_variational, method, prior, asked, scorer, settings, digit,
                    notebook.say,
                )
                for digit in settings.digits
            }  # fmt: skip
            found[name, method] = {
                "rows": {digit: part["row"] for digit, part in parts.items()},
                "pictures": {digit: part["picture"] for digit, part in parts.items()},
                "solving_seconds": sum(part["solving_seconds"] for part in parts.values()),
            }
    if "cwgan" in settings.methods:
        found["", "cwgan"] = notebook.once("cwgan", score_conditional, modules, settings, scorer)
    return write_report(settings, {key: one for key, one in found.items() if one}, modules, notebook)

r"""Questions about single digits answered and scored: HMC, mean field, MGVI, a conditional GAN, real images.

    p(xi | y) ~ p_y(G(xi))^alpha N(xi; 0, I)

Every function returns plain values: scores of a digit, diagnostics, small pictures, seconds and the machine.
HMC runs the chains of all digits in one tensor: they share only step size and mass, learnt from all of them.
Not here: the priors (`conditional_digits`), tables and figures (`conditional_digits_report`).
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autovae.data.batches import network_input
from autovae.export.folders import machine
from autovae.export.prior import PriorModule
from autovae.metrics.frechet import frechet_distance
from autovae.reasoning.constraints import Categorical, Constraint, Feature, Scene
from autovae.reasoning.draws import Draws
from autovae.reasoning.hmc import HMC
from autovae.reasoning.mean_field import MeanField
from autovae.reasoning.mgvi import MGVI
from autovae.reasoning.posterior import LatentPosterior
from autovae.reproductions.digit_modules import DigitModules
from autovae.reproductions.settings import ConditionalSettings
from autovae.seeds import stream_seed

__all__ = ["LabelOfRow", "Scorer", "VARIATIONAL"]

SHOWN = 10  # draws in the picture of a digit


class LabelOfRow(Constraint):
    """Row i of a batch has the class labels[i mod len(labels)]: chains of several questions in one tensor."""

    def __init__(self, net: Feature, labels: Sequence[int], power: float = 1.0) -> None:
        self._settle(power, None, net)
        self.net, self.labels = net, torch.tensor(list(labels))
        self._columns: dict[tuple[int, torch.device], Tensor] = {}

    def log_likelihood(self, scene: Scene) -> Tensor:
        log_probs = scene.log_probs(self.net)
        return log_probs.gather(1, self._column(len(log_probs), log_probs.device))[:, 0]

    def _column(self, rows: int, device: torch.device) -> Tensor:
        """The labels of so many rows, (rows, 1); made once, since a CUDA graph cannot fetch them from the host."""
        if (rows, device) not in self._columns:
            self._columns[rows, device] = self.labels[torch.arange(rows) % len(self.labels), None].to(device)
        return self._columns[rows, device]

    @property
    def log_bound(self) -> float:
        return 0.0


@dataclasses.dataclass(frozen=True)
class Scorer:
    """The networks that read the answers, and the training images in the judge's features."""

    asked: nn.Module
    judge: nn.Module
    real: dict[int, Tensor]
    inception: Callable[[Tensor], Tensor] | None = None
    """Features of Inception-v3 at images (n, H, W), if its weights are given."""
    real_inception: dict[int, Tensor] = dataclasses.field(default_factory=dict)

    def cpu(self) -> Scorer:
        """The same on the processor; the networks are moved."""
        return dataclasses.replace(self, asked=self.asked.cpu(), judge=self.judge.cpu())

    def only(self, digit: int) -> Scorer:
        """The same with the training images of one digit."""
        seen = {digit: self.real_inception[digit]} if self.real_inception else {}
        return dataclasses.replace(self, real={digit: self.real[digit]}, real_inception=seen)

    def refuse_few(self, samples: int) -> None:
        """Raise `ValueError` if a Frechet distance needs more samples of a digit."""
        for real in (self.real, self.real_inception):
            for found in list(real.values())[:1]:
                if samples <= found.shape[1]:
                    raise ValueError(
                        f"got {samples} samples of a digit for a Frechet distance of {found.shape[1]} features; expected "
                        "more samples than features: raise samples (and the chains' draws)"
                    )

    def score(self, images: Tensor, digit: int) -> dict[str, float]:
        """Accuracies and Frechet distance of images (n, H, W) that should show the digit."""
        asked, judged = (in_parts(net, images, net).argmax(1) for net in (self.asked, self.judge))
        scores = {
            "accuracy_model": float((asked == digit).double().mean()),
            "accuracy_judge": float((judged == digit).double().mean()),
            "frechet": frechet_distance(features(self.judge, images), self.real[digit]),
        }
        if self.inception is not None and len(images) > self.real_inception[digit].shape[1]:
            scores["fid"] = frechet_distance(self.inception(images.cpu()), self.real_inception[digit])
        return scores


def scorer_of(modules: DigitModules, digits: Sequence[int], device: torch.device | str) -> Scorer:
    """The digit classifier, the judge, and the features of the training images of these digits."""
    asked, judge = modules.network("digit").to(device), modules.judge().to(device)
    return Scorer(asked, judge, {digit: features(judge, modules.images_of(digit)) for digit in digits})


def features(judge: nn.Module, images: Tensor) -> Tensor:
    """The judge's last hidden layer at images (n, H, W)."""
    return in_parts(judge.features, images, judge)  # type: ignore[arg-type]


def in_parts(f: Callable[[Tensor], Tensor], images: Tensor, net: nn.Module) -> Tensor:
    """f of flat images, a thousand at a time on the network's device; values on the CPU."""
    place = next((parameter.device for parameter in net.parameters()), images.device)
    with torch.no_grad():
        return torch.cat([f(part.to(place)).cpu() for part in images.flatten(1).split(1000)])


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
    prior: PriorModule,
    scorer: Scorer,
    plan: ConditionalSettings,
    say: Callable[[str], None],
    each: Callable[..., Any] = map,
) -> dict[str, Any]:
    """All digits by HMC in one tensor: scores, diagnostics, pictures, distances during warm-up.

    `each` is `map`, or a process pool's: summarising 80,000 draws of a digit takes a minute.
    """
    hmc, count, device = plan.hmc, len(plan.digits), prior.device
    together = LatentPosterior(prior, LabelOfRow(scorer.asked, plan.digits, power=plan.power))
    method = HMC(
        chains=hmc.chains * count, trajectory="fixed", steps=hmc.steps, target=hmc.target, keep_warmup=True,
        graph=device.type == "cuda",
    )  # fmt: skip
    seed = stream_seed("digits") % 2**31
    start: Tensor | None = None
    before: list[Tensor] = []
    seconds = 0.0
    for power in hmc.ladder:
        settled = method.run(together.with_power(power / plan.power), 1, warmup=hmc.burn_in, seed=seed, start=start)
        start, seconds = settled.xi[:, -1], seconds + settled.seconds
        before.append(settled.warmup)  # type: ignore[arg-type]
        say(f"HMC: power {power:g}, {settled.seconds:.0f} s")
    found = method.run(together, hmc.draws, warmup=hmc.warmup, seed=seed, start=start)
    assert found.warmup is not None
    found = dataclasses.replace(found, warmup=torch.cat([*before, found.warmup], 1), seconds=found.seconds + seconds)
    say(f"HMC: acceptance {float(found.acceptance.mean()):.2f}, {found.seconds:.0f} s")  # type: ignore[union-attr]
    # the rest runs on the CPU, possibly in other processes
    prior, scorer = copy.deepcopy(prior).cpu(), copy.deepcopy(scorer).cpu()
    parts = [_draws_of(found, prior, scorer, plan, place) for place in range(count)]
    scorers = [scorer.only(digit) for digit in plan.digits]
    told = list(each(_said_of_draws, parts, scorers, [plan] * count, plan.digits))
    digits = [str(digit) for digit in plan.digits]
    rows, pictures, early = (dict(zip(digits, column, strict=True)) for column in zip(*told, strict=True))
    for digit, row in rows.items():
        say(f"HMC: digit {digit}, {_in_words(row)}")
    cost = {
        "solving_seconds": found.seconds,
        "leapfrogs": found.info["leapfrogs"],
        "step_size": found.info["step_size"],
        "machine": machine(device),
        "flags": list(found.flags),
    }
    return {"rows": rows, "pictures": pictures, "warmup": early, **cost}


def _draws_of(found: Draws, prior: PriorModule, scorer: Scorer, plan: ConditionalSettings, place: int) -> Draws:
    """The chains of the digit at this place, on the CPU, with their own posterior."""
    own = slice(place, None, len(plan.digits))
    posterior = LatentPosterior(prior, Categorical(scorer.asked, plan.digits[place], power=plan.power))
    names = ("xi", "log_prob", "acceptance", "divergences", "hamiltonian", "warmup")
    return dataclasses.replace(found, posterior=posterior, **{name: getattr(found, name)[own].cpu() for name in names})


def _said_of_draws(
    own: Draws, scorer: Scorer, plan: ConditionalSettings, digit: int
) -> tuple[dict[str, float], Any, Any]:
    """(scores and diagnostics, pictures, distances during warm-up) of the chains of one digit."""
    images = own.posterior.decode(thinned(own.flat, plan.samples))
    return scorer.score(images, digit) | diagnosis(own), thumbnails(images), distances_during_warmup(own, scorer, digit)


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


def answer_by_mean_field(posterior: LatentPosterior, plan: ConditionalSettings, seed: int) -> Draws:
    method = MeanField(pairs=plan.pairs, optimizer="advi", iterations=plan.mean_field_iterations, eta=1.0)
    return method.run(posterior, plan.samples, seed=seed)


def answer_by_mgvi(posterior: LatentPosterior, plan: ConditionalSettings, seed: int) -> Draws:
    """Three powers, each starting from the last result; the last one gives the draws."""
    start: Tensor | None = None
    for power in (0.01, 0.1):
        easier = MGVI(pairs=plan.pairs, rounds=2, newton=5)
        start = easier.run(posterior.with_power(power), seed=seed, start=start).xi[0].mean(0)
    last = MGVI(pairs=plan.pairs, rounds=plan.mgvi_rounds, newton=10)
    return last.run(posterior, plan.samples, seed=seed, start=start)


VARIATIONAL: dict[str, Callable[[LatentPosterior, ConditionalSettings, int], Draws]] = {
    "mean_field": answer_by_mean_field,
    "mgvi": answer_by_mgvi,
}


def answer_variational(
    name: str, prior: PriorModule, scorer: Scorer, plan: ConditionalSettings, digit: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """One digit by a variational method."""
    posterior = LatentPosterior(prior, Categorical(scorer.asked, digit, power=plan.power))
    draws = VARIATIONAL[name](posterior, plan, stream_seed(name, digit) % 2**31)
    images = posterior.decode(draws.flat)
    row = scorer.score(images, digit) | {"khat": draws.khat}
    say(f"{name}: digit {digit}, {_in_words(row)}")
    cost = {"solving_seconds": draws.seconds, "machine": machine(prior.device), "flags": list(draws.flags)}
    return {"row": row, "picture": thumbnails(images), **cost}


def _in_words(row: dict[str, float]) -> str:
    return (
        f"accuracy {row['accuracy_model']:.3f}, by the judge {row['accuracy_judge']:.3f}, distance {row['frechet']:.1f}"
    )


def score_conditional(modules: DigitModules, plan: ConditionalSettings, scorer: Scorer) -> dict[str, Any]:
    """The conditional GAN, which needs no inference."""
    conditional = modules.conditional  # trained before the clock starts
    began, rows, pictures = time.perf_counter(), {}, {}
    for digit in plan.digits:
        generator = torch.Generator().manual_seed(stream_seed("conditional", digit))
        images = conditional.sample(plan.samples, generator, digit)
        rows[str(digit)] = scorer.score(images, digit)
        pictures[str(digit)] = thumbnails(images)
    return {"rows": rows, "pictures": pictures, "solving_seconds": time.perf_counter() - began}


def score_test_images(modules: DigitModules, plan: ConditionalSettings, scorer: Scorer) -> dict[str, Any]:
    """Unseen real images: what a perfect generator would score."""
    test = modules.data.test
    assert test.y is not None
    images, rows, pictures = network_input(test.x, modules.data), {}, {}
    for digit in plan.digits:
        own = images[test.y == digit]
        rows[str(digit)] = scorer.score(own, digit)
        pictures[str(digit)] = thumbnails(own)
    return {"rows": rows, "pictures": pictures, "solving_seconds": 0.0}

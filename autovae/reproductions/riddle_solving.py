r"""The riddle of three handwritten digits: five constraints, one prior three times, and how often 1-3-4 is found.

    x1, x2, x3 ~ one generator, 3 x 128 latents
    I    x1 is odd                        a classifier of odd digits
    II   x2 = x1 + 2                      a two-tensor contracted with digit probabilities
    III  x1 + x2 = x3                     a three-tensor contracted with digit probabilities
    IV   x3 is not a seven                the digit classifier
    V    x3 has no closed circle          a classifier of {0, 6, 8, 9}

Every constraint has the power alpha, which rises in stages: a low power explores, a high one settles. The paper's method
is a mean field by a non-stochastic optimiser with line search; Adam with fresh noise is better in a hundredth of the time
(`many_fits` has both). All seeds run in one tensor. A run is *solved* if at least half of its final draws show 1-3-4, read
by the classifiers of the question or, separately, by a judge trained on other images.

Beyond the paper: restarts judged by the ELBO, other ladders of powers, two digit networks in the question, Markov chains
with the same ladder, and two warnings that do not know the answer (`WARNINGS`).
References: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.2, figures 3 to 5.
Not here: the optimiser (`many_fits`), the experiments (`settings.RiddlePlan`), page and figures (`riddle_report`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autovae.export.folders import machine
from autovae.export.prior import PriorModule
from autovae.model.classifiers import CLOSED
from autovae.reasoning.constraints import Categorical, Constraint, Scene
from autovae.reasoning.hmc import HMC
from autovae.reasoning.logic import Not, Relation, truth_table
from autovae.reasoning.posterior import LatentPosterior
from autovae.reproductions.digit_modules import DigitModules
from autovae.reproductions.many_fits import Evaluated, ManyFits, evaluate, kl
from autovae.reproductions.settings import RiddlePlan

__all__ = [
    "ANSWER",
    "CONSTRAINTS",
    "WARNINGS",
    "Networks",
    "TwoNetworks",
    "ask_riddle",
    "best_of",
    "step_name",
]

ANSWER = (1, 3, 4)
PAPER_SOLVED, PAPER_SECONDS = 0.88, 2400  # of 100 seeds; a run
SHOWN = 8  # failures that are drawn
RESTARTS = (1, 2, 3, 5, 10)
Run = dict[str, Any]  # one seed: objective, shares, what its draws read, warnings


@dataclass(frozen=True)
class Networks:
    """The classifiers of the question."""

    digit: nn.Module
    odd: nn.Module
    closed_circle: nn.Module


class TwoNetworks(nn.Module):
    """Two classifiers as one: the mean of their log probabilities, so that both must agree."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x).log_softmax(-1) for network in self.networks]).mean(0)


CONSTRAINTS: dict[str, Callable[[Networks], Constraint]] = {
    "I": lambda nets: Categorical(nets.odd, 1, object=0),
    "II": lambda nets: Relation("i,j->", truth_table(lambda i, j: j == i + 2, (10, 10)), nets.digit),
    "III": lambda nets: Relation("i,j,k->", truth_table(lambda i, j, k: i + j == k, (10, 10, 10)), nets.digit),
    "IV": lambda nets: Not(_is_digit(nets.digit, 7)),
    "V": lambda nets: Categorical(nets.closed_circle, 0, object=2),
}


def _is_digit(net: nn.Module, y: int) -> Constraint:
    return Categorical(net, y, object=2)


def holds(digits: Tensor) -> Tensor:
    """Whether triples (.., 3) satisfy all five constraints as digits."""
    first, second, third = digits.unbind(-1)
    closed = torch.isin(third, torch.tensor(CLOSED, device=digits.device))
    return (first % 2 == 1) & (second == first + 2) & (third == first + second) & (third != 7) & ~closed


def question(prior: PriorModule, nets: Networks, without: tuple[str, ...] = ()) -> LatentPosterior:
    """The riddle asked of three objects of a prior; `without` names constraints to leave out."""
    return LatentPosterior(
        prior.replicate(3), [make(nets) for name, make in CONSTRAINTS.items() if name not in without]
    )


def watched(nets: Networks) -> Callable[[Scene], Tensor]:
    """(batch, 4): the probability that the digits are 1-3-4, and the three most probable digits."""

    def watch(scene: Scene) -> Tensor:
        log_probs = [scene.log_probs(nets.digit, place) for place in range(3)]
        log_answer = torch.stack([lp[:, digit] for lp, digit in zip(log_probs, ANSWER, strict=True)]).sum(0)
        return torch.stack([log_answer.exp(), *(lp.argmax(1).to(lp) for lp in log_probs)], 1)

    return watch


class Curves:
    """The curves of figure 4: means over seeds at every iteration."""

    def __init__(self, seeds: int, final_power: float) -> None:
        self.final_power = final_power
        self.any = torch.zeros(seeds, dtype=torch.bool)
        self.only = torch.zeros(seeds, dtype=torch.bool)
        self.rows: list[dict[str, float]] = []

    def record(self, found: Evaluated, divergence: Tensor) -> None:
        seeds = len(divergence)
        terms = found.terms.reshape(seeds, -1, found.terms.shape[1])
        seen = found.watched.reshape(seeds, -1, 4).cpu()
        right = (seen[..., 1:].round().long() == torch.tensor(ANSWER)).all(-1)
        self.any |= right.any(1)
        self.only |= right.all(1)
        self.rows.append(
            {
                "elbo": float((self.final_power * terms.sum(-1).mean(1) - divergence).mean()),
                "accuracy": float(seen[..., 0].mean()),
                "score": float(terms.exp().mean()),
                "only": float(self.only.double().mean()),
                "any": float(self.any.double().mean()),
            }
        )


def solve_by_mean_field(
    posterior: LatentPosterior, nets: Networks, plan: RiddlePlan, say: Callable[[str], None]
) -> tuple[Tensor, list[float], dict[str, Any]]:
    """(xi (seeds, draws, dim), ELBO at the last power of every seed, curves and costs)."""
    seeds = plan.seeds
    fits = ManyFits(posterior, list(range(seeds)), plan.pairs, watched(nets))
    curves = Curves(seeds, plan.powers[-1])
    changes = []
    for power, iterations in zip(plan.powers, plan.steps, strict=True):
        changes.append(len(curves.rows))
        began = time.perf_counter()
        fits.stage(power, iterations, curves.record, plan.optimizer)
        say(f"{plan.name}: power {power:g}, accuracy {curves.rows[-1]['accuracy']:.3f}, "
            f"ELBO {curves.rows[-1]['elbo']:.1f}, {time.perf_counter() - began:.0f} s")  # fmt: skip
    xi = fits.draws(plan.draws)
    fresh = evaluate(posterior, xi.flatten(0, 1), watched(nets))
    elbo = plan.powers[-1] * fresh.terms.sum(1).reshape(seeds, -1).mean(1) - kl(fits.mean, fits.log_std)
    found = {"curves": curves.rows, "changes": changes, "evaluations": fits.evaluations}
    return xi, elbo.tolist(), found


def solve_by_chains(
    posterior: LatentPosterior, nets: Networks, plan: RiddlePlan, say: Callable[[str], None]
) -> tuple[Tensor, list[float], dict[str, Any]]:
    """A Markov chain of every seed through the same ladder of powers; the last power's draws are the answer."""
    seeds = plan.seeds
    method = HMC(chains=seeds, trajectory="fixed", steps=10, target=0.7)
    start: Tensor | None = None
    leapfrogs = 0
    for number, (power, iterations) in enumerate(zip(plan.powers, plan.steps, strict=True)):
        draws = method.run(
            posterior.with_power(power), plan.draws if number == len(plan.powers) - 1 else 1,
            warmup=iterations, seed=number, start=start,
        )  # fmt: skip
        start = draws.xi[:, -1]
        leapfrogs += draws.info["leapfrogs"]
        say(
            f"{plan.name}: power {power:g}, mean log posterior {float(draws.log_prob.mean()):.1f}, {draws.seconds:.0f} s"
        )
    return draws.xi, draws.log_prob.mean(1).tolist(), {"evaluations": leapfrogs * seeds}


METHODS = {"mean_field": solve_by_mean_field, "chains": solve_by_chains}


def own_contradiction(own: Tensor, judged: Tensor) -> Tensor:
    """The question's own digit network reads digits that break the rules, although its constraints are satisfied."""
    return (~holds(own)).double().mean(1) > 0.5


def judge_disagrees(own: Tensor, judged: Tensor) -> Tensor:
    """An independent network reads digits that break the rules."""
    return (~holds(judged)).double().mean(1) > 0.5


WARNINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "own digits break a rule": own_contradiction,
    "judge's digits break a rule": judge_disagrees,
}
"""From digits (seeds, draws, 3) by the question's network and by a judge: which seeds are doubtful."""


def read_digits(net: nn.Module, images: Tensor) -> Tensor:
    """The digit of every image (.., H, W)."""
    flat = images.reshape(-1, images.shape[-2] * images.shape[-1])
    with torch.no_grad():
        return torch.cat([net(part).argmax(1) for part in flat.split(1000)]).reshape(images.shape[:-2]).cpu()


def ask_riddle(plan: RiddlePlan, modules: DigitModules, device: torch.device) -> dict[str, Any]:
    """Run one experiment; plain values of every seed, curves, and pictures of one success and the failures."""
    judge, digit = modules.judge().to(device), modules.network("digit").to(device)
    asked: nn.Module = digit if plan.digit_networks == 1 else TwoNetworks(digit, modules.judge(1).to(device))
    nets = Networks(asked, modules.network("odd").to(device), modules.network("closed_circle").to(device))
    prior = modules.prior(device)
    modules.say(f"{plan.name}: {plan.seeds} seeds")
    began = time.perf_counter(), time.process_time()
    posterior = question(prior, nets, plan.without)
    xi, objective, found = METHODS[plan.method](posterior, nets, plan, modules.say)
    solving = {
        "solving_seconds": round(time.perf_counter() - began[0], 1),
        "solving_cpu_seconds": round(time.process_time() - began[1], 1),
        "machine": machine(device),
    }
    images = posterior.decode(xi)
    own, judged = read_digits(asked, images), read_digits(judge, images)
    answer = torch.tensor(ANSWER)
    seeds: list[Run] = [
        {
            "objective": objective[seed],
            "share": float((own[seed] == answer).all(1).double().mean()),
            "share_judge": float((judged[seed] == answer).all(1).double().mean()),
            "reads": _commonest(own[seed]),
            "judge_reads": _commonest(judged[seed]),
            **{name: bool(check(own[seed : seed + 1], judged[seed : seed + 1])) for name, check in WARNINGS.items()},
        }
        for seed in range(len(own))
    ]
    wrong = [seed for seed, row in enumerate(seeds) if not is_solved(row)]
    right = [seed for seed, row in enumerate(seeds) if is_solved(row)]
    shown = right[:1] + wrong[:SHOWN]
    pictures = {str(seed): (_mean_and_draws(images[seed]) * 255).round().byte().tolist() for seed in shown}
    return {**found, **solving, "runs": seeds, "pictures": pictures}


def _mean_and_draws(images: Tensor, count: int = 4) -> Tensor:
    """(1 + count, 3, H, W): the mean and some draws."""
    places = torch.linspace(0, len(images) - 1, count).long()
    return torch.cat([images.mean(0, keepdim=True), images[places]])


def _commonest(digits: Tensor) -> str:
    return Counter("-".join(map(str, triple)) for triple in digits.tolist()).most_common(1)[0][0]


def is_solved(run: Run) -> bool:
    """At least half of the draws read as the answer."""
    return float(run["share"]) >= 0.5


def best_of(runs: list[Run], count: int, trusted: Callable[[Run], bool] | None = None) -> float:
    """Probability that the run of highest objective among `count` of these, drawn without replacement, is solved.

    With `trusted`, the highest among the trusted ones, or of all where none is.
    """
    order = sorted(runs, key=lambda run: float(run["objective"]), reverse=True)
    if trusted is not None:
        order = [run for run in order if trusted(run)] + [run for run in order if not trusted(run)]
    n = len(order)
    if count > n:
        return math.nan
    shares: list[float] = [math.comb(n - 1 - i, count - 1) / math.comb(n, count) for i in range(n)]
    return sum(share for share, run in zip(shares, order, strict=True) if is_solved(run))


def step_name(name: str) -> str:
    """The name of an experiment as that of a file."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)

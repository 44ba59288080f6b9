r"""The bound that training follows, as one object: its value, surrogate, formula, estimator and stack key.

| bound                   | spec                        | what is followed                                                |
|-------------------------|-----------------------------|-----------------------------------------------------------------|
| `ClosedFormELBO`        | alpha = 1                   | (1/K) sum_k log p(x given z_k) - beta D(q, p), D in closed form |
| `Renyi`                 | alpha != 1, learned beliefs | 1 / (1 - alpha) log (1/K) sum_k w_k^(1 - alpha)                 |
| `MIWAE` `CIWAE` `PIWAE` | bound = "miwae", ...        | M groups of K samples, see `model.bounds`                       |

with w = p(x|z) p(z) / q(z|x) by samples. With a learned prior or posterior the ELBO has no closed form and is `Renyi` at
alpha = 1. A sampled bound gives its value and, for the doubly reparameterised estimator, what each sample's log weight
counts for the model's parameters and for the path through z; `model.estimators` follows them.

To add one: subclass `SampledBound`, write `value`, `weights` and `formula`, add a row to `autovae.registry.BOUNDS`. The
contract tests pick it up from the table.
Not here: the bounds as functions of weights (`model.bounds`), the step (`trainer`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae import registry
from autovae.data.minibatches import Minibatch
from autovae.model.bounds import ciwae, miwae, piwae, vr
from autovae.model.estimators import check_estimator, default_estimator, follow
from autovae.model.vae import VAEStack
from autovae.registry import Resolved
from autovae.spec import VAESpec

__all__ = [
    "BOUNDS",
    "CIWAE",
    "MIWAE",
    "PIWAE",
    "Bound",
    "ClosedFormELBO",
    "Formula",
    "Renyi",
    "SampledBound",
    "Terms",
    "bound_of",
]


BOUNDS: Mapping[str, type[SampledBound]] = Resolved(registry.BOUNDS)


@dataclass(frozen=True)
class Terms:
    """All (P, B): `surrogate` has the gradient to follow, `value` the bound; the rest are detached, for the history."""

    surrogate: Tensor
    value: Tensor
    log_likelihood: Tensor
    divergence: Tensor


@dataclass(frozen=True)
class Formula:
    """LaTeX for a page, plain text for a screen reader, and what its own letters are."""

    latex: str
    text: str
    letters: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Bound(ABC):
    """Frozen and hashable: members whose bounds are equal may be stacked, so the object is its own stack key."""

    estimator: str

    @abstractmethod
    def terms(self, stack: VAEStack, batch: Minibatch, xi: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
        """At each point, from standard normal noise xi (P, M K, B, D); alpha and beta (P, 1)."""

    @abstractmethod
    def formula(self, spec: VAESpec) -> Formula:
        """What is maximised, with the spec's numbers in it."""


@dataclass(frozen=True)
class ClosedFormELBO(Bound):
    """The ELBO, or with another regulariser than the KL the objective of generalised variational inference."""

    estimator: str = "pathwise"
    regulariser: str = "kl"
    order: float = 0.5

    def terms(self, stack: VAEStack, batch: Minibatch, xi: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
        loc, scale = stack.encode(batch.inputs)
        z, _ = stack.latents(loc, scale, xi)
        divergence = stack.divergence(loc, scale, self.regulariser, self.order)
        mean = stack.log_followed(stack.decode(z, xi.shape[1]), batch).mean(1)
        value = torch.addcmul(mean, beta, divergence, value=-1)
        return Terms(value, value.detach(), mean.detach(), divergence.detach())

    def formula(self, spec: VAESpec) -> Formula:
        name, plain = {
            "kl": (r"\mathrm{KL}", "KL"),
            "renyi": (rf"D_{{{self.order:g}}}", f"D_{self.order:g}"),
            "jeffreys": ("J", "J"),
        }[self.regulariser]
        weight, dims = f"{spec.beta:g}", spec.latent_dim
        latex = (
            rf"{_mean('k', spec.samples)} \log {_GIVEN.format(k='k')} - {weight} \cdot "
            rf"\sum_{{i=1}}^{{{dims}}} {name}(q_i \Vert p_i)"
        )
        mean = "" if spec.samples == 1 else f"(1/{spec.samples}) Σ_k "
        text = f"{mean}log p(x|z_k) − {weight} Σ_i {plain}(q_i ‖ p_i), i = 1..{dims}"
        return Formula(latex, text, [("β", f"{weight}, the weight of the divergence")])


@dataclass(frozen=True)
class SampledBound(Bound):
    """A bound by samples: a function of log weights (M, K, *batch), M groups of K samples."""

    @classmethod
    def of(cls, spec: VAESpec, estimator: str) -> SampledBound:
        """The bound with what it takes from the spec."""
        return cls(estimator)

    @abstractmethod
    def value(self, log_weights: Tensor, alpha: float | Tensor) -> Tensor:
        """The bound, (*batch); alpha broadcasts against it."""

    def encoder_value(self, log_weights: Tensor, alpha: float | Tensor) -> Tensor:
        """What the encoder's gradient follows, where that is another bound than the model's."""
        return self.value(log_weights, alpha)

    @abstractmethod
    def weights(self, log_weights: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
        """What d log w counts in the doubly reparameterised gradient, (M, K, *batch) each: of the model's parameters,
        whose weights sum to one, and of all that goes through z."""

    def surrogate(self, log_weights: Tensor, z: Tensor, alpha: float | Tensor) -> Tensor:
        """The bound with the gradient to follow. Unless the estimator is "pathwise", log w holds log q with its
        parameters stopped, and z (M, K, *batch, D) is what it was computed from."""
        if self.estimator == "pathwise":
            return self.value(log_weights, alpha)
        fixed = log_weights.detach()
        return follow(self.value(fixed, alpha), log_weights, *self.weights(fixed, alpha), z)

    def terms(self, stack: VAEStack, batch: Minibatch, xi: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
        spec, (members, samples, points, _) = stack.specs[0], xi.shape
        loc, scale = stack.encode(batch.inputs)
        drawn, eps = stack.latents(loc, scale, xi)
        # The decoder's z comes from `z`, samples first, and so does every gradient on its way back.
        z = drawn.reshape(xi.shape).transpose(0, 1).unflatten(0, (spec.groups, spec.samples))  # (M, K, P, B, D)
        flat = z.flatten(0, 1).transpose(0, 1).reshape(drawn.shape)

        def samples_first(t: Tensor) -> Tensor:
            return t.reshape(members, samples, points).transpose(0, 1).unflatten(0, (spec.groups, spec.samples))

        loc, scale = stack.repeat(loc, samples), stack.repeat(scale, samples)
        log_likelihood = samples_first(stack.log_followed(stack.decode(flat, samples), batch))
        log_prior = samples_first(stack.log_prior(flat))
        log_q = samples_first(stack.log_posterior(eps, loc, scale))
        divergence = (log_q - log_prior).detach().mean((0, 1))
        if self.estimator != "pathwise":
            log_q = samples_first(stack.log_posterior_at(flat, loc, scale, stopped=True))
        followed = self.surrogate(log_likelihood + beta * (log_prior - log_q), z, alpha)
        return Terms(followed, followed.detach(), log_likelihood.detach().mean((0, 1)), divergence)


@dataclass(frozen=True)
class Renyi(SampledBound):
    """The variational Renyi bound: importance-weighted at alpha = 0, the ELBO by samples at alpha = 1."""

    def value(self, log_weights: Tensor, alpha: float | Tensor) -> Tensor:
        return vr(log_weights.flatten(0, 1), alpha)

    def weights(self, log_weights: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
        v = _softmax((1 - alpha) * log_weights)
        return v, (alpha + (1 - alpha) * v) * v

    def formula(self, spec: VAESpec) -> Formula:
        alpha, count, mean, weight = spec.alpha, spec.samples, _mean("k", spec.samples), _WEIGHT.format(k="k")
        ratio = "w = p(x|z) p(z) / q(z|x)"
        if alpha == 1:
            text = f"(1/{count}) Σ_k log w_k, {ratio}"
            return Formula(rf"{mean} \log {weight}", text, [("α", "1, the ELBO by samples")])
        if alpha == 0:
            text = f"log (1/{count}) Σ_k w_k, {ratio}: the importance-weighted bound"
            latex = rf"\log \left[ {mean} {weight} \right]"
            return Formula(latex, text, [("α", "0, the importance-weighted bound")])
        if math.isinf(alpha):
            which, word = ("min", "smallest") if alpha > 0 else ("max", "largest")
            latex = rf"\{which}_k \; \log {weight}"
            return Formula(latex, f"{which}_k log w_k, {ratio}", [("α", f"{alpha}, the {word} weight")])
        order = f"{round(1 - alpha, 10):g}"
        latex = rf"\frac{{1}}{{{order}}} \log \left[ {mean} \left( {weight} \right)^{{{order}}} \right]"
        text = f"1/(1 − {alpha:g}) log (1/{count}) Σ_k w_k^(1 − {alpha:g}), {ratio}"
        return Formula(latex, text, [("α", f"{alpha:g}, the order of the variational Rényi bound")])


@dataclass(frozen=True)
class MIWAE(SampledBound):
    """The mean over M groups of the importance-weighted bound of K samples."""

    def value(self, log_weights: Tensor, alpha: float | Tensor) -> Tensor:
        return miwae(log_weights)

    def weights(self, log_weights: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
        v = torch.softmax(log_weights, 1)
        return v / len(v), v.square() / len(v)

    def formula(self, spec: VAESpec) -> Formula:
        text = f"(1/{spec.groups}) Σ_m log (1/{spec.samples}) Σ_k w_mk"
        return Formula(_grouped(spec), text, _groups(spec))


@dataclass(frozen=True)
class CIWAE(SampledBound):
    """mix ELBO + (1 - mix) IWAE of the same samples."""

    mix: float = 0.5

    @classmethod
    def of(cls, spec: VAESpec, estimator: str) -> SampledBound:
        return cls(estimator, spec.mix)

    def value(self, log_weights: Tensor, alpha: float | Tensor) -> Tensor:
        return ciwae(log_weights, self.mix)

    def weights(self, log_weights: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
        groups, samples = log_weights.shape[:2]
        v = torch.softmax(log_weights, 1)
        model, path = ((self.mix / samples + (1 - self.mix) * part) / groups for part in (v, v.square()))
        return model, path

    def formula(self, spec: VAESpec) -> Formula:
        mean = f"{_mean('m', spec.groups)} {_mean('k', spec.samples)}"
        latex = rf"{self.mix:g} \cdot {mean} \log {_WEIGHT.format(k='mk')} + {1 - self.mix:g} \cdot {_grouped(spec)}"
        text = f"{self.mix:g} ELBO + {1 - self.mix:g} IWAE of {spec.groups} x {spec.samples} samples"
        return Formula(latex, text, _groups(spec))


@dataclass(frozen=True)
class PIWAE(SampledBound):
    """MIWAE for the encoder, the importance-weighted bound of all M K samples for the decoder, whose value is given."""

    def value(self, log_weights: Tensor, alpha: float | Tensor) -> Tensor:
        return piwae(log_weights)[1]

    def encoder_value(self, log_weights: Tensor, alpha: float | Tensor) -> Tensor:
        return piwae(log_weights)[0]

    def weights(self, log_weights: Tensor, alpha: float | Tensor) -> tuple[Tensor, Tensor]:
        return _softmax(log_weights), torch.softmax(log_weights, 1).square() / len(log_weights)

    def formula(self, spec: VAESpec) -> Formula:
        groups, count = spec.groups, spec.samples
        text = (
            f"encoder: (1/{groups}) Σ_m log (1/{count}) Σ_k w_mk; decoder: log (1/{groups * count}) Σ_mk w_mk "
            "(shown: the encoder's)"
        )
        return Formula(_grouped(spec), text, _groups(spec))


def bound_of(spec: VAESpec) -> Bound:
    """The bound that this spec is trained by, with its own estimator or the right one for its families and alpha.

    Raises `ValueError` where the spec names an estimator whose mean is wrong.
    """
    families, closed = [q for q, _ in spec.pairs], not spec.learned_prior and not spec.posterior_flow
    estimator = spec.estimator or default_estimator(families, spec.alpha, closed)
    if spec.estimator is not None:
        check_estimator(spec.estimator, families, spec.alpha)
    if not registry.BOUNDS[spec.bound].grouped and spec.alpha == 1 and closed and estimator == "pathwise":
        return ClosedFormELBO(estimator, spec.regulariser, spec.regulariser_order)
    return BOUNDS[spec.bound].of(spec, estimator)


def _softmax(log_weights: Tensor) -> Tensor:
    """Over groups and samples, (M, K, *batch)."""
    return torch.softmax(log_weights.flatten(0, 1), 0).view_as(log_weights)


_GIVEN = r"p(x \mid z_{{{k}}})"
_WEIGHT = r"\frac{{p(x \mid z_{{{k}}}) \, p(z_{{{k}}})}}{{q(z_{{{k}}} \mid x)}}"


def _mean(index: str, count: int) -> str:
    """(1/n) sum over the index, or nothing where n is 1."""
    return "" if count == 1 else rf"\frac{{1}}{{{count}}} \sum_{{{index}=1}}^{{{count}}}"


def _grouped(spec: VAESpec) -> str:
    return rf"{_mean('m', spec.groups)} \log \left[ {_mean('k', spec.samples)} {_WEIGHT.format(k='mk')} \right]"


def _groups(spec: VAESpec) -> list[tuple[str, str]]:
    return [("M", f"{spec.groups} groups of K samples")]

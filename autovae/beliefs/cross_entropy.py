r"""Cross-entropies: from the energy E U_p, by closed form or quadrature, to a divergence with a gradient.

With -log p(z) = C_p + U_p(z) and h the entropy of the standard posterior law X,

    KL(q || p) = -h - log sigma + C_p + E U_p(mu + sigma X).

Some priors share an energy: a student_t one of nu is (nu + 1) / 2 times the cauchy one at (mu, sigma) / sqrt(nu), the
hypsecant one half the logistic one at 2 (mu, sigma). RESCALED holds these factors.

Differentiating a rule of n nodes by autograd stores several (n, *shape) tensors and passes over them again; but d/dmu and
d/dsigma act only on the integrand, so one pass over the nodes gives them too. `from_rule` turns such a triple (value,
d/dmu, d/dsigma) into a differentiable function. Second derivatives work: under create_graph the backward pass evaluates
the triple's derivatives as ordinary expressions.

Not here: the energies themselves, see `elementary`, `kl_special` and `quadrature`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autovae.beliefs.families import FAMILIES

__all__ = [
    "Divergence",
    "Rule",
    "Three",
    "constant",
    "from_energy",
    "from_rule",
    "from_value",
]

Three = tuple[Tensor, Tensor, Tensor]  # value, d/dmu, d/dsigma
Rule = Callable[[Tensor, Tensor, bool], Three]  # (mu, sigma, fine) -> energy; not fine: for float32, about 1e-7
Divergence = Callable[[Tensor, Tensor, Tensor], Tensor]  # (mu, sigma, log sigma) -> KL

ENERGY_AT_ZERO = {"logistic": 2 * math.log(2), "hypsecant": math.log(2), "gumbel": 1.0}  # U_p(0), where it is not 0
RESCALED = {  # prior: (inner, outer) with U_p(z) = outer U(inner z)
    "student_t3": (1 / math.sqrt(3), 2.0),
    "student_t5": (1 / math.sqrt(5), 3.0),
    "hypsecant": (2.0, 0.5),
}


def constant(posterior: str, prior: str) -> float:
    """C_p - h, which is KL + log sigma - energy. C_p = -log p(0) - U_p(0)."""
    at_zero = float(FAMILIES[prior].log_prob(torch.zeros((), dtype=torch.float64)))
    return -at_zero - ENERGY_AT_ZERO.get(prior, 0.0) - FAMILIES[posterior].entropy


def from_value(posterior: str, prior: str, energy: Callable[[Tensor, Tensor], Tensor]) -> Divergence:
    """The divergence from an energy(mu, sigma) that autograd differentiates."""
    offset = constant(posterior, prior)
    inner, outer = RESCALED.get(prior, (1.0, 1.0))

    def divergence(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
        if inner == 1:
            return energy(mu, sigma) - r + offset
        return outer * energy(inner * mu, inner * sigma) - r + offset

    return divergence


def from_rule(posterior: str, prior: str, rule: Rule, fine: bool) -> Divergence:
    """The divergence from a rule that returns its own gradient."""
    inner, outer = RESCALED.get(prior, (1.0, 1.0))

    def energy(mu: Tensor, sigma: Tensor) -> Three:
        value, by_mu, by_sigma = rule(inner * mu, inner * sigma, fine)
        return outer * value, outer * inner * by_mu, outer * inner * by_sigma

    return from_energy(energy, None if posterior == prior else constant(posterior, prior))


def from_energy(energy: Callable[[Tensor, Tensor], Three], offset: float | None) -> Divergence:
    """The divergence from an energy that returns its own gradient; `offset` None makes it 0 at q = p."""
    if offset is None:
        # By the same rule, so its error cancels near q = p.
        offset = -float(energy(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))[0])

    def divergence(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
        mu, sigma = torch.broadcast_tensors(mu, sigma)
        if torch.compiler.is_compiling():  # which differentiates and fuses the value itself
            return energy(mu, sigma)[0] - r + offset
        return _WithGradient.apply(mu, sigma, energy)[0] - r + offset

    return divergence


class _WithGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(mu: Tensor, sigma: Tensor, energy: Callable[[Tensor, Tensor], Three]) -> Three:
        return energy(mu, sigma)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
        mu, sigma, ctx.energy = inputs
        _, by_mu, by_sigma = output
        ctx.mark_non_differentiable(by_mu, by_sigma)
        ctx.save_for_backward(mu, sigma, by_mu, by_sigma)
        ctx.save_for_forward(mu, sigma, by_mu, by_sigma)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        mu, sigma, by_mu, by_sigma = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the saved values are constants, so evaluate the derivatives again
            _, by_mu, by_sigma = ctx.energy(mu, sigma)
        return grads[0] * by_mu, grads[0] * by_sigma, None

    @staticmethod
    def jvp(ctx: Any, mu_dot: Tensor, sigma_dot: Tensor, _: None) -> tuple[Tensor, None, None]:
        _, _, by_mu, by_sigma = ctx.saved_tensors
        return mu_dot * by_mu + sigma_dot * by_sigma, None, None

r"""Regularisers of generalised variational inference: divergences that may replace KL(q || p) in the ELBO.

    objective = E_q log p(x|z) - beta D(q || p)

| regulariser | D                                         | what it does                                                |
|-------------|-------------------------------------------|-------------------------------------------------------------|
| kl          | KL(q, p)                                  | the ELBO: a bound of log p(x) for beta >= 1                 |
| renyi       | D_order(q, p), 0 < order < 1              | smaller than the KL: q may leave the prior at less cost     |
| jeffreys    | KL(q, p) + KL(p, q)                       | larger: q may neither miss the prior nor stray from it      |

With D <= KL (renyi) the objective may exceed log p(x); with D >= KL (jeffreys) it stays a lower bound. Models are compared
by scores, which do not depend on it.

Renyi divergences need a closed form (the pairs of `autovae.registry.RENYI`), since quadrature is too slow for training.
Orders above 1 are infinite in part of the parameter space (normal: scale^2 >= order / (order - 1)), which training would
enter. Jeffreys needs both directions finite everywhere. Values are not checked: nothing is read back from the device, so
a step can be captured in a CUDA graph.

To add one: a function of (order, posterior, prior, loc, scale) -> elementwise D, and its row in
`autovae.registry.REGULARISERS`.
Reference: Knoblauch, Jewson and Damoulas, An optimization-centric view on Bayes' rule: reviewing and generalizing
variational inference, 2022. Not here: the divergences as functions for users (`divergences`, `renyi`), divergences that
replace the log likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from autovae import registry
from autovae.beliefs.divergences import kl_unchecked
from autovae.beliefs.renyi import CLOSED
from autovae.registry import Resolved

__all__ = ["REGULARISERS"]

Regulariser = Callable[[float, str, str, Tensor, Tensor], Tensor]


def kl(order: float, posterior: str, prior: str, loc: Tensor, scale: Tensor) -> Tensor:
    return kl_unchecked(posterior, prior, loc, scale)


def renyi(order: float, posterior: str, prior: str, loc: Tensor, scale: Tensor) -> Tensor:
    return CLOSED[posterior, prior](order - 1, loc.double(), scale.double()).to(loc.dtype)


def jeffreys(order: float, posterior: str, prior: str, loc: Tensor, scale: Tensor) -> Tensor:
    reverse = kl_unchecked(prior, posterior, -loc / scale, 1 / scale)
    return kl_unchecked(posterior, prior, loc, scale) + reverse


REGULARISERS: Mapping[str, Regulariser] = Resolved(registry.REGULARISERS)

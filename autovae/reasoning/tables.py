r"""The tables of reasoning: CONSTRAINTS, the kinds of evidence, and METHODS, the inference methods.

A row of CONSTRAINTS is a class with an example for the tests (tests/reasoning/test_contract.py):

| column | is |
|---|---|
| kind | the class |
| example | an instance of power 1 for x (batch, 3) of float64 |
| law | the log likelihood of the example, computed another way |
| outcomes | all possible outcomes with weights such that sum w p(outcome given x) = 1; none for a criterion |

To add a constraint: subclass `Constraint` (`constraints`) and add a row here. To add a method: subclass `Method`
(`method`) and add a row here. Every row is tested.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from autovae.reasoning.constraints import Categorical, Constraint, Criterion, Gaussian, Masked
from autovae.reasoning.hmc import HMC
from autovae.reasoning.logic import And, Not, Or, Relation
from autovae.reasoning.map import MAP
from autovae.reasoning.mean_field import MeanField
from autovae.reasoning.method import Method
from autovae.reasoning.mgvi import MGVI, GeoVI
from autovae.reasoning.resampling import SIR, Rejection

__all__ = ["CONSTRAINTS", "METHODS", "Row"]

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (HMC, MAP, MeanField, MGVI, GeoVI, SIR, Rejection)
}


@dataclass(frozen=True)
class Row:
    """A kind of evidence and its example, see the table of this module."""

    kind: type[Constraint]
    example: Callable[[], Constraint]
    law: Callable[[Tensor], Tensor]
    outcomes: Callable[[], Sequence[tuple[Constraint, float]]] = tuple


@functools.cache
def _net() -> nn.Linear:
    """Logits of four classes."""
    net = nn.Linear(3, 4).double().requires_grad_(False)
    net.weight.copy_(torch.linspace(-1, 1, 12).reshape(4, 3).sin())
    net.bias.copy_(torch.linspace(-0.3, 0.4, 4))
    return net


def _p(x: Tensor) -> Tensor:
    return _net()(x).softmax(-1)


def _real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _first(x: Tensor) -> Tensor:
    return x[:, :1]


def _pair(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0], x[:, 1] * x[:, 2]], -1)


STEP = 0.4  # of sums over measurements: exact to 1e-9 for normal laws of standard deviation .45 and more
GRID = torch.arange(-16, 17, dtype=torch.float64) * STEP
NOISE = _real(0.5, 0.2, 0.2, 0.3).reshape(2, 2)


def _or_not(statement: Constraint) -> list[tuple[Constraint, float]]:
    """A statement holds, or does not."""
    return [(statement, 1.0), (Not(statement), 1.0)]


def _relation() -> Relation:
    """A statement true for 90 % of class 0, 10 % of class 1, none of class 2 and all of class 3."""
    return Relation("i->", _real(0.9, 0.1, 0.0, 1.0), _net())


CONSTRAINTS: dict[str, Row] = {
    "categorical": Row(
        Categorical,
        lambda: Categorical(_net(), 2),
        lambda x: _p(x)[:, 2].log(),
        lambda: [(Categorical(_net(), y), 1.0) for y in range(4)],
    ),
    "gaussian": Row(
        Gaussian,
        lambda: Gaussian(_first, _real(0.3), 0.5),
        lambda x: Normal(x[:, 0], 0.5).log_prob(_real(0.3)),
        lambda: [(Gaussian(_first, y[None], 0.5), STEP) for y in GRID],
    ),
    "gaussian_correlated": Row(
        Gaussian,
        lambda: Gaussian(_pair, _real(0.3, -0.2), covariance=NOISE),
        lambda x: MultivariateNormal(_pair(x), NOISE).log_prob(_real(0.3, -0.2)),
        lambda: [(Gaussian(_pair, y, covariance=NOISE), STEP**2) for y in torch.cartesian_prod(GRID, GRID)],
    ),
    "masked": Row(
        Masked,
        lambda: Masked(_real(0.3, torch.nan, torch.nan), _real(1, 0, 0), 0.5),
        lambda x: Normal(x[:, 0], 0.5).log_prob(_real(0.3)),
        lambda: [(Masked(y.expand(3), _real(1, 0, 0), 0.5), STEP) for y in GRID],
    ),
    "criterion": Row(
        Criterion,
        lambda: Criterion(lambda x: x.square().sum(-1), -0.7),
        lambda x: -0.7 * (x[:, 0] ** 2 + x[:, 1] ** 2 + x[:, 2] ** 2),
    ),
    "relation": Row(
        Relation,
        _relation,
        lambda x: (_p(x) @ _real(0.9, 0.1, 0.0, 1.0)).log(),
        lambda: _or_not(_relation()),
    ),
    "and": Row(
        And,
        lambda: And(_relation(), Not(Categorical(_net(), 3))),
        lambda x: (_p(x) @ _real(0.9, 0.1, 0.0, 0.0)).log(),
        lambda: _or_not(And(_relation(), Not(Categorical(_net(), 3)))),
    ),
    "or": Row(
        Or,
        lambda: Or(Categorical(_net(), 1), Categorical(_net(), 3)),
        lambda x: (_p(x)[:, 1] + _p(x)[:, 3]).log(),
        lambda: _or_not(Or(Categorical(_net(), 1), Categorical(_net(), 3))),
    ),
    "not": Row(
        Not,
        lambda: Not(Categorical(_net(), 2)),
        lambda x: (1 - _p(x)[:, 2]).log(),
        lambda: _or_not(Not(Categorical(_net(), 2))),
    ),
}

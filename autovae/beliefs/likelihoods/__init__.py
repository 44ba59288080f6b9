r"""Likelihoods: what a decoder's outputs say about one observed number.

| head                 | log p(x)                                              | support of x     | trains on   |
|----------------------|-------------------------------------------------------|------------------|-------------|
| bernoulli            | x eta - log(1 + exp eta)                              | {0, 1}, [0, 1]   | levels      |
| continuous_bernoulli | x eta - log((exp eta - 1) / eta)                      | [0, 1]           | dequantised |
| beta                 | log Beta(x; nu m, nu (1 - m)), m = sigmoid eta        | (0, 1)           | dequantised |
| normal               | -d^2 / 2 - log(scale sqrt(2 pi)), d = (x - eta)/scale | line             | dequantised |
| laplace              | -abs d - log(2 scale)                                 | line             | dequantised |
| logistic             | -d - 2 log(1 + exp -d) - log scale                    | line             | dequantised |
| student_t            | -2 log(1 + d^2 / 3) - log(scale sqrt 3 pi / 2)        | line             | dequantised |
| mse                  | -(x - eta)^2 - log(pi) / 2: normal, scale 1 / sqrt 2  | line             | levels      |

A density on discrete data is unbounded, so scores never use it: level v of L owns the bin [v/L, (v+1)/L], and
`log_mass(lower, upper, ...)` is the log probability of a bin, computed in log space (finite to -1e4 nats in float32).
The end bins reach to -inf and +inf, so that masses sum to one.

The Bernoulli knows two outcomes only. For two levels, that is for the bins that meet at 1/2, its mass is its own
probability; grey levels are scored as the continuous Bernoulli of the same logits, and lose partly by construction.
Value and slope are found together by autograd functions of first order: gradients of gradients and torch.func are not
served. Not here: the bins themselves (`data.batches`), sums over pixels and observation masks (`model.vae`).

To add one: subclass `Likelihood` with log_prob, log_mass, mean and sample in a file of its own, and add its row to
`autovae.registry.LIKELIHOODS`. The contract tests pick it up from the table.
References: Loaiza-Ganem and Cunningham, The continuous Bernoulli, 2019; Uria, Murray and Larochelle, RNADE, 2013.
"""

from __future__ import annotations

from collections.abc import Mapping

from autovae import registry
from autovae.beliefs.likelihoods.head import Likelihood
from autovae.registry import SUPPORTS, Resolved, lookup, unknown

__all__ = ["LIKELIHOODS", "Likelihood", "check_support"]

LIKELIHOODS: Mapping[str, Likelihood] = Resolved(registry.LIKELIHOODS, lambda kind: kind())


def check_support(likelihood: str, support: str, dequantise: bool = True) -> None:
    """Raise `ValueError` if a likelihood cannot describe data of this support, saying which can.

    `dequantise` tells whether levels are spread over their bins, (v + u) / L, before a density sees them.
    """
    row = lookup(registry.LIKELIHOODS, likelihood, "likelihood")
    if support not in SUPPORTS:
        raise ValueError(unknown(support, SUPPORTS, "support"))
    if row.open_support and (support == "binary" or not dequantise):
        able = [
            name for name, other in registry.LIKELIHOODS.items() if support in other.supports and not other.open_support
        ]
        raise ValueError(
            f"likelihood {likelihood!r} got {'binary data' if support == 'binary' else 'data that are not dequantised'}, "
            "and its density at 0 and 1 is 0 or infinite; expected grey levels (support unit) with dequantisation: set "
            f"dequantise = true, or choose one of: {', '.join(able)}"
        )
    if support not in row.supports:
        able = [name for name, other in registry.LIKELIHOODS.items() if support in other.supports]
        raise ValueError(
            f"likelihood {likelihood!r} got data of support {support!r}, expected "
            f"{' or '.join(sorted(row.supports))}; choose one of: {', '.join(able)}"
        )

r"""When a divergence between two location-scale families is finite: supports and tails, no torch.

For q = loc + scale X and a standard prior p, KL(q || p) = -h(q) + E_q[-log p]. It is finite exactly when
the support of q lies in the support of p and the tails of q carry the growth of -log p (r = abs z):

| tail of the law    | density       | growth of -log p | finite under power nu | under an exponential tail |
|--------------------|---------------|------------------|-----------------------|---------------------------|
| bounded            | 0 past it     | infinite         | -                     | -                         |
| double exponential | exp(-exp r)   | exp r            | never                 | only where scale < 1      |
| gaussian           | exp(-r^2 / 2) | r^2              | nu > 2                | always                    |
| exponential        | exp(-r)       | r                | nu > 1                | always                    |
| power nu           | r^(-nu - 1)   | log r            | always                | always                    |

So a table of tails replaces a table of pairs: a family added to TAILS has every cell decided.
Not here: how a finite divergence is computed, see `beliefs.divergences`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autovae.registry import lookup

__all__ = ["TAILS", "Tail", "Tails", "finite_priors", "finiteness", "why_infinite"]

INF = math.inf


@dataclass(frozen=True)
class Tail:
    """One end of a law: `order` is the heaviness of -log p there, `power` the index of a power tail."""

    name: str
    growth: float  # exponent k of -log p ~ |z|^k; inf for exp|z|, 0 for log|z|
    power: float = INF  # the largest nu with E|z|^k < inf for all k < nu


BOUNDED = Tail("bounded", INF)
DOUBLE_EXPONENTIAL = Tail("double exponential", INF)
GAUSSIAN = Tail("gaussian", 2.0)
EXPONENTIAL = Tail("exponential", 1.0)


def power_tail(nu: float) -> Tail:
    return Tail("power", 0.0, nu)


@dataclass(frozen=True)
class Tails:
    """What decides finiteness for one standard law: its two ends, and whether its support moves with loc and scale."""

    left: Tail
    right: Tail

    @property
    def whole_line(self) -> bool:
        return self.left is not BOUNDED and self.right is not BOUNDED

    @property
    def power(self) -> float:
        """The index of the heaviest end: moments of this order and above are infinite."""
        return min(self.left.power, self.right.power)


TAILS: dict[str, Tails] = {
    "normal": Tails(GAUSSIAN, GAUSSIAN),
    "laplace": Tails(EXPONENTIAL, EXPONENTIAL),
    "cauchy": Tails(power_tail(1), power_tail(1)),
    "logistic": Tails(EXPONENTIAL, EXPONENTIAL),
    "gumbel": Tails(DOUBLE_EXPONENTIAL, EXPONENTIAL),
    "uniform": Tails(BOUNDED, BOUNDED),
    "exponential": Tails(BOUNDED, EXPONENTIAL),
    "hypsecant": Tails(EXPONENTIAL, EXPONENTIAL),
    "student_t3": Tails(power_tail(3), power_tail(3)),
    "student_t5": Tails(power_tail(5), power_tail(5)),
}


def _end(q: Tail, p: Tail) -> str:
    """finite, conditional or infinite, for one end of the line."""
    if q is BOUNDED:
        return "conditional" if p is BOUNDED else "finite"
    if p is BOUNDED:
        return "infinite"
    if q.power < INF:
        return "finite" if p.growth < q.power else "infinite"
    if p is DOUBLE_EXPONENTIAL and q is EXPONENTIAL:
        return "conditional"
    return "finite"


def finiteness(posterior: str, prior: str) -> str:
    """KL(posterior || prior) is "finite" everywhere, "conditional" (finite in a region of loc, scale) or "infinite"."""
    q, p = lookup(TAILS, posterior, "family"), lookup(TAILS, prior, "family")
    ends = {_end(q.left, p.left), _end(q.right, p.right)}
    return next(answer for answer in ("infinite", "conditional", "finite") if answer in ends)


def finite_priors(posterior: str) -> list[str]:
    """The priors under which this posterior has a finite divergence, at least in a region."""
    return [prior for prior in TAILS if finiteness(posterior, prior) != "infinite"]


def finite_posteriors(prior: str) -> list[str]:
    """The posteriors that have a finite divergence to this prior, at least in a region."""
    return [posterior for posterior in TAILS if finiteness(posterior, prior) != "infinite"]


def why_infinite(posterior: str, prior: str) -> str:
    """The reason in words, with what to choose instead, for an infinite pair."""
    q, p = TAILS[posterior], TAILS[prior]
    if not p.whole_line:
        reason = f"the {posterior} reaches outside the support of the {prior}"
    else:
        growth = {INF: "E exp|z|", 2.0: "E z^2", 1.0: "E |z|"}[max(p.left.growth, p.right.growth)]
        reason = f"{growth} diverges under tails of power {q.power:g}"
    return f"KL({posterior} || {prior}) is infinite ({reason}); choose one of: {', '.join(finite_posteriors(prior))}"

r"""Where the divergence between two location-scale families is finite, from supports and tails. No torch.

For q = loc + scale X and a standard prior p, KL(q || p) = -h(q) + E_q[-log p]. It is finite exactly when
the support of q lies in the support of p and the tails of q carry the growth of -log p (r = abs z):

| tail of p          | density       | growth of -log p | finite under power nu | under exp(-b r)        |
|--------------------|---------------|------------------|-----------------------|------------------------|
| bounded            | 0 past it     | infinite         | -                     | -                      |
| double exponential | exp(-exp a r) | exp a r          | never                 | only if a scale < b    |
| stretched k        | exp(-a r^k)   | r^k              | nu > k                | always                 |
| power nu           | r^(-nu - 1)   | log r            | always                | always                 |

k = 2 is gaussian, k = 1 exponential; a tail with k < 1 is infinite under a double exponential. A table of tails thus
replaces a table of pairs: TAILS decides every pair of a new family, and the region of a conditional one.
To add a family: put its tails here and its law in `beliefs.families`.
Not here: how a finite divergence is computed, see `beliefs.divergences`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autovae.registry import lookup

__all__ = [
    "BOUNDED",
    "DOUBLE_EXPONENTIAL",
    "EXPONENTIAL",
    "GAUSSIAN",
    "TAILS",
    "Tail",
    "Tails",
    "double_exponential_tail",
    "finite_priors",
    "finiteness",
    "power_tail",
    "stretched_tail",
    "why_infinite",
]

INF = math.inf


@dataclass(frozen=True)
class Tail:
    """One end of a standard law: how fast -log p grows there."""

    name: str  # "bounded", "double exponential", "stretched" or "power"
    growth: float  # exponent k of -log p ~ rate |z|^k; inf for exp|z|, 0 for log|z|
    power: float = INF  # the largest nu with E|z|^k < inf for all k < nu
    rate: float = 1.0  # a of exp(-a r^k) or exp(-exp(a r))

    @property
    def bounded(self) -> bool:
        return self.name == "bounded"

    @property
    def double_exponential(self) -> bool:
        return self.name == "double exponential"


BOUNDED = Tail("bounded", INF)


def double_exponential_tail(rate: float = 1.0) -> Tail:
    return Tail("double exponential", INF, rate=rate)


def stretched_tail(growth: float, rate: float = 1.0) -> Tail:
    return Tail("stretched", growth, rate=rate)


def power_tail(nu: float) -> Tail:
    return Tail("power", 0.0, nu)


DOUBLE_EXPONENTIAL = double_exponential_tail()
GAUSSIAN = stretched_tail(2, rate=0.5)
EXPONENTIAL = stretched_tail(1)


@dataclass(frozen=True)
class Tails:
    """The two ends of one standard law; they decide finiteness, and whether the support moves with loc and scale."""

    left: Tail
    right: Tail

    @property
    def whole_line(self) -> bool:
        return not self.left.bounded and not self.right.bounded

    @property
    def mirrored(self) -> Tails:
        """The tails of -X."""
        return Tails(self.right, self.left)

    @property
    def ends(self) -> tuple[Tail, Tail]:
        return self.left, self.right

    @property
    def power(self) -> float:
        """The power of the heavier end: moments of this order and above are infinite."""
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
    if q.bounded:
        return "conditional" if p.bounded else "finite"
    if p.bounded:
        return "infinite"
    if q.power < INF:
        return "finite" if p.growth < q.power else "infinite"
    if p.double_exponential and q.growth <= 1:
        return "conditional" if q.growth == 1 else "infinite"
    return "finite"


def finiteness(posterior: str, prior: str) -> str:
    """Whether KL(posterior || prior) is "finite", "conditional" (finite in a region of loc and scale) or "infinite"."""
    q, p = lookup(TAILS, posterior, "family"), lookup(TAILS, prior, "family")
    ends = {_end(q.left, p.left), _end(q.right, p.right)}
    return next(answer for answer in ("infinite", "conditional", "finite") if answer in ends)


def finite_priors(posterior: str) -> list[str]:
    """The priors to which this posterior has a finite divergence, at least in a region."""
    return [prior for prior in TAILS if finiteness(posterior, prior) != "infinite"]


def finite_posteriors(prior: str) -> list[str]:
    """The posteriors that have a finite divergence to this prior, at least in a region."""
    return [posterior for posterior in TAILS if finiteness(posterior, prior) != "infinite"]


def why_infinite(posterior: str, prior: str) -> str:
    """Why a pair is infinite, in words, and which posteriors to choose instead."""
    q, p = TAILS[posterior], TAILS[prior]
    if not p.whole_line:
        reason = f"the {posterior} reaches outside the support of the {prior}"
    else:
        fastest = max(tail.growth for tail in p.ends)
        growth = {INF: "E exp|z|", 2.0: "E z^2", 1.0: "E |z|"}.get(fastest, f"E |z|^{fastest:g}")
        heavy = f"power {q.power:g}" if q.power < INF else f"order {min(tail.growth for tail in q.ends):g}"
        reason = f"{growth} diverges under tails of {heavy}"
    return f"KL({posterior} || {prior}) is infinite ({reason}); choose one of: {', '.join(finite_posteriors(prior))}"

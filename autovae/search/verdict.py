r"""The verdict of the finals: the winner, its gain, and whether the lead is beyond doubt.

A gain is the mean of differences paired by seed, with the interval

    mean(d) +- t_{n-1}(1 - 0.05 / (2 m)) sd(d) / sqrt(n)        n seeds, m finalists (Bonferroni: the best of m was picked)

A winner is named only if its interval lies above 0 on validation, where it was picked, and on test, and its lead is larger
than the bound's own looseness. Not here: training and measuring (`finals`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from autovae.spec import VAESpec
from autovae.training.loop import Trained

__all__ = ["Final", "Gain", "Verdict", "network_words", "paired_gain"]


@dataclass(frozen=True)
class Gain:
    """Bits per dimension by which the winner is below the baseline, paired by seed, with its interval."""

    mean: float
    low: float
    high: float
    seeds: int
    level: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} bits/dim [{self.low:.4f}, {self.high:.4f}]"


@dataclass
class Final:
    """A finalist or a baseline: its fits over the seeds, their validation bits, their test bits if measured."""

    role: str  # "finalist", "baseline", "twin N", or the name of a learned prior
    spec: VAESpec
    trial: int
    fits: list[Trained]
    validation: np.ndarray
    test: np.ndarray | None = None
    common_head: np.ndarray | None = None  # validation bits of the means under one logistic head; not for two levels

    @property
    def mean(self) -> float:
        return float(self.validation.mean())

    @property
    def order(self) -> float:
        """The sort key of finals: the mean; a belief with a failed seed comes last."""
        return self.mean if math.isfinite(self.mean) else math.inf

    @property
    def best(self) -> int:
        """The seed whose fit is exported: the best on validation."""
        return int(np.nanargmin(self.validation))


@dataclass
class Verdict:
    """The finals, ranked, and the conclusion they allow."""

    finalists: list[Final]  # by mean validation bits, best first
    baseline: Final
    gain_validation: Gain
    gain_test: Gain
    bound_gap: float  # bits per dimension by which the bound still moves from K to 10 K, winner, on a few points
    samples: int
    learned_priors: list[Final] = field(default_factory=list)
    learned_prior_gains: dict[str, Gain] = field(default_factory=dict)  # of the winner over each learned prior, on test
    twins: list[Final] = field(default_factory=list)  # the matched normals that the baseline was better than

    @property
    def winner(self) -> Final:
        return self.finalists[0]

    @property
    def wins(self) -> bool:
        """Whether the winner is another belief than the baseline, with an interval above 0 and a lead above the gap."""
        if self.winner.spec.belief == self.baseline.spec.belief:
            return False
        return self.gain_test.low > 0 and self.gain_validation.low > 0 and self.gain_test.mean > self.bound_gap

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return " ".join([self._against_normal(), *(self._against(name) for name in self.learned_prior_gains)])

    def _against(self, prior: str) -> str:
        """The winner compared with a learned prior."""
        gain, name = self.learned_prior_gains[prior], f"the learned {prior} prior at the same budget"
        span = f"{abs(gain.mean):.4f} bits per dimension on test"
        if gain.low > 0:
            return f"It beats {name} by {span} ({gain.low:.4f} to {gain.high:.4f})."
        if gain.high < 0:
            return f"But {name} beats it by {span} ({-gain.high:.4f} to {-gain.low:.4f})."
        return f"It does not differ from {name} beyond doubt ({gain.mean:.4f}, {gain.low:.4f} to {gain.high:.4f})."

    def _against_normal(self) -> str:
        winner, baseline, gain = self.winner.spec, self.baseline.spec, self.gain_test
        level = f"{100 * gain.level:.3g} % interval {gain.low:.4f} to {gain.high:.4f}, {gain.seeds} seeds"
        if winner.belief == baseline.belief:
            return f"Nothing beats the matched normal: {baseline.belief} is itself the best of the finalists."
        if self.wins:
            return (
                f"{winner.belief} beats the matched normal ({baseline.belief}) by {gain.mean:.4f} bits per dimension on "
                f"test ({level})."
            )
        why = (
            f"the lead is smaller than the looseness of the bound, {self.bound_gap:.4f}"
            if gain.low > 0 and gain.mean <= self.bound_gap
            else "the interval holds 0 on test or validation"
        )
        return (
            f"No finalist beats the matched normal ({baseline.belief}) beyond doubt: the best, {winner.belief}, differs by "
            f"{gain.mean:.4f} bits per dimension on test ({level}); {why}."
        )


def paired_gain(baseline: np.ndarray, candidate: np.ndarray, picked_from: int) -> Gain:
    """The mean of baseline - candidate over common seeds, with the interval of the module's formula."""
    differences = (baseline - candidate)[np.isfinite(baseline - candidate)]
    count = len(differences)
    level = 1 - 0.05 / max(1, picked_from)
    if count < 2:
        return Gain(math.nan, -math.inf, math.inf, count, level)
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(count))
    width = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
    return Gain(mean, mean - width, mean + width, count, level)


def network_words(spec: VAESpec) -> str:
    """The network and its training in a few words."""
    hidden = "-".join(map(str, spec.hidden)) or "no hidden layer"
    kind = "" if spec.network == "mlp" else f"{spec.network} "
    return f"{kind}{hidden} {spec.activation}, {spec.latent_dim} latents, rate {spec.learning_rate:.2g}"

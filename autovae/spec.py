r"""`VAESpec`: frozen plain data that fully describe one VAE and its training.

A VAE believes three things: how a latent looks after seeing data (posterior q(z|x)), before (prior p(z)), and how data
look given a latent (likelihood p(x|z)); the Renyi order alpha says how deviations are judged. The rest of a spec is the
network and the training.

Posterior and prior are each a name, one name per latent, or shares (`shares`). Position by position they form the pairs:
``posterior={"logistic": 14, "cauchy": 6}, prior={"normal": 14, "cauchy": 6}`` is 14 latents logistic|normal and 6
latents cauchy|cauchy.

A spec is validated once, on construction; it holds no tensors and imports no torch. Not here: what the data are, see
`domain` and `data`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autovae.domain import Domain
from autovae.finiteness import TAILS, finiteness, why_infinite
from autovae.registry import (
    ACTIVATIONS,
    BOUNDS,
    LEARNED_PRIORS,
    LIKELIHOODS,
    NETWORKS,
    REGULARISERS,
    RENYI,
    lookup,
    unknown,
)
from autovae.renames import renamed
from autovae.shares import Pair, compact, distinct, largest_remainder, pair_text, per_latent

__all__ = ["Domain", "Pair", "VAESpec", "distinct", "field_names", "largest_remainder"]

OBJECTIVES = ("auto", "mass", "density")


def _whole(value: Any, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")


def _positive(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")


@dataclass(frozen=True)
class VAESpec:
    """One VAE and its training, as plain values.

    posterior, prior    families of the latents: a name, one per latent, or shares
    likelihood          p(x|z), a name of registry.LIKELIHOODS
    alpha               Renyi order of the training bound; 1 is the ELBO, 0 the importance-weighted bound
    samples             latent samples K per data point in training
    bound, groups, mix  "vr" (order alpha), or "miwae", "ciwae", "piwae" on `groups` M of K samples; ciwae weighs the ELBO by mix
    beta                weight of the divergence in the ELBO (1: a bound)
    regulariser, regulariser_order   the divergence in the ELBO: "kl"; "renyi" of an order in (0, 1); "jeffreys"
    scale               for likelihoods with a scale: "global" (learned), "pixel" (a network output) or a number
    objective           what training follows: "mass", the log probability of the level's bin, which is what is scored;
                        "density" of dequantised data; "auto": masses of data with levels, see `objective_on`
    latent_dim, hidden, activation, network      the network; `network` names an entry of registry.NETWORKS
    learned_prior, components   in place of the product: "" (none), "mixture", "vampprior" (of `components` each) or "flow";
                        its base or components are of the families `prior` (vampprior: of the posterior's)
    posterior_flow      transform a normal posterior by a flow conditioned on the data point
    saturate            use tanh in the decoder's first layer; None: only if a Cauchy posterior at alpha >= 1 needs it
    epochs, batch_size, learning_rate, seed      the training; `data_seed` orders the minibatches
    estimator           gradient estimator; None picks the right one for the families and alpha
    allow               "alpha<1" admits pairs whose KL is infinite

    Raises `ValueError` that states the value, the expected values and the remedy.
    """

    posterior: Any = "normal"
    prior: Any = "normal"
    likelihood: str = "bernoulli"
    alpha: float = 1.0
    samples: int = 1
    bound: str = "vr"
    groups: int = 1
    mix: float = 0.5
    latent_dim: int = 20
    hidden: tuple[int, ...] = (400, 400)
    epochs: int = 100
    batch_size: int = 1000
    learning_rate: float = 1e-3
    seed: int = 0
    data_seed: int = 0
    beta: float = 1.0
    regulariser: str = "kl"
    regulariser_order: float = 0.5
    scale: str | float = "global"
    objective: str = "auto"
    activation: str = "relu"
    network: str = "mlp"
    saturate: bool | None = None
    estimator: str | None = None
    allow: str = ""
    learned_prior: str = ""
    components: int = 100
    posterior_flow: bool = False
    pairs: tuple[Pair, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("latent_dim", 1), ("samples", 1), ("groups", 1), ("epochs", 1), ("batch_size", 1),
                            ("components", 1)):  # fmt: skip
            _whole(getattr(self, name), name, least)
        for name in ("seed", "data_seed"):
            _whole(getattr(self, name), name, 0)
        _positive(self.learning_rate, "learning_rate")
        if isinstance(self.beta, bool) or not isinstance(self.beta, (int, float)) or not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be a finite number >= 0, got {self.beta!r}")
        if isinstance(self.alpha, str):  # JSON has no infinities
            object.__setattr__(self, "alpha", float(self.alpha))
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)) or math.isnan(self.alpha):
            raise ValueError(f"alpha must be a number, or -inf or inf, got {self.alpha!r}")
        hidden = (self.hidden,) if isinstance(self.hidden, int) else tuple(self.hidden)
        for width in hidden:
            _whole(width, "every width of hidden", 1)
        object.__setattr__(self, "hidden", hidden)
        object.__setattr__(self, "alpha", float(self.alpha))
        lookup(LIKELIHOODS, self.likelihood, "likelihood")
        lookup(ACTIVATIONS, self.activation, "activation")
        if self.objective not in OBJECTIVES:
            raise ValueError(unknown(self.objective, OBJECTIVES, "objective"))
        if isinstance(self.scale, str) and self.scale not in ("global", "pixel"):
            raise ValueError(f"scale must be 'global', 'pixel' or a number > 0, got {self.scale!r}")
        if not isinstance(self.scale, str):
            _positive(self.scale, "scale")
        lookup(BOUNDS, self.bound, "bound")
        lookup(NETWORKS, self.network, "network")
        if isinstance(self.mix, bool) or not isinstance(self.mix, (int, float)) or not 0 <= self.mix <= 1:
            raise ValueError(f"mix must be a number in [0, 1], the weight of the ELBO in ciwae, got {self.mix!r}")
        if self.allow not in ("", "alpha<1"):
            raise ValueError(f"allow must be '' or 'alpha<1', got {self.allow!r}")
        posterior = per_latent(self.posterior, self.latent_dim, "posterior")
        prior = per_latent(self.prior, self.latent_dim, "prior")
        object.__setattr__(self, "posterior", compact(posterior))
        object.__setattr__(self, "prior", compact(prior))
        object.__setattr__(self, "pairs", tuple(zip(posterior, prior, strict=True)))
        self._check_pairs()
        self._check_learned()
        self._check_bound()
        self._check_regulariser()
        self._decide_saturation()

    def _check_pairs(self) -> None:
        for q, p in dict.fromkeys(self.pairs):
            if finiteness(q, p) != "infinite":
                continue
            if not TAILS[p].whole_line:
                raise ValueError(
                    why_infinite(q, p) + " (a posterior that can leave the prior's support has a wrong pathwise "
                    "gradient, at every alpha)"
                )
            if self.alpha >= 1 or self.allow != "alpha<1":
                raise ValueError(why_infinite(q, p) + "; or train with alpha < 1 and allow = 'alpha<1'")

    def _check_learned(self) -> None:
        """A learned prior or posterior must neither move a support nor leave the region where a divergence is finite."""
        if not isinstance(self.posterior_flow, bool):
            raise ValueError(f"posterior_flow must be true or false, got {self.posterior_flow!r}")
        if not isinstance(self.learned_prior, str):
            raise ValueError(
                f"learned_prior must be the name of a learned prior or '' for none, got {self.learned_prior!r}"
            )
        if not self.learned_prior and not self.posterior_flow:
            return
        of_posterior = (
            bool(self.learned_prior) and lookup(LEARNED_PRIORS, self.learned_prior, "learned prior").of_posterior
        )
        what = f"learned_prior = {self.learned_prior!r}" if self.learned_prior else "posterior_flow"
        for q, p in distinct(self.pairs):
            if not TAILS[p].whole_line or finiteness(q, p) == "conditional":
                raise ValueError(
                    f"{what} needs pairs that are finite everywhere under a prior on the whole line, got {q}|{p}: training "
                    "would leave the region where the divergence is finite; use prior = 'normal'"
                )
            if of_posterior and q != p:
                raise ValueError(
                    f"the components of {self.learned_prior} are posteriors, so its prior family is the posterior's; got "
                    f"{q}|{p}, expected prior = {q!r}"
                )
            if self.posterior_flow and q != "normal":
                raise ValueError(
                    f"posterior_flow transforms a normal posterior, got posterior {q!r}; use posterior = 'normal'"
                )
        if self.posterior_flow and of_posterior:
            able = [name for name, row in LEARNED_PRIORS.items() if not row.of_posterior]
            raise ValueError(
                f"a {self.learned_prior} of flow posteriors would invert the flow at every component; leave out "
                f"posterior_flow, or use learned_prior = {' or '.join(map(repr, able))}"
            )

    def _check_bound(self) -> None:
        if not BOUNDS[self.bound].grouped:
            if self.groups > 1:
                raise ValueError(
                    f"groups = {self.groups} is for bound miwae, ciwae or piwae; with vr raise samples instead"
                )
            if self.alpha != 1 and self.beta != 1:
                raise ValueError(
                    f"beta = {self.beta:g} weighs the divergence of alpha = 1; with alpha = {self.alpha:g} set beta = 1"
                )
            return
        if self.alpha not in (0.0, 1.0) or self.beta != 1:
            raise ValueError(
                f"bound {self.bound} is a bound of order 0: set alpha = 0 and beta = 1, got {self.alpha:g}, {self.beta:g}"
            )
        object.__setattr__(self, "alpha", 0.0)
        if self.estimator not in (None, "dreg"):
            raise ValueError(
                f"bound {self.bound} is trained by the doubly reparameterised gradient, got estimator "
                f"{self.estimator!r}; leave it out"
            )
        moving = [q for q, _ in distinct(self.pairs) if not TAILS[q].whole_line]
        if moving:
            raise ValueError(
                f"bound {self.bound} is trained by the doubly reparameterised gradient, which is wrong for posteriors "
                f"whose support moves ({', '.join(moving)}); use bound = 'vr' with alpha = 0, or another posterior"
            )

    def _check_regulariser(self) -> None:
        """Divergences other than the KL work only in the ELBO, and must be finite wherever training may go."""
        order = self.regulariser_order
        lookup(REGULARISERS, self.regulariser, "regulariser")
        if isinstance(order, bool) or not isinstance(order, (int, float)) or not 0 < order < 1:
            raise ValueError(
                f"regulariser_order must be a number in (0, 1), got {order!r}: Renyi divergences of higher order are "
                "infinite in part of the parameter space; use regulariser = 'kl' for order 1"
            )
        if self.regulariser == "kl":
            return
        what = f"regulariser = {self.regulariser!r}"
        if self.alpha != 1 or BOUNDS[self.bound].grouped or self.learned_prior or self.posterior_flow:
            raise ValueError(
                f"{what} replaces the KL in closed form: set alpha = 1 and bound = 'vr', without learned_prior and "
                f"posterior_flow; got alpha {self.alpha:g}, bound {self.bound!r}, learned_prior {self.learned_prior!r}, "
                f"posterior_flow {self.posterior_flow}"
            )
        if self.estimator not in (None, "pathwise"):
            raise ValueError(
                f"{what} is not a mean of log weights, which estimator {self.estimator!r} needs; leave the estimator out"
            )
        for q, p in distinct(self.pairs):
            if self.regulariser == "renyi" and (q, p) not in RENYI:
                closed = ", ".join(f"{q}|{p}" for q, p in RENYI)
                raise ValueError(
                    f"{what} has a closed form for {closed}, got {q}|{p}; use one of them, or regulariser = 'kl'"
                )
            if self.regulariser == "jeffreys" and {finiteness(q, p), finiteness(p, q)} != {"finite"}:
                raise ValueError(
                    f"{what} needs KL({q} || {p}) and KL({p} || {q}) finite everywhere, and they are "
                    f"{finiteness(q, p)} and {finiteness(p, q)}; use a matched pair on the whole line, or regulariser = 'kl'"
                )

    def _decide_saturation(self) -> None:
        """Without a mean of the posterior, E log p(x|z) = -inf unless the decoder saturates, even if the KL is finite."""
        heavy = any(TAILS[q].power <= 1 for q, _ in self.pairs) and self.alpha >= 1
        if self.saturate is None:
            object.__setattr__(self, "saturate", heavy)
        elif heavy and not self.saturate:
            raise ValueError(
                "a cauchy posterior at alpha >= 1 needs a decoder whose first layer saturates, else E log p(x|z) is "
                "-inf: set saturate = True (tanh there), or alpha < 1"
            )

    def objective_on(self, support: str) -> str:
        """ "mass" or "density": what training follows on data of this support.

        "auto" is the mass of data with levels, except for heads that train on the levels themselves (bernoulli, mse).
        """
        if self.objective != "auto":
            return self.objective
        levels = support != "real" and LIKELIHOODS[self.likelihood].trains_on != "levels"
        return "mass" if levels else "density"

    @property
    def matched_normal(self) -> bool:
        """Whether this is the plain belief: normal posterior and prior, neither of them learned, with the KL."""
        plain = not self.learned_prior and not self.posterior_flow and self.regulariser == "kl"
        return plain and set(self.pairs) == {("normal", "normal")}

    @property
    def draws(self) -> int:
        """Total latent samples per data point: groups x samples."""
        return self.groups * self.samples

    @property
    def pairing(self) -> str:
        """ "matched", "mismatched" (one pair, two families) or "heterogeneous" (several pairs)."""
        kinds = set(self.pairs)
        if len(kinds) > 1:
            return "heterogeneous"
        q, p = next(iter(kinds))
        return "matched" if q == p else "mismatched"

    @property
    def pair_text(self) -> str:
        """The pairs in words: ``logistic|normal`` or ``logistic|normal x14 + cauchy|cauchy x6``."""
        return pair_text(self.pairs)

    @property
    def belief(self) -> str:
        """The belief in words: ``normal|normal, bernoulli, alpha 1``, ``normal|normal + flow prior, ...``.

        Names the scale of a likelihood unless it is the default, one learned number.
        """
        learned = [" + posterior flow"] * self.posterior_flow + [f" + {self.learned_prior} prior"] * bool(
            self.learned_prior
        )
        order = f" {self.regulariser_order:g}" if self.regulariser == "renyi" else ""
        other = "" if self.regulariser == "kl" else f", {self.regulariser}{order} regulariser"
        scale = ""
        if self.scale != "global" and LIKELIHOODS[self.likelihood].has_scale:
            scale = " (pixel scale)" if self.scale == "pixel" else f" (scale {self.scale:g})"
        return f"{self.pair_text}{''.join(learned)}, {self.likelihood}{scale}, alpha {self.alpha:g}{other}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` restores the same spec."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "pairs"}
        values["hidden"] = list(self.hidden)
        for name in ("posterior", "prior"):
            if isinstance(values[name], tuple):
                values[name] = list(values[name])
        if math.isinf(self.alpha):
            values["alpha"] = str(self.alpha)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VAESpec:
        """The spec of a dictionary, of an older version too; unknown keys are an error that names the nearest known one."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a spec must be a table of settings, got {type(values).__name__}")
        known, values = field_names(), renamed(values)
        for key in values:
            if key not in known:
                raise ValueError(unknown(key, known, "setting of VAESpec"))
        return cls(**values)

    def replace(self, **changes: Any) -> VAESpec:
        """A copy with some values changed, validated again."""
        return dataclasses.replace(self, **changes)


def field_names() -> tuple[str, ...]:
    """The settings of a spec, in order."""
    return tuple(f.name for f in dataclasses.fields(VAESpec) if f.init)

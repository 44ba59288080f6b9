r"""Constraints: one piece of evidence each, a likelihood of some feature of the generated x.

    log p(evidence | x)^power,        x = decode(from_normal(xi)), (batch, *shape) or (batch, objects, *shape)

| constraint | evidence | log likelihood | Fisher coordinates theta(x) |
|---|---|---|---|
| `Categorical(net, y)` | the class of x is y | log p_y | 2 sqrt(p) |
| `Gaussian(f, y, std)` | f(x) was measured as y | log N(y; f(x), N) | N^(-1/2) f(x) |
| `Masked(y, mask, std)` | pixels of x were measured where mask is 1 | log N of these pixels | x / std of these pixels |
| `Criterion(f, beta)` | none: the prior is tilted towards large f | beta f(x) | none |
| `Relation`, `And`, `Or`, `Not` | see `logic` | | |

*Fisher coordinates* theta(x) have J^T J = the Fisher information of the outcome, with J = d theta / d xi: the metric of
MGVI and geoVI is I + sum_c power_c J_c^T J_c. A constraint without an outcome does not change the metric.

`power` raises the likelihood (alpha of the paper): alpha equal outcomes of a class, or a variance divided by alpha.
`object=i` applies a constraint to the i-th object of a replicated prior; without it, to all of x.
Networks are put in evaluation mode; a network shared by several constraints on one object runs once.

To add one: subclass `Constraint` and write `log_likelihood`, plus `coordinates` and `log_bound` if known; add a row with an
example to CONSTRAINTS (`tables`). The tests run over the table.
Not here: logic over class probabilities (`logic`), the density of xi (`posterior`).
References: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), eqs. 1-3.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Categorical", "Constraint", "Criterion", "Gaussian", "Masked", "Scene"]

Feature = Callable[[Any], Tensor]
Evaluate = Callable[[Feature, Any, int | None], Tensor]


class Scene:
    """A batch of generated x and its features; a network shared by several constraints runs once.

    `evaluate(f, view, object)` replaces f(view) by another way to compute the same values.
    """

    def __init__(self, x: Any, objects: int = 1, evaluate: Evaluate | None = None) -> None:
        self.x, self.objects, self._evaluate = x, objects, evaluate
        self._features: dict[tuple[int, int | None], Tensor] = {}
        self._log_probs: dict[tuple[int, int | None], Tensor] = {}

    def view(self, index: int | None) -> Any:
        """x, or its object `index`: (batch, *shape)."""
        if index is None:
            return self.x
        if not -self.objects <= index < self.objects or (self.objects == 1 and index != 0):
            raise ValueError(
                f"the constraint is on object {index}, but the prior generates {self.objects}; "
                "replicate the prior first: prior.replicate(n)"
            )
        return self.x if self.objects == 1 else self.x[:, index]

    def feature(self, f: Feature | None, index: int | None = None) -> Tensor:
        """f of the object, computed once; x itself if f is None."""
        if f is None:
            return self.view(index)
        key = (id(f), index)
        if key not in self._features:
            view = self.view(index)
            self._features[key] = f(view) if self._evaluate is None else self._evaluate(f, view, index)
        return self._features[key]

    def log_probs(self, net: Feature, index: int | None = None) -> Tensor:
        """Class log probabilities (batch, classes); a single output is the logit of class 1 of two."""
        key = (id(net), index)
        if key not in self._log_probs:
            logits = self.feature(net, index)
            if logits.ndim == 1:
                logits = logits[:, None]
            if logits.ndim != 2:
                raise ValueError(
                    f"the network returned {tuple(logits.shape)}; expected logits of shape (batch, classes)"
                )
            if logits.shape[1] == 1:
                logits = torch.cat([torch.zeros_like(logits), logits], 1)
            self._log_probs[key] = logits.log_softmax(-1)
        return self._log_probs[key]


class Constraint(ABC):
    """One piece of evidence about x: a log likelihood, raised to `power`."""

    power: float = 1.0
    object: int | None = None

    @property
    def name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return f"<{self.name}, power {self.power:g}>" if self.power != 1 else f"<{self.name}>"

    def log_prob(self, x: Any, objects: int = 1) -> Tensor:
        """power * log p(evidence | x), (batch,), for x (batch, *shape) or (batch, objects, *shape)."""
        return self.power * self.log_likelihood(Scene(x, objects))

    @abstractmethod
    def log_likelihood(self, scene: Scene) -> Tensor:
        """log p(evidence | x) without the power, (batch,)."""

    def coordinates(self, scene: Scene) -> Tensor | None:
        """Fisher coordinates without the power, (batch, k); None if the constraint has no outcome."""
        return None

    @property
    def log_bound(self) -> float:
        """An upper bound of `log_likelihood` over all x, inf if none is known."""
        return math.inf

    def check(self, scene: Scene) -> None:  # noqa: B027  most evidence fits every generator
        """Raise `ValueError` if the evidence does not fit the generated x."""

    def with_power(self, power: float) -> Constraint:
        """The same evidence with its power multiplied."""
        other = copy.copy(self)
        other.power = self.power * power
        return other

    def __and__(self, other: Constraint) -> Constraint:
        from autovae.reasoning.logic import And

        return And(self, other)

    def __or__(self, other: Constraint) -> Constraint:
        from autovae.reasoning.logic import Or

        return Or(self, other)

    def __invert__(self) -> Constraint:
        from autovae.reasoning.logic import Not

        return Not(self)

    def _settle(self, power: float, index: int | None, *features: Any) -> None:
        """Validate and store the settings that all constraints share."""
        if not power >= 0 or math.isinf(power):
            raise ValueError(f"got power={power}; expected a finite number >= 0")
        self.power, self.object = float(power), index
        for f in features:
            if isinstance(f, nn.Module):
                f.eval()


class Categorical(Constraint):
    """The class of x is `y`: log p_y of a network that returns logits (batch, classes), or (batch,) for two classes."""

    def __init__(self, net: Feature, y: int, power: float = 1.0, object: int | None = None) -> None:
        self._settle(power, object, net)
        self.net, self.y = net, int(y)

    @property
    def name(self) -> str:
        return f"Categorical(y={self.y})"

    def log_likelihood(self, scene: Scene) -> Tensor:
        return scene.log_probs(self.net, self.object)[:, self.y]

    def coordinates(self, scene: Scene) -> Tensor:
        return 2 * (0.5 * scene.log_probs(self.net, self.object)).exp()

    @property
    def log_bound(self) -> float:
        return 0.0

    def check(self, scene: Scene) -> None:
        raw, classes = scene.feature(self.net, self.object), scene.log_probs(self.net, self.object).shape[1]
        if not 0 <= self.y < classes:
            raise ValueError(f"got y={self.y} for a network of {classes} classes; expected 0 to {classes - 1}")
        refuse_probabilities(raw)


def refuse_probabilities(raw: Tensor) -> None:
    """Refuse the output of a softmax: as logits it would flatten every answer."""
    if raw.ndim == 2 and raw.shape[1] > 1 and bool((raw >= 0).all()):
        total = raw.sum(-1)
        if bool(((total - 1).abs() < 1e-4).all()):
            raise ValueError(
                "the network returns probabilities (they sum to one); expected logits or log probabilities: "
                "leave out its softmax, or take the logarithm"
            )


class Gaussian(Constraint):
    """f(x) was measured as `y` with noise `std`, or with a full `covariance`; f = None is x itself.

    y has the shape of f(x) without the batch; std is a number or broadcasts to y; covariance is (k, k) over the
    flattened y. The density is normalised.
    """

    def __init__(
        self,
        f: Feature | None,
        y: Tensor | float,
        std: Tensor | float | None = None,
        *,
        covariance: Tensor | None = None,
        power: float = 1.0,
        object: int | None = None,
    ) -> None:
        self._settle(power, object, f)
        if (std is None) == (covariance is None):
            raise ValueError("got both or neither of std and covariance; expected exactly one of them")
        self.f, self.y = f, torch.as_tensor(y).detach()
        if not self.y.is_floating_point():
            self.y = self.y.to(torch.get_default_dtype())
        if not bool(self.y.isfinite().all()):
            raise ValueError("y has NaN or infinite values; for missing values use Masked(y, mask, std)")
        count = self.y.numel()
        self.std: Tensor | None = None
        self.factor: Tensor | None = None
        if covariance is not None:
            covariance = torch.as_tensor(covariance).detach()
            if tuple(covariance.shape) != (count, count):
                raise ValueError(f"got a covariance of shape {tuple(covariance.shape)}; expected ({count}, {count})")
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if int(failed):
                raise ValueError("the covariance is not positive definite; add a little noise to its diagonal")
            self.factor = factor
            log_std = factor.diagonal().log().sum()
        else:
            self.std = torch.as_tensor(std, dtype=self.y.dtype, device=self.y.device).detach()
            if not bool((self.std > 0).all()) or not bool(self.std.isfinite().all()):
                raise ValueError(f"got std={std}; expected positive finite numbers")
            log_std = self.std.expand(self.y.shape).log().sum()
        self.log_norm = -float(log_std) - 0.5 * count * math.log(2 * math.pi)
        self._moved: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def _evidence(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """y and its standardiser on the device and in the dtype of `like`; moved once."""
        key = (like.device, like.dtype)
        if key not in self._moved:
            noise = self.factor
            if noise is None:
                assert self.std is not None  # one of the two is set
                noise = self.std if self.std.ndim == 0 else self.std.expand(self.y.shape).reshape(-1)
            self._moved[key] = (self.y.to(like), noise.to(like))
        return self._moved[key]

    def standardised(self, values: Tensor) -> Tensor:
        """N^(-1/2) values, flattened: (batch, k)."""
        flat = values.reshape(values.shape[0], -1)
        noise = self._evidence(flat)[1]
        if self.factor is not None:
            return torch.linalg.solve_triangular(noise, flat.mT, upper=False).mT
        return flat / noise

    def features(self, scene: Scene) -> Tensor:
        return scene.feature(self.f, self.object)

    def log_likelihood(self, scene: Scene) -> Tensor:
        values = self.features(scene)
        residual = self.standardised(values - self._evidence(values)[0].reshape(values.shape[1:]))
        return self.log_norm - 0.5 * residual.square().sum(-1)

    def coordinates(self, scene: Scene) -> Tensor:
        return self.standardised(self.features(scene))

    @property
    def log_bound(self) -> float:
        return self.log_norm

    def precision(self) -> tuple[Tensor, Tensor, float] | None:
        """(y, 1/variance, normaliser) over all of x if the evidence is a plain measurement of x, else None.

        The gradient of such evidence has a closed form: power * precision * (y - x).
        """
        if self.f is not None or self.factor is not None or self.object is not None or self.std is None:
            return None
        return self.y.flatten(), self.std.expand(self.y.shape).reshape(-1) ** -2, self.log_norm

    def check(self, scene: Scene) -> None:
        got = tuple(self.features(scene).shape[1:])
        if got != tuple(self.y.shape) and not math.prod(got) == self.y.numel() == 1:
            raise ValueError(f"f(x) has shape {got} and y has shape {tuple(self.y.shape)}; expected equal shapes")


class Masked(Gaussian):
    """x was measured as `y` with noise `std` where `mask` is 1; y is ignored elsewhere, NaN included."""

    def __init__(
        self,
        y: Tensor,
        mask: Tensor,
        std: Tensor | float,
        *,
        power: float = 1.0,
        object: int | None = None,
    ) -> None:
        observed = torch.as_tensor(mask).detach().bool()
        values = torch.as_tensor(y).detach()
        if observed.shape != values.shape:
            raise ValueError(
                f"got y of shape {tuple(values.shape)} and mask of shape {tuple(observed.shape)}; expected equal shapes"
            )
        noise = torch.as_tensor(std)
        noise = noise if noise.ndim == 0 else noise.expand(values.shape)[observed]
        super().__init__(None, values[observed], noise, power=power, object=object)
        self.mask, self.full_shape = observed, tuple(values.shape)
        self._index = observed.flatten().nonzero()[:, 0]

    def features(self, scene: Scene) -> Tensor:
        x = scene.view(self.object)
        return x.reshape(x.shape[0], -1).index_select(1, self._index_on(x.device))

    def _index_on(self, device: torch.device) -> Tensor:
        if self._index.device != device:
            self._index = self._index.to(device)
        return self._index

    def precision(self) -> tuple[Tensor, Tensor, float] | None:
        known = super().precision()
        if known is None:
            return None
        y, precision = (values.new_zeros(self.mask.numel()) for values in known[:2])
        index = self._index_on(y.device)
        y[index], precision[index] = known[0], known[1]
        return y, precision, known[2]

    def check(self, scene: Scene) -> None:
        got = tuple(scene.view(self.object).shape[1:])
        if got != self.full_shape:
            raise ValueError(f"x has shape {got} and mask has shape {self.full_shape}; expected equal shapes")


class Criterion(Constraint):
    """A preference, not a measurement: tilts the prior by exp(beta f(x)); f returns one number per x."""

    def __init__(self, f: Feature, beta: float = 1.0, power: float = 1.0, object: int | None = None) -> None:
        self._settle(power, object, f)
        if not math.isfinite(beta):
            raise ValueError(f"got beta={beta}; expected a finite number")
        self.f, self.beta = f, float(beta)

    def log_likelihood(self, scene: Scene) -> Tensor:
        values = scene.feature(self.f, self.object)
        return self.beta * (values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values)

    def check(self, scene: Scene) -> None:
        got = tuple(self.log_likelihood(scene).shape[1:])
        if got:
            raise ValueError(f"f(x) has shape (batch, {', '.join(map(str, got))}); expected one number per x, (batch,)")

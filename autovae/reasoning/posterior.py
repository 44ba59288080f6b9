r"""LatentPosterior: the density of the source xi given evidence.

    log p(xi | evidence) = sum_c power_c log p_c(evidence_c | x(xi)) - |xi|^2 / 2 - dim/2 log 2 pi  (+ constant)

with x(xi) = prior.decode(prior.from_normal(xi)). The prior of xi is N(0, I) for all families; every inference method
relies on that. Its metric (Fisher information of the evidence plus the prior's) is

    M(xi) = I + J^T J,       J = d theta / d xi,  theta = sqrt(power_c) * Fisher coordinates of constraint c, stacked.

Shapes: xi (..., dim); values (...). Functions are evaluated on flat batches; nothing here draws or optimises.
Not here: constraints (`constraints`, `logic`), faster gradients for plain networks (`gradient`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Constraint, Feature, Scene
from autovae.threads import flops_of

__all__ = ["LatentPosterior"]


class LatentPosterior:
    """Density of xi given evidence: a prior module and constraints, which all apply.

    Evidence that does not fit the generated x is refused on construction, with the name of the constraint.
    """

    def __init__(self, prior: PriorModule, constraints: Constraint | Sequence[Constraint], power: float = 1.0) -> None:
        self.prior = prior
        self.constraints = tuple(constraints) if isinstance(constraints, (list, tuple)) else (constraints,)
        for constraint in self.constraints:
            if not isinstance(constraint, Constraint):
                raise ValueError(
                    f"got {constraint!r}; expected a constraint such as Categorical(net, y) or Gaussian(...)"
                )
        if not power >= 0 or math.isinf(power):
            raise ValueError(f"got power={power}; expected a finite number >= 0")
        self.power = float(power)
        self._forward = True
        self._check()

    @property
    def latent_dim(self) -> int:
        return self.prior.latent_dim

    def with_power(self, power: float) -> LatentPosterior:
        """The same posterior with all evidence raised to `power`: 0 gives the prior, 1 this posterior."""
        return LatentPosterior(self.prior, self.constraints, self.power * power)

    # -- densities ----------------------------------------------------------------------------------------------

    def scene(self, xi: Tensor) -> Scene:
        """The generated x of xi (batch, dim), with features computed on demand."""
        return Scene(self.prior(xi), self.prior.objects)

    def log_likelihood(self, xi: Tensor) -> Tensor:
        """log p(evidence | xi), powers included, (..., dim) -> (...)."""
        flat = self._flat(xi)
        return self.log_likelihood_of(self.scene(flat), len(flat)).reshape(xi.shape[:-1])

    def log_likelihood_of(self, scene: Scene, batch: int) -> Tensor:
        """log p(evidence | x) of generated x, powers included, (batch,)."""
        values = [constraint.power * constraint.log_likelihood(scene) for constraint in self.constraints]
        if not values:
            return torch.zeros(batch, dtype=self.prior.dtype, device=self.prior.device)
        return self.power * (values[0] if len(values) == 1 else torch.stack(values).sum(0))

    def log_prior(self, xi: Tensor) -> Tensor:
        """log N(xi; 0, I)."""
        return -0.5 * xi.square().sum(-1) - 0.5 * self.latent_dim * math.log(2 * math.pi)

    def log_prob(self, xi: Tensor) -> Tensor:
        """log density of xi and the evidence, (..., dim) -> (...): the posterior up to the log evidence."""
        return self.log_likelihood(xi) + self.log_prior(xi)

    def value_and_gradient(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """`log_prob` and its gradient for xi (..., dim), both detached."""
        value, gradient = self.likelihood_and_gradient(xi)
        return value + self.log_prior(xi.detach()), gradient - xi.detach()

    def likelihood_and_gradient(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """`log_likelihood` and its gradient for xi (..., dim), both detached."""
        with torch.enable_grad():
            source = xi.detach().requires_grad_()
            value = self.log_likelihood(source)
            if not value.requires_grad:  # no constraint, or power 0
                return value.detach(), torch.zeros_like(xi)
            (gradient,) = torch.autograd.grad(value.sum(), source)
        return value.detach(), gradient

    def flops(self, batch: int) -> int:
        """Floating-point operations of `log_likelihood` for `batch` points, see `autovae.threads`."""
        return flops_of(lambda: self.log_likelihood(self._probe(1))) * batch

    # -- the metric ---------------------------------------------------------------------------------------------

    def coordinates(self, xi: Tensor) -> Tensor:
        """Fisher coordinates theta (batch, k) of xi (batch, dim), powers included; k = 0 if no evidence has any."""
        scene = self.scene(xi)
        parts = []
        for constraint in self.constraints:
            theta = constraint.coordinates(scene)
            if theta is not None:
                parts.append(math.sqrt(self.power * constraint.power) * theta)
        return torch.cat(parts, 1) if parts else xi.new_zeros(xi.shape[0], 0)

    def jacobian(self, xi: Tensor, chunk: int = 2048) -> tuple[Tensor, Tensor]:
        """theta (batch, k) and its derivative J (batch, k, dim).

        Pushes latents forward or pulls outputs back, whichever are fewer, in one batch per chunk; networks with layers
        that lack a forward derivative always pull back.
        """
        with torch.no_grad():
            theta = self.coordinates(xi)
        k = theta.shape[1]
        if k > 2 * self.latent_dim and self._forward:
            try:
                return theta, self._push_forward(xi.detach(), k, chunk)
            except (RuntimeError, NotImplementedError):
                self._forward = False
        return theta, self._pull_back(xi.detach(), k, chunk)

    def _push_forward(self, xi: Tensor, k: int, chunk: int) -> Tensor:
        """J by columns: one tangent per latent."""
        dim = self.latent_dim
        basis = torch.eye(dim, dtype=xi.dtype, device=xi.device)
        pieces = []
        for part in torch.arange(len(xi) * dim, device=xi.device).split(chunk):
            tangents = basis[part % dim]
            pieces.append(torch.func.jvp(self.coordinates, (xi[part // dim],), (tangents,))[1])
        return torch.cat(pieces).reshape(len(xi), dim, k).mT

    def _pull_back(self, xi: Tensor, k: int, chunk: int) -> Tensor:
        """J by rows: one gradient per output."""
        pieces = [xi.new_zeros(0, self.latent_dim)]
        for part in torch.arange(len(xi) * k, device=xi.device).split(chunk) if k else ():
            with torch.enable_grad():
                repeated = xi[part // k].requires_grad_()
                outputs = self.coordinates(repeated).gather(1, (part % k)[:, None])
                pieces.append(torch.autograd.grad(outputs.sum(), repeated)[0])
        return torch.cat(pieces).reshape(len(xi), k, self.latent_dim)

    @property
    def without_metric(self) -> list[str]:
        """Names of the constraints without an outcome, which do not contribute to the metric."""
        probe = self._probe()
        with torch.no_grad():
            scene = self.scene(probe)
            return [c.name for c in self.constraints if c.coordinates(scene) is None]

    @property
    def log_bound(self) -> float:
        """An upper bound of `log_likelihood`, inf if a constraint has none."""
        bounds = [c.power * c.log_bound if c.power else 0.0 for c in self.constraints]
        return self.power * sum(bounds) if self.power else 0.0

    # -- answers ------------------------------------------------------------------------------------------------

    def decode(self, xi: Tensor, batch: int = 1000) -> Any:
        """x of xi (..., dim), in batches without gradients."""
        flat = self._flat(xi)
        with torch.no_grad():
            pieces = [self.prior(part) for part in flat.split(batch)]
        if not isinstance(pieces[0], Tensor):
            return pieces[0] if len(pieces) == 1 else pieces
        x = torch.cat(pieces)
        return x.reshape(*xi.shape[:-1], *x.shape[1:])

    def start(self, count: int, generator: torch.Generator, tries: int = 20) -> Tensor:
        """Draws of the prior (count, dim) at which the evidence is possible and its gradient finite.

        Raises `ValueError` that names the constraints which are impossible at every draw.
        """
        found: list[Tensor] = []
        seen: list[Tensor] = []
        for _ in range(tries):
            xi = self.prior.sample_normal(count, generator=generator)
            value, gradient = self.likelihood_and_gradient(xi)
            good = value.isfinite() & gradient.isfinite().all(-1)
            found.append(xi[good])
            seen.append(xi)
            if sum(map(len, found)) >= count:
                return torch.cat(found)[:count]
        if any(map(len, found)):
            some = torch.cat(found)
            return some[torch.arange(count, device=some.device) % len(some)]
        raise ValueError(self._why_impossible(torch.cat(seen)))

    def _why_impossible(self, xi: Tensor) -> str:
        with torch.no_grad():
            scene = self.scene(xi)
            worst = [c.name for c in self.constraints if not bool(c.log_likelihood(scene).isfinite().any())]
        blame = ", ".join(worst) if worst else "the constraints together"
        return (
            f"the evidence is impossible for {blame}: log probability or gradient not finite at all {len(xi)} draws of "
            "the prior; widen the noise, lower the power, or use evidence that the prior can generate"
        )

    # -- inside -------------------------------------------------------------------------------------------------

    def _flat(self, xi: Tensor) -> Tensor:
        if xi.ndim < 1 or xi.shape[-1] != self.latent_dim:
            raise ValueError(f"got xi of shape {tuple(xi.shape)}; expected (..., {self.latent_dim})")
        return xi.reshape(-1, self.latent_dim)

    def example(self, feature: Feature) -> Tensor:
        """The feature of three draws of the prior, for its shape."""
        with torch.no_grad():
            return self.scene(self._probe()).feature(feature)

    def _probe(self, count: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return self.prior.sample_normal(count, generator=generator)

    def _check(self) -> None:
        probe = self._probe()
        with torch.no_grad():
            scene = self.scene(probe)
            self.generates_tensors = isinstance(scene.x, Tensor)
            for constraint in self.constraints:
                made = _shape(scene.x)
                try:
                    constraint.check(scene)
                    value = constraint.log_likelihood(scene)
                except (RuntimeError, ValueError, IndexError, TypeError) as error:
                    raise ValueError(f"{constraint.name} does not fit the generated x, {made}: {error}") from error
                if not isinstance(value, Tensor) or tuple(value.shape) != (len(probe),):
                    raise ValueError(
                        f"{constraint.name} gave log likelihoods {_shape(value)}; expected one per x, ({len(probe)},)"
                    )
                if bool(value.isnan().all()):
                    raise ValueError(f"{constraint.name} is not a number (NaN) at every draw of the prior")


def _shape(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"

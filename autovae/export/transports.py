r"""Transports: invertible maps of the source that turn one prior module into another.

A prior module draws xi ~ N(0, I). A transport T puts a bijection in front of it, u = T(xi), and u then plays the role
that xi had: z = F^-1(Phi(u)), x = decoder(z). A fitted answer (a Gaussian in xi space) and a density fitted to the
encoded data (a flow) are both transports, which is why an answer is again a prior module.

Contract, for tensors of shape (..., dim) and log determinants of shape (...):

    u, log_det = transport(xi)                log_det = log |det du/dxi|
    xi, log_det = transport.inverse(u)        log_det = log |det dxi/du|

A mixture or a flow is such a map, too (`MixtureMap`, `FlowMap`): a learned prior or a density of the encoded data keeps a
standard-normal source.

To add one: subclass `Transport`, write `forward`, `inverse` and `config`, add it to TRANSPORTS.
Not here: how a transport is fitted, see `reasoning` (answers), `beliefs.learned_priors` (priors learned in training) and
`export.ex_post` (densities of the encoded data).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autovae.beliefs.flows import Flow
from autovae.beliefs.mixtures import from_normal, to_normal
from autovae.registry import lookup

__all__ = ["TRANSPORTS", "Affine", "Blocks", "Chain", "FlowMap", "MixtureMap", "Transport"]


class Transport(nn.Module):
    """An invertible map of the source with its log determinant."""

    dim: int

    @abstractmethod
    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """(u, log |det du/dxi|)."""

    @abstractmethod
    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(xi, log |det dxi/du|)."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain values from which `TRANSPORTS[config["kind"]].from_config` builds one of the same shapes."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> Transport:
        """A transport of these shapes; its tensors are then loaded from the state dict."""


class Affine(Transport):
    """u = loc + root xi: `root` is a vector (mean field) or a square matrix (full covariance root root^T)."""

    loc: Tensor
    root: Tensor

    def __init__(self, loc: Tensor, root: Tensor) -> None:
        super().__init__()
        dim = loc.shape[-1]
        if loc.ndim != 1 or tuple(root.shape) not in {(dim,), (dim, dim)}:
            raise ValueError(
                f"got loc of shape {tuple(loc.shape)} and root of shape {tuple(root.shape)}; "
                "expected (dim,) and either (dim,) or (dim, dim)"
            )
        self.dim = dim
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("root", root.detach().clone())

    def log_det(self) -> Tensor:
        if self.root.ndim == 1:
            return self.root.abs().log().sum()
        return torch.linalg.slogdet(self.root).logabsdet

    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        moved = xi * self.root if self.root.ndim == 1 else xi @ self.root.mT
        return self.loc + moved, self.log_det().expand(xi.shape[:-1])

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        centred = u - self.loc
        if self.root.ndim == 1:
            xi = centred / self.root
        else:
            xi = torch.linalg.solve(self.root, centred.reshape(-1, self.dim).mT).mT.reshape(u.shape)
        return xi, (-self.log_det()).expand(u.shape[:-1])

    def config(self) -> dict[str, Any]:
        return {"kind": "affine", "dim": self.dim, "full": self.root.ndim == 2}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Affine:
        dim = int(config["dim"])
        return cls(torch.zeros(dim), torch.eye(dim) if config["full"] else torch.ones(dim))


class Blocks(Transport):
    """The same transport on each of `copies` equal blocks: what a product prior does to every object."""

    def __init__(self, transport: Transport, copies: int) -> None:
        super().__init__()
        self.transport, self.copies = transport, copies
        self.dim = transport.dim * copies

    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        u, log_det = self.transport(xi.unflatten(-1, (self.copies, -1)))
        return u.flatten(-2), log_det.sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        xi, log_det = self.transport.inverse(u.unflatten(-1, (self.copies, -1)))
        return xi.flatten(-2), log_det.sum(-1)

    def config(self) -> dict[str, Any]:
        return {"kind": "blocks", "copies": self.copies, "transport": self.transport.config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Blocks:
        return cls(build(config["transport"]), int(config["copies"]))


class Chain(Transport):
    """Transports applied one after the other, the first in the list first."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        super().__init__()
        dims = [transport.dim for transport in transports]
        if len(set(dims)) != 1:
            raise ValueError(f"got transports of sizes {dims}; expected one or more of the same size")
        self.transports = nn.ModuleList(transports)
        self.dim = dims[0]

    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        total = xi.new_zeros(xi.shape[:-1])
        for transport in self.transports:
            xi, log_det = transport(xi)
            total = total + log_det
        return xi, total

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        total = u.new_zeros(u.shape[:-1])
        for transport in reversed(self.transports):
            u, log_det = transport.inverse(u)  # type: ignore[operator]
            total = total + log_det
        return u, total

    def config(self) -> dict[str, Any]:
        return {"kind": "chain", "transports": [transport.config() for transport in self.transports]}  # type: ignore[operator]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Chain:
        return cls([build(part) for part in config["transports"]])


class MixtureMap(Transport):
    """u ~ a mixture of location-scale products: `loc` and `scale` (C, dim), `log_weights` (C,), a family a latent.

    Exact both ways (`beliefs.mixtures`); `forward` solves one equation a latent, one latent after the other.
    """

    loc: Tensor
    scale: Tensor
    log_weights: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, log_weights: Tensor, families: Sequence[str]) -> None:
        super().__init__()
        if (
            loc.ndim != 2
            or loc.shape != scale.shape
            or log_weights.shape != loc.shape[:1]
            or len(families) != loc.shape[1]
        ):
            raise ValueError(
                f"got loc {tuple(loc.shape)}, scale {tuple(scale.shape)}, log_weights {tuple(log_weights.shape)} and "
                f"{len(families)} families; expected (components, dim) twice, (components,) and one family a latent"
            )
        self.dim, self.families = loc.shape[1], tuple(families)
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("log_weights", log_weights.detach().log_softmax(0))

    def _law(self) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...]]:
        return self.loc, self.scale, self.log_weights, self.families

    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        u = from_normal(xi.reshape(-1, self.dim), *self._law()).view(xi.shape)
        return u, -self.inverse(u)[1]

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        xi, log_p = to_normal(u.reshape(-1, self.dim), *self._law())
        log_det = log_p + 0.5 * (xi.square().sum(-1) + self.dim * math.log(2 * math.pi))
        return xi.view(u.shape), log_det.view(u.shape[:-1])

    def config(self) -> dict[str, Any]:
        return {"kind": "mixture", "components": len(self.loc), "families": list(self.families)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MixtureMap:
        families = [str(name) for name in config["families"]]
        loc = torch.zeros(int(config["components"]), len(families))
        return cls(loc, torch.ones_like(loc), loc[:, 0], families)


class FlowMap(Transport):
    """u ~ a flow density: its `forward` direction u -> noise is one pass, so that `forward` here takes `passes`."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow, self.dim = flow, flow.dim

    def forward(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        u, log_det = self.flow.inverse(xi.reshape(1, -1, self.dim))
        return u.view(xi.shape), log_det.view(xi.shape[:-1])

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        xi, log_det = self.flow(u.reshape(1, -1, self.dim))
        return xi.view(u.shape), log_det.view(u.shape[:-1])

    def config(self) -> dict[str, Any]:
        flow = self.flow
        return {
            "kind": "flow",
            "dim": flow.dim,
            "passes": flow.passes,
            "layers": flow.layers,
            "hidden": list(flow.hidden),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FlowMap:
        hidden = tuple(int(width) for width in config["hidden"])
        return cls(Flow(int(config["dim"]), 0, int(config["passes"]), int(config["layers"]), hidden))


TRANSPORTS: dict[str, type[Transport]] = {
    "affine": Affine,
    "blocks": Blocks,
    "chain": Chain,
    "mixture": MixtureMap,
    "flow": FlowMap,
}


def build(config: dict[str, Any]) -> Transport:
    """The transport that `config` describes, with placeholder values."""
    return lookup(TRANSPORTS, config["kind"], "transport").from_config(config)

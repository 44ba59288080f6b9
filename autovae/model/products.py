r"""Products of a chain of linear layers, in two axes or stacked by member, and what becomes of them on the way.

    affine     f(h W + b)                  f the identity or a rectifier
    product    a b                         gradients of weights h^T g, gradients of inputs g W^T
    rectified  (g W^T) where h > 0         and its sums over points, the gradient of the bias below

By torch, with its kernels for what follows the product; or `compiled`: by `native.product`, which does what follows while it
stores. Not here: when products are compiled (`training.precision`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from autovae import native

__all__ = ["FEWEST", "affine", "by_native", "product", "rectified"]

# Rows, columns and terms below which tiles and vectors would be mostly empty. Shapes alone decide, and not how many threads
# there are: what a member becomes must not depend on whether others train beside it.
FEWEST = 16


def by_native(compiled: bool, a: Tensor, b: Tensor) -> bool:
    """Whether this product is `native.product`'s."""
    if not compiled or a.dtype != torch.float32 or a.device.type != "cpu" or 1 not in a.stride()[-2:]:
        return False
    return min(*a.shape[-2:], b.shape[-1]) >= FEWEST


def affine(
    h: Tensor, weight: Tensor, bias: Tensor, rectify: bool, kernels: ModuleType | None, compiled: bool
) -> Tensor:
    """h W + b in one call, rectified too where that is asked for."""
    if by_native(compiled, h, weight):
        return native.product(h, weight, bias=bias, rectify=rectify)
    if kernels is None or not h.is_cuda:
        h = (torch.addmm if h.dim() == 2 else torch.baddbmm)(bias, h, weight)
        return h.clamp_(min=0) if rectify else h
    h = _torch(h)(h, weight)
    members = weight.shape[0] if weight.dim() == 3 else 1
    kernels.add_bias_(h.view(members, -1, h.shape[-1]), bias, rectify)
    return h


def _torch(a: Tensor) -> Callable[..., Tensor]:
    """One product is faster than a batch of one."""
    return torch.mm if a.dim() == 2 else torch.bmm


def product(a: Tensor, b: Tensor, compiled: bool, out: Tensor | None = None) -> Tensor:
    """a b, in the type of `out` where that is given, which may be wider than the factors'."""
    if by_native(compiled, a, b):
        return native.product(a, b, out=out)
    if out is None:
        return _torch(a)(a, b)
    if a.dtype == out.dtype:
        return _torch(a)(a, b, out=out)
    return _torch(a)(a, b, out.dtype, out=out)


def rectified(g: Tensor, weight: Tensor, h: Tensor, kernels: ModuleType, compiled: bool) -> tuple[Tensor, Tensor]:
    """g W^T where h is positive, else 0, and its sums over points in float32."""
    if by_native(compiled, g, weight.mT):
        sums = g.new_empty(*g.shape[:-2], 1, h.shape[-1])
        return native.product(g, weight.mT, kept=h, sums=sums), sums
    g = _torch(g)(g, weight.mT)
    if g.dim() == 3:
        return g, kernels.rectify_back(g, h)
    return g, kernels.rectify_back(g.unsqueeze(0), h.unsqueeze(0)).squeeze(0)

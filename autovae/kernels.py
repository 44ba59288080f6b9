# mypy: disable-error-code="no-untyped-def"
r"""Triton kernels of a training step on CUDA: what batched products leave over, with each tensor read and written once.

A population's step moves memory: between products of a few hundred columns, every elementwise operation passes over all
activations of all members. Three such stretches are most of it, and each is one kernel here:

    add_bias_      h <- f(h + b)                        f the identity or a rectifier
    rectify_back   g <- g where h > 0, else 0; and its sum over rows: the gradient of the bias below
    linear_in_x    sum_j x_j eta_j - A(eta_j), and the slope x_j - A'(eta_j): heads that are linear in x

Arithmetic is float32; tensors may be float32 or bfloat16. Tensors are contiguous, (P, N, F) unless said otherwise.
Importing this file needs Triton, which comes with torch's CUDA builds; `fused` decides whether it is used.
Not here: gradients as autograd wants them (`model.stacks`, `beliefs.likelihoods`), which have the same steps in torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["HEADS", "add_bias_", "linear_in_x", "rectify_back"]

HEADS: dict[str, int] = {"bernoulli": 0, "continuous_bernoulli": 1}
BLOCK = 1024  # numbers a program takes at once
BIAS_ROWS, BIAS_COLUMNS = 16, 128  # of a tile that shares a bias: no number is divided to find its column
ROWS, COLUMNS = 64, 64  # of a tile whose columns are summed


@triton.jit
def _add_bias(h, bias, rows, features, RECTIFY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    member = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for first in range(0, features, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        here = (row < rows)[:, None] & (column < features)[None, :]
        place = (member * rows + row)[:, None] * features + column[None, :]
        value = tl.load(h + place, mask=here, other=0.0).to(tl.float32)
        value += tl.load(bias + member * features + column, mask=column < features, other=0.0).to(tl.float32)[None, :]
        if RECTIFY:
            value = tl.where(value < 0, 0.0, value)  # nan stays
        tl.store(h + place, value.to(h.dtype.element_ty), mask=here)


def add_bias_(h: Tensor, bias: Tensor, rectify: bool) -> Tensor:
    """h (P, N, F) + bias (P, 1, F), rectified or not, in place."""
    members, rows, features = h.shape
    grid = (triton.cdiv(rows, BIAS_ROWS), members)
    _add_bias[grid](h, bias, rows, features, RECTIFY=rectify, ROWS=BIAS_ROWS, COLUMNS=BIAS_COLUMNS)
    return h


@triton.jit
def _rectify_back(g, h, sums, rows, features, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    member = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    held = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)
        here = (row < rows)[:, None] & (column < features)[None, :]
        place = (member * rows + row)[:, None] * features + column[None, :]
        gradient = tl.load(g + place, mask=here, other=0.0)
        gradient = tl.where(tl.load(h + place, mask=here, other=0.0) > 0, gradient, 0.0)
        tl.store(g + place, gradient, mask=here)
        held += gradient.to(tl.float32)
    tl.store(sums + member * features + column, tl.sum(held, 0), mask=column < features)


def rectify_back(g: Tensor, h: Tensor) -> Tensor:
    """Sets g to 0 where h is not positive, both (P, N, F), and gives its sum over rows, (P, 1, F), float32."""
    members, rows, features = g.shape
    sums = torch.empty(members, 1, features, dtype=torch.float32, device=g.device)
    _rectify_back[(members, triton.cdiv(features, COLUMNS))](g, h, sums, rows, features, ROWS=ROWS, COLUMNS=COLUMNS)
    return sums


@triton.jit
def _log_partition(eta, HEAD: tl.constexpr):
    """A(eta) and A'(eta): log(1 + exp eta), or log of the integral of exp(x eta) over [0, 1]."""
    a = tl.abs(eta)
    e = tl.exp(-a)
    if HEAD == 0:
        value = tl.where(eta > 0, eta, 0.0) + tl.log(1 + e)
        mean = tl.where(eta >= 0, 1.0, e) / (1 + e)
    else:  # direct forms cancel near 0; both series reach float32's accuracy at 1
        square = a * a
        rest = tl.where(a < 1, 0.5, 1 - e)
        far = tl.where(a < 1, 1.0, a)
        near = a * (-1 / 2 + a * (1 / 24 + square * (-1 / 2880 + square * (1 / 181440 - square / 9676800))))
        value = tl.where(eta > 0, eta, 0.0) + tl.where(a < 1, near, tl.log(rest) - tl.log(far))
        near = a * (1 / 12 + square * (-1 / 720 + square * (1 / 30240 + square * (-1 / 1209600 + square / 47900160))))
        beyond = tl.where(a < 1, near, 1 / rest - 1 / far - 0.5)
        mean = 0.5 + tl.where(eta < 0, -beyond, beyond)
    return value, mean


@triton.jit
def _linear_in_x(x, eta, value, slope, points, features, HEAD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    held = tl.zeros((BLOCK,), dtype=tl.float32)
    for first in range(0, features, BLOCK):
        column = first + tl.arange(0, BLOCK)
        here = column < features
        logit = tl.load(eta + row * features + column, mask=here, other=0.0).to(tl.float32)
        point = tl.load(x + (row % points) * features + column, mask=here, other=0.0).to(tl.float32)
        normaliser, mean = _log_partition(logit, HEAD)
        held += tl.where(here, point * logit - normaliser, 0.0)
        tl.store(slope + row * features + column, (point - mean).to(slope.dtype.element_ty), mask=here)
    tl.store(value + row, tl.sum(held, 0))


def linear_in_x(x: Tensor, eta: Tensor, head: str) -> tuple[Tensor, Tensor]:
    """For x (B, F) and eta (..., B, F): the sums (..., B), float32, and the slopes, like eta."""
    value = torch.empty(eta.shape[:-1], dtype=torch.float32, device=eta.device)
    slope = torch.empty_like(eta)
    points, features = x.shape
    block = min(BLOCK, triton.next_power_of_2(features))
    _linear_in_x[(value.numel(),)](x, eta, value, slope, points, features, HEAD=HEADS[head], BLOCK=block)
    return value, slope

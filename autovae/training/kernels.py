# mypy: disable-error-code="no-untyped-def"
r"""Triton kernels of a training step on CUDA: what batched products leave over, with each tensor read and written once.

A population's step moves memory: between products of a few hundred columns, every elementwise operation passes over all
activations of all members, and the optimizer over all weights. Such stretches are most of it, and each is one kernel:

    add_bias_      h <- f(h + b)                        f the identity or a rectifier
    rectify_back   g <- g where h > 0, else 0; and its sum over rows: the gradient of the bias below
    linear_in_x    sum_j x_j eta_j - A(eta_j), and the slope x_j - A'(eta_j): heads that are linear in x
    scale_rows_    s <- s g, a factor for each row: the chain rule of such a head
    adam_          a step of Adam with a rate for each member, and the weights in a narrower type for the next products

Arithmetic is float32; tensors may be float32 or bfloat16. Tensors are contiguous, (P, N, F) unless said otherwise.
Importing this file needs Triton, which comes with torch's CUDA builds; `fused` decides whether it is used.
Not here: when they are used, and gradients as autograd wants them (`cuda`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["HEADS", "adam_", "add_bias_", "flushes", "linear_in_x", "rectify_back", "scale_rows_"]

HEADS: dict[str, int] = {"bernoulli": 0, "continuous_bernoulli": 1}
BLOCK = 1024  # numbers a program takes at once
# Tiles, by measurement on an H200: rows and columns that share a bias or a factor; whose columns are summed; members
# that meet one point, and how many of its features.
WIDE = (4, 1024)
SUMMED, SUMMED_WARPS = (16, 256), 8
MET = (8, 64)
FACTORS = 64  # numbers of [1, 2] whose product is kept before its logarithm is taken


def _tile(tile: tuple[int, int], features: int) -> tuple[int, int]:
    """A tile of as many numbers, no wider than it need be."""
    rows, columns = tile
    narrow = min(columns, max(16, triton.next_power_of_2(features)))
    return rows * columns // narrow, narrow


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
    tile, columns = _tile(WIDE, features)
    _add_bias[(triton.cdiv(rows, tile), members)](h, bias, rows, features, RECTIFY=rectify, ROWS=tile, COLUMNS=columns)
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
    tile, columns = _tile(SUMMED, features)
    grid = (members, triton.cdiv(features, columns))
    _rectify_back[grid](g, h, sums, rows, features, ROWS=tile, COLUMNS=columns, num_warps=SUMMED_WARPS)
    return sums


@triton.jit
def _continuous(eta, a, e):
    """log of the integral of exp(x eta) over [0, 1], less max(eta, 0), and its derivative; a = |eta|, e = exp(-a).

    Direct forms cancel near 0; both series reach float32's accuracy at 1.
    """
    square = a * a
    rest = tl.where(a < 1, 0.5, 1 - e)
    far = tl.where(a < 1, 1.0, a)
    near = a * (-1 / 2 + a * (1 / 24 + square * (-1 / 2880 + square * (1 / 181440 - square / 9676800))))
    value = tl.where(a < 1, near, tl.log(rest / far))
    near = a * (1 / 12 + square * (-1 / 720 + square * (1 / 30240 + square * (-1 / 1209600 + square / 47900160))))
    beyond = tl.where(a < 1, near, 1 / rest - 1 / far - 0.5)
    return value, 0.5 + tl.where(eta < 0, -beyond, beyond)


@triton.jit
def _linear_in_x(
    x, eta, value, slope, rows, points, features,
    HEAD: tl.constexpr, STACKED: tl.constexpr, FEATURES: tl.constexpr, FACTORS: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0)
    row = (tl.program_id(1) * STACKED + tl.arange(0, STACKED)).to(tl.int64) * points + point
    held = tl.zeros((STACKED, FEATURES), dtype=tl.float32)
    factors = held + 1
    for first in range(0, features, FEATURES):
        column = first + tl.arange(0, FEATURES)
        here = (row < rows)[:, None] & (column < features)[None, :]
        place = row[:, None] * features + column[None, :]
        logit = tl.load(eta + place, mask=here, other=0.0).to(tl.float32)
        pixel = tl.load(x + point * features + column, mask=column < features, other=0.0).to(tl.float32)[None, :]
        a = tl.abs(logit)
        e = tl.exp(-a)
        part = pixel * logit - tl.where(logit > 0, logit, 0.0)
        if HEAD == 0:  # log(1 + e), by one logarithm for many factors
            factors *= tl.where(here, 1 + e, 1.0)
            mean = tl.where(logit >= 0, 1.0, e) / (1 + e)
            if first // FEATURES % FACTORS == FACTORS - 1:
                held -= tl.log(factors)
                factors = tl.zeros((STACKED, FEATURES), dtype=tl.float32) + 1
        else:
            more, mean = _continuous(logit, a, e)
            part -= more
        held += tl.where(here, part, 0.0)
        tl.store(slope + place, (pixel - mean).to(slope.dtype.element_ty), mask=here)
    if HEAD == 0:
        held -= tl.log(factors)
    tl.store(value + row, tl.sum(held, 1), mask=row < rows)


def linear_in_x(x: Tensor, eta: Tensor, head: str, slopes: bool = True) -> tuple[Tensor, Tensor]:
    """For x (B, F) and eta (..., B, F): the sums (..., B), float32, and the slopes, like eta, asked for or not."""
    value = torch.empty(eta.shape[:-1], dtype=torch.float32, device=eta.device)
    slope = torch.empty_like(eta)
    points, features = x.shape
    rows, (most, wide) = value.numel(), MET
    stacked = min(most, triton.next_power_of_2(rows // points))
    grid = (points, triton.cdiv(rows // points, stacked))
    _linear_in_x[grid](
        x, eta, value, slope, rows, points, features,
        HEAD=HEADS[head], STACKED=stacked, FEATURES=wide, FACTORS=FACTORS,
    )  # fmt: skip
    return value, slope


@triton.jit
def _scale_rows(values, factor, rows, features, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    by = tl.load(factor + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    for first in range(0, features, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        here = (row < rows)[:, None] & (column < features)[None, :]
        place = row[:, None] * features + column[None, :]
        value = tl.load(values + place, mask=here, other=0.0).to(tl.float32) * by
        tl.store(values + place, value.to(values.dtype.element_ty), mask=here)


def scale_rows_(values: Tensor, factor: Tensor) -> Tensor:
    """values (..., F) times factor (...), in place."""
    rows, features = factor.numel(), values.shape[-1]
    tile, columns = _tile(WIDE, features)
    _scale_rows[(triton.cdiv(rows, tile),)](values, factor, rows, features, ROWS=tile, COLUMNS=columns)
    return values


def flushes() -> bool:
    """Whether subnormal numbers cost no more than others: a GPU does not mind them."""
    return True


@triton.jit
def _adam(
    values, gradient, means, squares, narrow, rates, corrections, size, apart,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPSILON: tl.constexpr, NARROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1).to(tl.int64)
    within = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = within < size
    place = member * size + within
    rate = tl.load(rates + member) / tl.load(corrections)
    shrink = tl.sqrt(tl.load(corrections + 1))
    g = tl.load(gradient + place, mask=here, other=0.0)
    mean = BETA1 * tl.load(means + place, mask=here, other=0.0) + (1 - BETA1) * g
    square = BETA2 * tl.load(squares + place, mask=here, other=0.0) + (1 - BETA2) * g * g
    value = tl.load(values + place, mask=here, other=0.0) - rate * mean / (tl.sqrt(square) / shrink + EPSILON)
    tl.store(means + place, mean, mask=here)
    tl.store(squares + place, square, mask=here)
    tl.store(values + place, value, mask=here)
    if NARROW:
        tl.store(narrow + member * apart + within, value.to(narrow.dtype.element_ty), mask=here)


def adam_(
    values: Tensor,
    gradient: Tensor,
    means: Tensor,
    squares: Tensor,
    narrow: Tensor | None,
    rates: Tensor,
    corrections: Tensor,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """A step of Adam on values (P, ...), float32, in place; `narrow` becomes the new values in its own type.

    Members of `narrow` may lie apart from each other, each is contiguous.
    rates (P,); corrections (2,) holds 1 - beta^t for both betas, t the number of this step.
    """
    members, size = len(values), values[0].numel()
    block = min(BLOCK, triton.next_power_of_2(size))
    _adam[(triton.cdiv(size, block), members)](
        values, gradient, means, squares, values if narrow is None else narrow, rates, corrections, size,
        size if narrow is None else narrow.stride(0),
        BETA1=betas[0], BETA2=betas[1], EPSILON=epsilon, NARROW=narrow is not None, BLOCK=block,
    )  # fmt: skip

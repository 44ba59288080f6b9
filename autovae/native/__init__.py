r"""Kernels of a training step on a processor, in C: what torch does in several passes in one, and faster products.

    linear_in_x    sum_j x_j eta_j - A(eta_j), and the slope x_j - A'(eta_j): heads that are linear in x
    scale_rows_    s <- s g, a factor for each row: the chain rule of such a head
    rectify_back   g <- g where h > 0, else 0; and its sum over rows: the gradient of the bias below
    adam_          a step of Adam with a rate for each member, and the weights in a narrower type for the next products
    middles        points of whole levels, chosen by their places, as a network sees them
    normal_latents a normal posterior's draws and its divergence from the standard normal, and their slopes
    product        A B, by a matrix unit from factors that are sums of two bfloat16 numbers, or by vectors in float32

Tensors are contiguous, (P, N, F) and float32 unless said otherwise. The first four are the same functions as
`autovae.kernels` has for CUDA; `fused` decides whether they are used. Another type or layout is refused. `chains` has
whole chains of products, and Adam on many tensors along them, in one call.
Not here: gradients as autograd wants them (`model.stacks`, `beliefs.likelihoods`), which have the same steps in torch;
whether products are exact enough to be used (`training.precision`).
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from autovae.native.library import load_library

__all__ = [
    "HEADS",
    "MULTIPLIERS",
    "adam_",
    "flushes",
    "linear_in_x",
    "middles",
    "multiplies",
    "multiplies_by",
    "normal_latents",
    "normal_latents_back",
    "product",
    "rectify_back",
    "scale_rows_",
    "serves",
]

# By their places in C: vectors of 512 or 256 bits that multiply and add at once; a matrix unit (AMX) that the system lends.
MULTIPLIERS: tuple[str | None, ...] = (None, "vectors", "matrix unit")
HEADS: dict[str, int] = {"bernoulli": 0, "continuous_bernoulli": 1}

_whole, _at = ctypes.c_long, ctypes.c_void_p


@functools.cache
def _functions() -> ctypes.CDLL | None:
    found = load_library()
    return None if found is None else _declared(found)


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    """The library, its functions with the types that they take."""
    found.linear_in_x.argtypes = [_whole] * 4 + [_at] * 4 + [_whole]
    found.scale_rows.argtypes = [_whole, _whole, _at, _at, _whole]
    found.middles.argtypes = [*[_whole] * 3, _at, _at, ctypes.c_float, _at]
    found.normal_latents.argtypes = [*[_whole] * 4, _at, _at, _whole, _whole, ctypes.c_float, *[_at] * 3, _whole]
    found.normal_latents_back.argtypes = [*[_whole] * 4, _at, _at, _whole, _whole, ctypes.c_float, *[_at] * 4, _whole]
    found.rectify_back.argtypes = [_whole] * 3 + [_at] * 3 + [_whole]
    found.adam.argtypes = [_whole, _whole, *[_at] * 5, _whole, _at, *[ctypes.c_double] * 4, ctypes.c_float, _whole]
    found.products_by.argtypes = [ctypes.c_int]
    without = (found.linear_in_x, found.scale_rows, found.normal_latents, found.normal_latents_back)
    for function in (*without, found.rectify_back, found.adam):
        function.restype = None
    found.adam_steps.argtypes = [_whole, _at, _at, *[ctypes.c_double] * 4, ctypes.c_float, _whole]
    if hasattr(found, "products"):
        flag, factor = ctypes.c_int, (_at, _whole, _whole, ctypes.c_int)
        found.products.argtypes = [*[_whole] * 4, *factor, *factor, _at, _whole, _at, flag, _at, _at, _whole]
        found.chain_forward.argtypes = [*[_whole] * 3, _at, _at, _whole, _at, _whole]
        found.chain_backward.argtypes = [*[_whole] * 3, *[_at] * 6, _whole]
        found.whole_step.argtypes = [*[_at] * 4, _whole, _whole, ctypes.c_double, ctypes.c_double, _whole]
    return found


def serves() -> bool:
    """Whether there is a compiled library."""
    return _functions() is not None


def multiplies_by() -> str | None:
    """What `product` multiplies by, of `MULTIPLIERS`: the last that can be had, None without a library."""
    found = _functions()
    return None if found is None else _multiplier(found)


@functools.cache
def _multiplier(found: ctypes.CDLL) -> str | None:
    return MULTIPLIERS[found.products_by(len(MULTIPLIERS) - 1)]


def multiplies() -> bool:
    """Whether `product` can be had."""
    return multiplies_by() is not None


def flushes() -> bool:
    """Whether `adam_` takes subnormal numbers for zero."""
    return bool(compiled().flushes())


def compiled() -> ctypes.CDLL:
    """The library's functions, which are handed addresses and check nothing."""
    found = _functions()
    if found is None:
        raise RuntimeError("there is no compiled library here (no C compiler, or AUTOVAE_NATIVE=0): ask serves() first")
    return found


def address(values: Tensor | None, numbers: int, dtype: torch.dtype = torch.float32) -> int | None:
    """Where numbers lie that C may read or write: in memory, so many, of the right type, one after the other."""
    if values is None:
        return None
    if values.dtype != dtype or not values.is_contiguous() or values.device.type != "cpu" or values.numel() != numbers:
        form = "contiguous" if values.is_contiguous() else "not contiguous"
        raise ValueError(
            f"got {values.numel()} numbers of {values.dtype} on {values.device}, {form}, "
            f"expected {numbers} of {dtype}, contiguous, on a CPU"
        )
    return values.data_ptr()


def linear_in_x(x: Tensor, eta: Tensor, head: str, slopes: bool = True) -> tuple[Tensor, Tensor]:
    """For x (B, F) and eta (..., B, F): the sums (..., B), and the slopes, like eta (empty unless asked for)."""
    value = eta.new_empty(eta.shape[:-1])
    slope = torch.empty_like(eta) if slopes else eta.new_empty(0)
    rows, (points, features) = value.numel(), x.shape
    if eta.shape[-2:] != x.shape:
        raise ValueError(
            f"got x of shape {tuple(x.shape)} for logits of shape {tuple(eta.shape)}, expected (..., B, F)"
        )
    x = x.to(eta.dtype)  # named: what has no name is gone before C reads it
    compiled().linear_in_x(
        HEADS[head], rows, points, features, address(x, points * features), address(eta, rows * features),
        address(value, rows), address(slope, rows * features) if slopes else None, torch.get_num_threads(),
    )  # fmt: skip
    return value, slope


def middles(values: Tensor, places: Tensor, levels: int) -> Tensor:
    """(v + 1/2) / levels, (B, F) in float32, of the levels v at places (B,) of values (N, F), of uint8."""
    (count, features), rows = values.shape, places.numel()
    result = torch.empty(rows, features, dtype=torch.float32)
    outside = compiled().middles(
        rows, features, count, address(values, count * features, torch.uint8), address(places, rows, torch.int64),
        levels, address(result, rows * features),
    )  # fmt: skip
    if outside:
        raise IndexError(f"got a place outside of {count} points")
    return result


def scale_rows_(values: Tensor, factor: Tensor) -> Tensor:
    """values (..., F) times factor (...), in place."""
    rows, features, threads = factor.numel(), values.shape[-1], torch.get_num_threads()
    compiled().scale_rows(rows, features, address(values, rows * features), address(factor, rows), threads)
    return values


def normal_latents(raw: Tensor, xi: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """scale (P, B, D), z (P, K B, D) and KL (P, B) of the posterior N(m, scale^2) from the standard normal.

    raw (P, B, 2 D) has m and s, scale = exp(s) with s kept within +-limit; z = m + scale xi with xi (P, K, B, D).
    """
    members, samples, points, latents = sizes = _of_latents(raw, xi)
    scale, z = raw.new_empty(members, points, latents), raw.new_empty(members, samples * points, latents)
    kl = raw.new_empty(members, points)
    compiled().normal_latents(
        *sizes, raw.data_ptr(), *samples_of(xi), limit, scale.data_ptr(), z.data_ptr(), kl.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return scale, z, kl


def normal_latents_back(raw: Tensor, xi: Tensor, limit: float, scale: Tensor, of_z: Tensor, of_kl: Tensor) -> Tensor:
    """The gradient of raw from those of z and KL."""
    members, samples, points, latents = sizes = _of_latents(raw, xi)
    rows, slope = members * points, torch.empty_like(raw)
    compiled().normal_latents_back(
        *sizes, raw.data_ptr(), *samples_of(xi), limit, address(scale, rows * latents),
        address(of_z, samples * rows * latents), address(of_kl, rows), slope.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return slope


def _of_latents(raw: Tensor, xi: Tensor) -> tuple[int, int, int, int]:
    """Members, samples, points and latents."""
    members, samples, points, latents = xi.shape
    address(raw, 2 * members * points * latents)
    if raw.shape != (members, points, 2 * latents):
        raise ValueError(
            f"got raw outputs of shape {tuple(raw.shape)} for noise of shape {tuple(xi.shape)}, expected (P, B, 2 D) and "
            "(P, K, B, D)"
        )
    return members, samples, points, latents


def samples_of(xi: Tensor) -> tuple[int, int, int]:
    """Where noise (P, K, B, D) lies, and numbers from member to member and from sample to sample."""
    apart, step, row, column = xi.stride()
    points, latents = xi.shape[2:]
    beside = (row == latents or points == 1) and (column == 1 or latents == 1)
    if xi.dtype != torch.float32 or xi.device.type != "cpu" or not beside:
        raise ValueError(
            f"got noise of {xi.dtype} on {xi.device}, strides {xi.stride()}, expected float32 on a CPU, each sample's "
            "numbers contiguous"
        )
    return xi.data_ptr(), apart, step


def rectify_back(g: Tensor, h: Tensor) -> Tensor:
    """Sets g to 0 where h is not positive, both (P, N, F), and gives its sum over rows, (P, 1, F)."""
    members, rows, features = g.shape
    sums, size = g.new_empty(members, 1, features), g.numel()
    compiled().rectify_back(
        members, rows, features, address(g, size), address(h, size), address(sums, members * features),
        torch.get_num_threads(),
    )  # fmt: skip
    return sums


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
    """A step of Adam on values (P, ...) in place; `narrow` becomes the new values in its own type, bfloat16.

    Members of `narrow` may lie apart from each other, each is contiguous.
    rates (P,); corrections (2,) holds 1 - beta^t for both betas, t the number of this step.
    """
    (first, second), members, size = corrections.tolist(), len(values), values.numel()
    if narrow is not None and (narrow.dtype != torch.bfloat16 or not narrow[0].is_contiguous()):
        raise ValueError(f"got copies of {narrow.dtype}, strides {narrow.stride()}, expected bfloat16, each contiguous")
    compiled().adam(
        members, size // members, address(values, size), address(gradient, size), address(means, size),
        address(squares, size), None if narrow is None else narrow.data_ptr(),
        0 if narrow is None else narrow.stride(0), address(rates, members),
        1 / first, *betas, second**0.5, epsilon, torch.get_num_threads(),
    )  # fmt: skip
    torch.autograd.graph.increment_version(values)  # a graph that saved them is stale now


def product(
    a: Tensor,
    b: Tensor,
    out: Tensor | None = None,
    bias: Tensor | None = None,
    rectify: bool = False,
    kept: Tensor | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    """a b, (M, N) of a (M, K) and b (K, N), or of each member of (P, M, K) and (P, K, N).

    Rows or columns of a factor lie side by side; members that share a factor may share its memory. Then, in this order:
    `bias` (1, N) is added, negative results become 0 where `rectify`, those are 0 where `kept` (M, N) is not positive,
    and `sums` (1, N) becomes their sums over rows; each for every member, contiguous like `out`. By vectors the
    relative error is float32's, some 3e-7. By a matrix unit it is some 4e-6, and what is infinite in a factor becomes
    nan, since its low half does.
    """
    members, m, n, k = sizes(a, b)
    out = a.new_empty(*a.shape[:-1], n) if out is None else out
    whole, wide = members * m * n, members * n
    failed = compiled().products(
        members, m, n, k, *layout(a), *layout(b), address(out, whole), m * n, address(bias, wide), rectify,
        address(kept, whole), address(sums, wide), torch.get_num_threads(),
    )  # fmt: skip
    had_room(failed)
    return out


def sizes(a: Tensor, b: Tensor) -> tuple[int, int, int, int]:
    """Members, rows and columns of a product and terms of its sums."""
    if not multiplies():
        raise RuntimeError(
            "this processor has no vectors wide enough, or there is no compiled library: ask multiplies() first"
        )
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if a.dim() not in (2, 3) or a.shape[:-2] != b.shape[:-2] or k != b.shape[-2] or not k:
        raise ValueError(
            f"got factors of shapes {tuple(a.shape)} and {tuple(b.shape)}, expected (M, K), (K, N) with K > 0"
        )
    return len(a) if a.dim() == 3 else 1, m, n, k


def had_room(failed: int) -> None:
    """Raise where C says that it had no memory."""
    if failed:
        raise MemoryError(
            "no room for a product's packed factors: give the minibatch fewer points, or the layers less width"
        )


def layout(values: Tensor) -> tuple[int, int, int, bool]:
    """Where it lies, numbers from member to member and from row to row in memory, whether those rows are columns."""
    *outer, rows, columns = values.stride()
    turned = columns != 1
    if values.dtype != torch.float32 or values.device.type != "cpu" or (turned and rows != 1):
        raise ValueError(
            f"got a factor of {values.dtype} on {values.device}, strides {values.stride()}, expected float32 on a CPU, rows "
            "or columns side by side"
        )
    return values.data_ptr(), outer[0] if outer else 0, columns if turned else rows, turned

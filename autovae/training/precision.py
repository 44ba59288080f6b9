"""The type and the kernels of products, checked first: a faster setting is only taken where it stays exact, or asked for.

`torch.set_float32_matmul_precision("medium")` lets CPU products take another kernel: on many chips twice as fast at
float32 accuracy, on chips with bfloat16 products three digits worse. There `native.product` splits each factor in two
such numbers, and loses one digit. So a product is measured before it is trusted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from autovae import native
from autovae.tables import lookup

__all__ = ["ERROR_LIMIT", "PRODUCTS", "fast_products", "product_error", "splits_products"]

ERROR_LIMIT = 1e-5
SPLIT = "bfloat16x3"  # three products of bfloat16 factors for one of float32 factors
_split = ContextVar("split", default=False)  # whether training products are split now, on processors
_measuring, _exact = threading.Lock(), dict[object, bool]()  # what was found, by device, and for SPLIT
PRODUCTS: dict[str, str] = {
    "fast": "float32, by the fastest kernels whose relative error stays below 1e-5",
    "float32": "torch's own setting, untouched",
    "tf32": "CUDA: factors rounded to 10 bits, sums and weights in float32",
    "bfloat16": "factors rounded to 7 bits, weights in float32",
}


def product_error(
    size: int = 192, device: torch.device | str = "cpu", product: Callable[[Tensor, Tensor], Tensor] = torch.mm
) -> float:
    """Relative error of a float32 product under the present setting, against float64."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = a.float().double() @ b.float().double()
    found = product(a.float().to(device), b.float().to(device)).cpu().double()
    return float((found - exact).norm() / exact.norm())


def _medium_is_exact(device: torch.device) -> bool:
    """Whether the faster kernels keep float32's accuracy on this device: measured once, one thread at a time."""
    with _measuring:
        if device not in _exact:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("medium")
            try:
                _exact[device] = product_error(device=device) <= ERROR_LIMIT
            finally:
                torch.set_float32_matmul_precision(before)
        return _exact[device]


def _split_is_exact() -> bool:
    """Whether there are products of split factors, and they are exact enough: measured once."""
    with _measuring:
        if SPLIT not in _exact:
            _exact[SPLIT] = native.multiplies() and product_error(product=native.product) <= ERROR_LIMIT
        return _exact[SPLIT]


def splits_products(device: torch.device | str) -> bool:
    """Whether training on this device takes products of split factors under the present setting."""
    return _split.get() and torch.device(device).type == "cpu"


@contextlib.contextmanager
def fast_products(products: str = "fast", device: torch.device | str = "cpu") -> Iterator[str]:
    """A setting of PRODUCTS, restored on leaving; yields its name: torch's own, or "bfloat16x3".

    "fast" means "medium" where that is exact on this device; else products of split factors where the processor has a
    matrix unit, of chains that are trained; else "highest". On CUDA "high" means TF32.
    """
    lookup(PRODUCTS, products, "setting of products")
    on_cuda = torch.device(device).type == "cuda"
    if products == "tf32" and not on_cuda:
        raise ValueError("products 'tf32' are CUDA's; on a CPU choose 'fast', 'float32' or 'bfloat16'")
    quick = products == "fast" and _medium_is_exact(torch.device(device))
    split = products == "fast" and not quick and not on_cuda and _split_is_exact()
    with _measuring:  # not while another thread tries a setting
        before = torch.get_float32_matmul_precision()
    token = _split.set(split)
    try:
        if products == "tf32":
            torch.set_float32_matmul_precision("high")
        elif products == "fast":
            torch.set_float32_matmul_precision("medium" if quick else "highest")
        yield SPLIT if split else torch.get_float32_matmul_precision()
    finally:
        _split.reset(token)
        torch.set_float32_matmul_precision(before)

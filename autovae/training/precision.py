"""The type and the kernels of products, checked first: a faster setting is only taken where it stays exact, or asked for.

On a CPU `native.product` multiplies by vectors as wide as the processor has, in float32, or by a matrix unit, for which it
makes each factor the sum of two bfloat16 numbers, and loses one digit. Torch's own products may be faster under
`torch.set_float32_matmul_precision("medium")`: on many chips at float32 accuracy, on chips with bfloat16 products three
digits worse. So a product is measured before it is trusted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from autovae import native
from autovae.registry import lookup

__all__ = ["COMPILED", "ERROR_LIMIT", "PRODUCTS", "compiled_products", "fast_products", "product_error"]

ERROR_LIMIT = 1e-5
# What `native.product` does, by what it multiplies by: float32 throughout, or three products of bfloat16 factors for one.
COMPILED: dict[str, str] = {"vectors": "vectors", "matrix unit": "bfloat16x3"}
_compiled = ContextVar("compiled", default=False)  # whether training's products are `native.product`'s now
_measuring, _exact = threading.Lock(), dict[object, bool]()  # what was found, by device, and by name of COMPILED
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


def _compiled_name() -> str | None:
    """What `native.product` does, where it can be had and is exact enough: measured once."""
    if (by := native.multiplies_by()) is None:
        return None
    name = COMPILED[by]
    with _measuring:
        if name not in _exact:
            _exact[name] = product_error(product=native.product) <= ERROR_LIMIT
        return name if _exact[name] else None


def compiled_products(device: torch.device | str) -> bool:
    """Whether training on this device takes `native.product`'s products under the present setting."""
    return _compiled.get() and torch.device(device).type == "cpu"


@contextlib.contextmanager
def fast_products(products: str = "fast", device: torch.device | str = "cpu") -> Iterator[str]:
    """A setting of PRODUCTS, restored on leaving; yields its name: torch's own, or one of COMPILED.

    "fast" means torch's "medium" where that is exact on this device, else "highest"; and on a CPU, for chains that are
    trained, `native.product`'s where there are such. On CUDA "high" means TF32.
    """
    lookup(PRODUCTS, products, "setting of products")
    on_cuda = torch.device(device).type == "cuda"
    if products == "tf32" and not on_cuda:
        raise ValueError("products 'tf32' are CUDA's; on a CPU choose 'fast', 'float32' or 'bfloat16'")
    quick = products == "fast" and _medium_is_exact(torch.device(device))
    compiled = _compiled_name() if products == "fast" and not on_cuda else None
    with _measuring:  # not while another thread tries a setting
        before = torch.get_float32_matmul_precision()
    token = _compiled.set(compiled is not None)
    try:
        if products == "tf32":
            torch.set_float32_matmul_precision("high")
        elif products == "fast":
            torch.set_float32_matmul_precision("medium" if quick else "highest")
        yield compiled or torch.get_float32_matmul_precision()
    finally:
        _compiled.reset(token)
        torch.set_float32_matmul_precision(before)

r"""The precision of products, checked first: a faster setting is taken only where it stays exact, or asked for.

Under `torch.set_float32_matmul_precision("medium")` torch's products are on many processors faster at float32's accuracy,
on chips with bfloat16 products three digits worse. So a product is measured before the setting is trusted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

from autovae.registry import lookup

__all__ = ["ERROR_LIMIT", "PRODUCTS", "fast_products", "product_error"]

ERROR_LIMIT = 1e-5
PRODUCTS: dict[str, str] = {
    "fast": "float32, by the fastest setting whose relative error stays below 1e-5",
    "float32": "torch's own setting, untouched",
    "tf32": "CUDA: factors rounded to 10 bits, sums and weights in float32",
    "bfloat16": "factors rounded to 7 bits, weights in float32",
}
_measuring, _exact = threading.Lock(), dict[torch.device, bool]()


def product_error(size: int = 192, device: torch.device | str = "cpu") -> float:
    """Relative error of a float32 product under the present setting, against float64."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = a.float().double() @ b.float().double()
    found = (a.float().to(device) @ b.float().to(device)).cpu().double()
    return float((found - exact).norm() / exact.norm())


def _medium_is_exact(device: torch.device) -> bool:
    """Whether the faster setting keeps float32's accuracy on this device: measured once, one thread at a time."""
    with _measuring:
        if device not in _exact:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("medium")
            try:
                _exact[device] = product_error(device=device) <= ERROR_LIMIT
            finally:
                torch.set_float32_matmul_precision(before)
        return _exact[device]


@contextlib.contextmanager
def fast_products(products: str = "fast", device: torch.device | str = "cpu") -> Iterator[str]:
    """A setting of PRODUCTS, restored on leaving; yields torch's name of it.

    "fast" means torch's "medium" where that is exact on this device, else "highest"; on CUDA "high" means TF32.
    """
    lookup(PRODUCTS, products, "setting of products")
    device = torch.device(device)
    if products == "tf32" and device.type != "cuda":
        raise ValueError("products 'tf32' are CUDA's; on a CPU choose 'fast', 'float32' or 'bfloat16'")
    wanted = {"tf32": "high"}.get(products)
    if products == "fast":
        wanted = "medium" if _medium_is_exact(device) else "highest"
    with _measuring:  # not while another thread tries a setting
        before = torch.get_float32_matmul_precision()
    try:
        if wanted:
            torch.set_float32_matmul_precision(wanted)
        yield torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)

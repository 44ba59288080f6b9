"""Products: a faster kernel only where it is exact; torch's setting comes back."""

from __future__ import annotations

import threading

import pytest
import torch

from autovae.training import precision
from autovae.training.precision import ERROR_LIMIT, PRODUCTS, fast_products, product_error


@pytest.mark.parametrize("products", [name for name in PRODUCTS if name != "tf32"])
def test_the_setting_comes_back(products: str) -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), fast_products(products):
        1 / 0  # noqa: B018
    assert torch.get_float32_matmul_precision() == before


def test_fast_is_exact() -> None:
    with fast_products("fast"):
        assert product_error() < ERROR_LIMIT


def test_a_kernel_that_rounds_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_exact", {})
    monkeypatch.setattr(precision, "product_error", lambda **_: 3e-3)
    with fast_products("fast") as chosen:
        assert chosen == "highest"


def test_a_measurement_is_never_taken_for_the_setting_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that comes while another measures puts back what was there before both, not what is being tried."""
    before = torch.get_float32_matmul_precision()
    found: list[str] = []

    def other() -> None:
        with fast_products("float32") as setting:
            found.append(setting)

    second = threading.Thread(target=other)

    def slow(**_: object) -> float:
        second.start()
        second.join(0.2)
        return 3e-3

    monkeypatch.setattr(precision, "_exact", {})
    monkeypatch.setattr(precision, "product_error", slow)
    with fast_products("fast") as chosen:
        assert chosen == "highest"
        second.join()
    assert "medium" not in found
    assert torch.get_float32_matmul_precision() == before

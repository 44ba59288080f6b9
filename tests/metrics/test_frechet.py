"""Frechet distance: zero on itself, closed forms, invariance, what is refused."""

from __future__ import annotations

import pytest
import torch

from autovae.metrics.frechet import frechet_distance


def draws(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_zero_on_itself_and_the_squared_shift_of_a_shifted_copy() -> None:
    a = draws(50, 4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, a + torch.tensor([3.0, 0, 4.0, 0])) == pytest.approx(25, rel=1e-12)


def test_scaled_copies_have_the_closed_form() -> None:
    a = draws(200, 3) @ draws(3, 3, seed=1)
    expected = torch.cov(a.T).trace() + (2 * a).mean(0).sub(a.mean(0)).square().sum()
    assert frechet_distance(a, 2 * a) == pytest.approx(float(expected), rel=1e-10)


def test_covariances_that_do_not_commute_agree_with_the_matrix_square_root() -> None:
    scipy = pytest.importorskip("scipy.linalg")
    a, b = draws(60, 3) @ draws(3, 3, seed=1), draws(70, 3, seed=2) @ draws(3, 3, seed=3)
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    gap = float((a.mean(0) - b.mean(0)).square().sum())
    expected = gap + (cov_a + cov_b - 2 * scipy.sqrtm(cov_a @ cov_b).real).trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_too_few_samples_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 samples for a Frechet distance of 4 features"):
        frechet_distance(draws(4, 4), draws(50, 4))
    with pytest.raises(ValueError, match=r"expected \(N, k\), \(M, k\)"):
        frechet_distance(draws(10, 4), draws(10, 3))
    broken = draws(10, 2)
    broken[3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        frechet_distance(draws(10, 2), broken)

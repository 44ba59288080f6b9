"""Statistics of importance weights against repetitions, closed forms and an outside implementation of Pareto's shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from autovae.metrics.psis import LogLikelihood, from_log_weights, pareto_shape


def normal_weights(count: int, points: int, spread: float, seed: int = 0) -> Tensor:
    """Log-normal weights of mean one: log w ~ N(-spread^2 / 2, spread^2)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, points, generator=generator, dtype=torch.float64) * spread - spread**2 / 2


def test_errors_are_those_of_repetitions() -> None:
    # 4,000 points of one and the same log p(x) = 0 are 4,000 repetitions
    result = from_log_weights(normal_weights(400, 4000, 0.8))
    assert float(result.monte_carlo.mean()) == pytest.approx(float(result.per_point.std()), rel=0.04)
    assert result.mean < 0
    assert result.bias == pytest.approx(result.mean, abs=4 * result.monte_carlo_error)
    assert result.monte_carlo_error == pytest.approx(result.error, rel=0.04)


def test_strata_leave_out_what_differs_between_them() -> None:
    # two parts of the proposal with weights of different, constant size: no error at all
    log_w = torch.cat([torch.full((30, 5), 0.0), torch.full((10, 5), 2.0)])
    assert float(from_log_weights(log_w, [30, 10]).monte_carlo.max()) == 0
    assert float(from_log_weights(log_w).monte_carlo.min()) > 0.01
    expected = math.log((30 + 10 * math.exp(2)) / 40)
    assert from_log_weights(log_w, [30, 10]).mean == pytest.approx(expected, rel=1e-12)


def test_effective_samples() -> None:
    log_w = torch.full((50, 2), -1e5)
    log_w[:10, 0] = -3.0
    result = from_log_weights(log_w)
    assert result.effective_samples.tolist() == pytest.approx([10, 50])
    assert result.per_point[1] == -1e5
    empty = from_log_weights(torch.full((50, 1), -math.inf))
    assert empty.per_point.item() == -math.inf


@pytest.mark.parametrize("shape", [-0.2, 0.3, 0.7, 1.2])
def test_pareto_shape_is_found(shape: float) -> None:
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(4000, 60, generator=generator, dtype=torch.float64)
    weights = ((1 - u) ** -shape - 1) / shape + 1
    found = pareto_shape(weights.log())
    assert float(found.mean()) == pytest.approx(shape, abs=0.06)


def test_pareto_shape_agrees_with_arviz() -> None:
    stats = pytest.importorskip("arviz_stats")
    log_w = normal_weights(2500, 4, 2.0)  # 3 sqrt K is whole: the peer rounds it down, the paper up
    own = pareto_shape(log_w)
    from arviz_stats.base import array_stats

    for column in range(4):
        _, peer = array_stats.psislw(-log_w[:, column].numpy())  # it takes log likelihoods
        assert float(own[column]) == pytest.approx(float(np.asarray(peer)), abs=1e-9)
    assert stats is not None


def test_equal_weights_have_shape_zero_and_few_have_none() -> None:
    assert pareto_shape(torch.zeros(100, 2)).tolist() == [0, 0]
    assert bool(pareto_shape(torch.zeros(4, 2)).isnan().all())


def test_summary_says_what_is_not_to_be_trusted() -> None:
    result = from_log_weights(normal_weights(1000, 20, 4.0))
    assert result.untrusted > 0.5
    values = result.to_dict()
    assert values["points"] == 20
    assert values["samples"] == 1000
    assert "Pareto" in str(result)
    assert result.bits(10) == pytest.approx(-result.mean / (10 * math.log(2)))
    assert isinstance(result, LogLikelihood)


def test_bad_strata_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to it"):
        from_log_weights(torch.zeros(10, 2), [3, 3])
    with pytest.raises(ValueError, match="k >= 1"):
        from_log_weights(torch.zeros(0, 2))

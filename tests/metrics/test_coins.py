"""One binary point by three passes: the same numbers as the head's own, also where products overflow."""

import pytest
import torch
from torch import Tensor

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.data.datasets import load
from autovae.metrics.coins import binary_log_prob
from autovae.metrics.log_likelihood import VAEModel, log_likelihood
from autovae.model.vae import build
from autovae.spec import VAESpec


def coins(features: int, size: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(features)
    h = torch.rand(40, 16, generator=generator)
    weight = size * torch.randn(16, features, generator=generator)
    bias = torch.randn(features, generator=generator)
    return h, weight, bias, (torch.rand(features, generator=generator) < 0.3).float()


@pytest.mark.parametrize("features", [1, 7, 8, 30, 784])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0, 1e4])
def test_the_sum_is_that_of_the_head(features: int, size: float) -> None:
    h, weight, bias, x = coins(features, size)
    exact = LIKELIHOODS["bernoulli"].log_prob_sum(x.double(), (h @ weight + bias).double())
    found = binary_log_prob(h, weight, bias, x)
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=2e-5)


def test_nan_is_seen() -> None:
    h, weight, bias, x = coins(30, 1.0)
    h[3] = torch.nan
    found = binary_log_prob(h, weight, bias, x)
    assert bool(found[3].isnan())
    assert bool(found[:3].isfinite().all())


def test_an_estimate_is_the_same_by_either_way() -> None:
    data = load((torch.rand(80, 12, generator=torch.Generator().manual_seed(0)) < 0.4).numpy())
    model = VAEModel(build(VAESpec(latent_dim=2, hidden=(8,)), data.domain), data)
    assert model.one_coin
    quick = log_likelihood(model, 50, points=4)
    model.one_coin = False
    torch.testing.assert_close(quick.per_point, log_likelihood(model, 50, points=4).per_point, rtol=1e-6, atol=1e-5)

"""Mean fields of many seeds: exact on a Gaussian posterior, independent of their neighbours, the optimiser's descent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Gaussian
from autovae.reasoning.posterior import LatentPosterior
from autovae.reproductions.many_fits import OPTIMIZERS, ManyFits, evaluate, kl


def nothing(scene) -> torch.Tensor:
    return scene.x.new_zeros(len(scene.x), 1)


def linear_posterior(dim: int = 3) -> LatentPosterior:
    """x = xi, each latent measured with its own noise: the posterior is a product of normals."""
    layer = nn.Linear(dim, dim, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(dim))
    y, std = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    return LatentPosterior(PriorModule.from_decoder(layer), Gaussian(None, y, std))


def fitted(seeds: list[int], iterations: int = 60, alpha: float = 1.0, optimizer: str = "lbfgs") -> ManyFits:
    fits = ManyFits(linear_posterior(), seeds, pairs=40, watch=nothing)
    fits.stage(alpha, iterations, lambda found, divergence: None, optimizer)
    return fits


def test_a_gaussian_posterior_is_found_by_every_seed() -> None:
    fits = fitted([0, 1, 2, 3])
    precision = 1 + torch.tensor([4.0, 1.0, 0.25]).double()
    mean = torch.tensor([4.0, -2.0, 0.125]).double() / precision
    assert torch.allclose(fits.mean, mean.expand(4, 3), atol=1e-6)
    # The spread is that of the noise's own second moment: exact for these draws, right on average.
    second = fits._noise("round 1", 40).square().mean(1)
    assert torch.allclose(fits.log_std.exp(), (1 + (precision - 1) * second).rsqrt(), rtol=1e-4)


def test_fresh_noise_finds_the_same_posterior() -> None:
    fits = fitted([0, 1], iterations=300, optimizer="adam")
    precision = 1 + torch.tensor([4.0, 1.0, 0.25]).double()
    mean = torch.tensor([4.0, -2.0, 0.125]).double() / precision
    assert torch.allclose(fits.mean, mean.expand(2, 3), atol=0.05)
    assert torch.allclose(fits.log_std.exp(), precision.rsqrt().expand(2, 3), rtol=0.1)


def test_the_power_multiplies_the_evidence() -> None:
    fits = fitted([0], alpha=3.0)
    assert fits.mean[0, 1] == pytest.approx(-2 * 3 / 4, abs=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_seed_ends_where_it_would_alone(optimizer) -> None:
    together, alone = fitted([5, 6, 7], 10, optimizer=optimizer), fitted([6], 10, optimizer=optimizer)
    assert torch.allclose(together.mean[1], alone.mean[0], atol=1e-10)
    assert torch.allclose(together.log_std[1], alone.log_std[0], atol=1e-10)
    assert torch.allclose(together.draws(4)[1], alone.draws(4)[0], atol=1e-9)
    assert not torch.equal(together.mean[0], together.mean[1])


def test_the_gradient_of_the_loss_agrees_with_differences() -> None:
    fits = ManyFits(linear_posterior(), [0, 1], pairs=3, watch=nothing)
    generator = torch.Generator().manual_seed(0)
    point = 0.3 * torch.randn(2, 6, generator=generator, dtype=torch.float64)
    eps = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    _, gradient, _ = fits.loss(point, eps, 1.7)
    for place in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[place] = 1e-6
        up, down = (fits.loss(point + sign * step, eps, 1.7)[0] for sign in (1, -1))
        assert torch.allclose((up - down) / 2e-6, gradient[:, place], rtol=1e-6, atol=1e-8)


def test_the_loss_never_rises_while_the_noise_stays() -> None:
    fits = ManyFits(linear_posterior(), [0, 1, 2], pairs=5, watch=nothing)
    losses = []

    def record(found, divergence) -> None:
        losses.append(divergence - found.terms.sum(1).reshape(3, -1).mean(1))

    fits.stage(1.0, 15, record, "lbfgs")
    falls = torch.stack(losses).diff(dim=0)
    assert bool((falls <= 1e-12).all())
    assert len(losses) == 15


def test_kl_and_evaluate() -> None:
    assert float(kl(torch.zeros(1, 3), torch.zeros(1, 3))) == 0
    posterior = linear_posterior()
    xi = torch.randn(700, 3, dtype=torch.float64)  # more than a chunk
    found = evaluate(posterior, xi, nothing)
    value, gradient = posterior.likelihood_and_gradient(xi)
    assert torch.allclose(found.terms.sum(1), value)
    assert torch.allclose(found.gradient, gradient)
    assert found.watched.shape == (700, 1)


def test_no_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 seeds"):
        ManyFits(linear_posterior(), [], pairs=5, watch=nothing)

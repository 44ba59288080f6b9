"""Bounds as functions of log weights: order, limits, stability, and exactness on a linear-Gaussian model."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch
from torch import Tensor

from autovae.model.bounds import ciwae, elbo, iwae, miwae, multi_sample_elbo, piwae, vr, vr_max

ALPHAS = [-math.inf, -50.0, -2.0, -0.5, 0.0, 0.3, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 1.5, 2.0, 10.0, 300.0, math.inf]


def weights(*shape: int, spread: float = 3.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * spread - 100


def exact_vr(column: Tensor, alpha: float) -> float:
    """The bound in 60 digits."""
    with mpmath.workdps(60):
        s = 1 - mpmath.mpf(alpha)
        total = sum(mpmath.exp(s * mpmath.mpf(float(w))) for w in column)
        return float(mpmath.log(total / len(column)) / s)


@pytest.mark.parametrize("alpha", [a for a in ALPHAS if math.isfinite(a) and a != 1])
@pytest.mark.parametrize("spread", [1e-6, 1.0, 30.0])
def test_vr_agrees_with_sixty_digits(alpha: float, spread: float) -> None:
    log_w = weights(7, 3, spread=spread)
    expected = [exact_vr(log_w[:, i], alpha) for i in range(3)]
    assert vr(log_w, alpha).tolist() == pytest.approx(expected, rel=1e-15, abs=1e-12)


def test_vr_is_accurate_to_the_limit_one_in_float32() -> None:
    log_w = weights(9, 5).float()
    mean, variance = log_w.double().mean(0), log_w.double().var(0, unbiased=False)
    for s in (1e-3, 1e-4, 1e-5, -1e-4):
        first_order = mean + s * variance / 2  # the next term is s^2 / 6 times the third cumulant
        assert (vr(log_w, 1 - s).double() - first_order).abs().max() < 2e-5 + 20 * s * s


def test_vr_does_not_increase_with_alpha() -> None:
    log_w = weights(20, 50)
    values = torch.stack([vr(log_w, alpha) for alpha in ALPHAS])
    assert bool((values.diff(dim=0) <= 1e-12).all())


def test_limits_of_vr() -> None:
    log_w = weights(6, 4)
    assert torch.equal(vr(log_w, -math.inf), log_w.amax(0))
    assert torch.equal(vr_max(log_w), log_w.amax(0))
    assert torch.equal(vr(log_w, math.inf), log_w.amin(0))
    assert torch.equal(vr(log_w, 1.0), log_w.mean(0))
    assert torch.equal(vr(log_w, 0.0), iwae(log_w))
    torch.testing.assert_close(vr(log_w, 1 - 1e-12), log_w.mean(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_sample_is_its_log_weight(alpha: float) -> None:
    log_w = weights(1, 8)
    torch.testing.assert_close(vr(log_w, alpha), log_w[0], rtol=1e-14, atol=0)


def test_alpha_per_member_equals_alpha_alone() -> None:
    log_w = weights(5, len(ALPHAS), 3)
    together = vr(log_w, torch.tensor(ALPHAS, dtype=torch.float64)[:, None])
    for row, alpha in enumerate(ALPHAS):
        torch.testing.assert_close(together[row], vr(log_w[:, row], alpha), rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_gradient_of_vr_is_the_self_normalised_weight(alpha: float, as_tensor: bool) -> None:
    log_w = weights(5, 3).requires_grad_()
    order = torch.full((3,), alpha, dtype=torch.float64) if as_tensor else alpha
    (grad,) = torch.autograd.grad(vr(log_w, order).sum(), log_w)
    if math.isinf(alpha):
        best = log_w.argmax(0) if alpha < 0 else log_w.argmin(0)
        expected = torch.nn.functional.one_hot(best, 5).T.double()
    else:
        expected = torch.softmax((1 - alpha) * log_w, 0)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_stable_for_log_weights_down_to_minus_1e5(alpha: float) -> None:
    log_w = torch.tensor([[-1e5, -1e5, -10.0], [-9.9e4, -1e5, -1e5], [-2.0, -1e5, -1e5]]).requires_grad_()
    value = vr(log_w, alpha)
    assert bool(value.isfinite().all())
    assert bool(((value >= log_w.amin(0) - 0.1) & (value <= log_w.amax(0) + 0.1)).all())
    (grad,) = torch.autograd.grad(value.sum(), log_w)
    assert bool(grad.isfinite().all())


def test_impossible_samples_count_as_weight_zero() -> None:
    log_w = torch.tensor([[-math.inf, -math.inf], [-3.0, -math.inf]], dtype=torch.float64)
    torch.testing.assert_close(iwae(log_w)[0], torch.tensor(-3 - math.log(2), dtype=torch.float64))
    torch.testing.assert_close(vr(log_w, 0.5)[0], torch.tensor(-3 - 2 * math.log(2), dtype=torch.float64))
    for alpha in (-1.0, 0.0, 0.5, 1.0, 2.0):
        assert vr(log_w, alpha)[1] == -math.inf
    assert vr(log_w, 2.0)[0] == -math.inf


def test_iwae_grows_with_k_in_expectation() -> None:
    log_w = weights(64, 20_000, spread=1.5)
    means = [iwae(log_w.view(64 // k, k, -1).transpose(0, 1)).mean() for k in (1, 2, 4, 16, 64)]
    errors = 4 * 1.5 / math.sqrt(20_000 * 64)
    assert all(later > earlier + errors for earlier, later in itertools.pairwise(means))


def test_grouped_bounds() -> None:
    log_w = weights(4, 6, 5)
    torch.testing.assert_close(miwae(log_w), torch.stack([iwae(group) for group in log_w]).mean(0))
    torch.testing.assert_close(miwae(log_w.reshape(1, 24, 5)), iwae(log_w.reshape(24, 5)))
    torch.testing.assert_close(ciwae(log_w, 1.0), log_w.mean((0, 1)))
    torch.testing.assert_close(ciwae(log_w, 0.0), miwae(log_w))
    encoder, decoder = piwae(log_w)
    torch.testing.assert_close(encoder, miwae(log_w))
    torch.testing.assert_close(decoder, iwae(log_w.reshape(24, 5)))


def test_elbo_weighs_any_divergence() -> None:
    log_likelihood, divergence = weights(3, 4), weights(4).abs()
    expected = log_likelihood.mean(0) - 2 * divergence
    torch.testing.assert_close(multi_sample_elbo(log_likelihood, divergence, 2.0), expected)
    torch.testing.assert_close(elbo(log_likelihood.mean(0), divergence, 2.0), expected)


def linear_gaussian(k: int, shift: float, stretch: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log weights (k, 6), log p(x), and q's distance from the posterior, for x = W z + noise, orthogonal columns."""
    generator = torch.Generator().manual_seed(3)
    basis, _ = torch.linalg.qr(torch.randn(8, 3, generator=generator, dtype=torch.float64))
    w, sigma = basis * torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64), 0.7
    x = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    cov = w @ w.T + sigma**2 * torch.eye(8, dtype=torch.float64)
    log_p_x = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=torch.float64), cov).log_prob(x)
    variance = 1 / (1 + w.square().sum(0) / sigma**2)
    loc = variance * (x @ w) / sigma**2
    q = torch.distributions.Normal(loc + shift * variance.sqrt(), stretch * variance.sqrt())
    z = q.loc + q.scale * torch.randn(k, 6, 3, generator=generator, dtype=torch.float64)
    log_w = (
        torch.distributions.Normal(z @ w.T, sigma).log_prob(x).sum(-1)
        + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        - q.log_prob(z).sum(-1)
    )
    return log_w, log_p_x, loc, variance


def test_at_the_exact_posterior_every_bound_is_log_p() -> None:
    log_w, log_p_x, _, _ = linear_gaussian(12, 0.0, 1.0)
    grouped = log_w.view(3, 4, 6)
    values = [vr(log_w, alpha) for alpha in ALPHAS]
    values += [vr(log_w[:1], 0.5), iwae(log_w), miwae(grouped), ciwae(grouped, 0.3), *piwae(grouped)]
    for value in values:
        torch.testing.assert_close(value, log_p_x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0])
def test_off_the_posterior_bounds_equal_their_closed_forms(alpha: float) -> None:
    # E of the weights' power is a Renyi divergence of normals: log p(x) - D_alpha(q || posterior), three latents alike
    shift, stretch, k = 0.3, 0.9, 50_000
    log_w, log_p_x, _, _ = linear_gaussian(k, shift, stretch)
    if alpha == 1:
        divergence = 0.5 * (stretch**2 + shift**2 - 1) - math.log(stretch)
    else:
        mixed = (1 - alpha) * stretch**2 + alpha
        divergence = alpha * shift**2 / (2 * mixed) - math.log(stretch)
        divergence -= math.log(mixed) / (2 * (alpha - 1))
    torch.testing.assert_close(vr(log_w, alpha), log_p_x - 3 * divergence, rtol=0, atol=0.02)


@pytest.mark.parametrize("bad", [math.nan, torch.tensor([0.5, math.nan])])
def test_nan_alpha_is_refused(bad: float | Tensor) -> None:
    with pytest.raises(ValueError, match="alpha = nan"):
        vr(weights(3, 2), bad)


@pytest.mark.parametrize("function", [iwae, vr_max, lambda w: vr(w, 0.5), lambda w: multi_sample_elbo(w, w)])
def test_no_samples_are_refused(function: object) -> None:
    with pytest.raises(ValueError, match="k >= 1"):
        function(torch.zeros(0, 4))  # type: ignore[operator]


@pytest.mark.parametrize("function", [miwae, ciwae, piwae])
def test_grouped_bounds_refuse_too_few_axes(function: object) -> None:
    with pytest.raises(ValueError, match=r"\(m, k, \*batch\)"):
        function(torch.zeros(4))  # type: ignore[operator]

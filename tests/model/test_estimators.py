"""Each estimator's mean against finite differences of the exact expected bound, by quadrature over two samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autovae.beliefs.families import FAMILIES
from autovae.model.bounds import ciwae, miwae, piwae, vr
from autovae.model.estimators import ESTIMATORS, check_estimator, default_estimator
from autovae.training.bound import CIWAE, MIWAE, PIWAE, Renyi

SMOOTH = ["normal", "laplace", "logistic", "gumbel", "hypsecant"]
POINT = torch.tensor([0.4, -0.3, 0.8, 0.2], dtype=torch.float64)  # loc, log scale of q; slope, offset of the decoder


def grid(samples: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Standard normal xi (samples, N) on a tensor grid and weights (N,): the trapezoid rule, exact for smooth laws."""
    edge = torch.linspace(-8.5, 8.5, nodes, dtype=torch.float64)
    weight = torch.exp(-0.5 * edge.square()) * (edge[1] - edge[0]) / math.sqrt(2 * math.pi)
    xi = torch.stack(torch.meshgrid(*[edge] * samples, indexing="ij")).flatten(1)
    product = torch.stack(torch.meshgrid(*[weight] * samples, indexing="ij")).flatten(1).prod(0)
    return xi, product


def pieces(family: str, eps: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """log p(x|z), log p(z), log q(z), log q with stopped parameters, z, of a one-dimensional toy with x = 1.3."""
    loc, log_scale, slope, offset = parameters
    law = FAMILIES[family]
    z = loc + log_scale.exp() * eps
    log_likelihood = -0.5 * ((1.3 - slope * torch.tanh(z) - offset) / 0.5).square()
    log_prior = -torch.nn.functional.softplus(z) - torch.nn.functional.softplus(-z)  # standard logistic
    log_q = law.log_prob(eps) - log_scale
    stopped = law.log_prob((z - loc.detach()) / log_scale.detach().exp()) - log_scale.detach()
    return log_likelihood, log_prior, log_q, stopped, z


def expected_bound(family: str, eps: Tensor, weight: Tensor, alpha: float, parameters: Tensor) -> Tensor:
    log_likelihood, log_prior, log_q, _, _ = pieces(family, eps, parameters)
    return (weight * vr(log_likelihood + log_prior - log_q, alpha)).sum()


def finite_differences(family: str, eps: Tensor, weight: Tensor, alpha: float) -> Tensor:
    steps = torch.eye(4, dtype=torch.float64) * 1e-4
    ends = [[expected_bound(family, eps, weight, alpha, POINT + sign * step) for sign in (1, -1)] for step in steps]
    return torch.stack([(up - down) / 2e-4 for up, down in ends])


def mean_gradient(family: str, eps: Tensor, weight: Tensor, alpha: float, estimator: str) -> Tensor:
    parameters = POINT.clone().requires_grad_()
    log_likelihood, log_prior, log_q, stopped, z = pieces(family, eps, parameters)
    path = z[None, ..., None]  # (M, K, N, D): what a model would compute everything from
    log_likelihood, log_prior, log_q, stopped = _through(path, family, parameters, log_q)
    log_weights = log_likelihood + log_prior - (log_q if estimator == "pathwise" else stopped)
    value = Renyi(estimator).surrogate(log_weights, path, alpha)
    (gradient,) = torch.autograd.grad((weight * value).sum(), parameters)
    return gradient


def _through(z4: Tensor, family: str, parameters: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loc, log_scale, slope, offset = parameters
    z = z4.squeeze(-1)
    log_likelihood = -0.5 * ((1.3 - slope * torch.tanh(z) - offset) / 0.5).square()
    log_prior = -torch.nn.functional.softplus(z) - torch.nn.functional.softplus(-z)
    eps = (z - loc.detach()) / log_scale.detach().exp()
    return log_likelihood, log_prior, log_q, FAMILIES[family].log_prob(eps) - log_scale.detach()


def noise(family: str, samples: int = 2, nodes: int = 160) -> tuple[Tensor, Tensor]:
    xi, weight = grid(samples, nodes)
    return FAMILIES[family].from_normal(xi), weight


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("family", SMOOTH)
def test_smooth_families(family: str, alpha: float) -> None:
    eps, weight = noise(family)
    exact = finite_differences(family, eps, weight, alpha)
    estimators = ["pathwise", "dreg"] + (["stl"] if alpha == 1 else [])
    # a density with a kink costs the quadrature digits
    tolerance = 1e-3 if family == "laplace" else 2e-7
    for estimator in estimators:
        got = mean_gradient(family, eps, weight, alpha, estimator)
        torch.testing.assert_close(got, exact, rtol=0, atol=tolerance, msg=lambda m, e=estimator: f"{e}: {m}")


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
def test_cauchy_below_alpha_one(alpha: float) -> None:
    eps, weight = noise("cauchy", nodes=200)
    exact = finite_differences("cauchy", eps, weight, alpha)
    for estimator in ("pathwise", "dreg"):
        torch.testing.assert_close(mean_gradient("cauchy", eps, weight, alpha, estimator), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("family", ["uniform", "exponential"])
def test_moving_support_needs_the_full_path(family: str, alpha: float) -> None:
    eps, weight = noise(family)
    exact = finite_differences(family, eps, weight, alpha)
    torch.testing.assert_close(mean_gradient(family, eps, weight, alpha, "pathwise"), exact, rtol=0, atol=2e-7)
    wrong = mean_gradient(family, eps, weight, alpha, "stl" if alpha == 1 else "dreg")
    assert (wrong - exact)[:2].abs().max() > 0.05


def test_stl_is_biased_below_alpha_one() -> None:
    eps, weight = noise("normal")
    exact = finite_differences("normal", eps, weight, 0.0)
    parameters = POINT.clone().requires_grad_()
    _, _, log_q, _, z = pieces("normal", eps, parameters)
    log_likelihood, log_prior, _, stopped = _through(z.unsqueeze(-1), "normal", parameters, log_q)
    (wrong,) = torch.autograd.grad((weight * vr(log_likelihood + log_prior - stopped, 0.0)).sum(), parameters)
    assert (wrong - exact)[:2].abs().max() > 0.01


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_no_noise_at_the_exact_posterior(estimator: str) -> None:
    # prior N(0, 1), x|z ~ N(z, 1), x = 1: the posterior is N(1/2, 1/2)
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(5, 100, generator=generator, dtype=torch.float64)
    parameters = torch.tensor([0.5, 0.5 * math.log(0.5)], dtype=torch.float64).expand(100, 2).clone().requires_grad_()
    loc, scale = parameters[:, 0], parameters[:, 1].exp()
    z = (loc + scale * eps)[None, ..., None]
    flat = z.squeeze(-1)
    stopped = torch.distributions.Normal(loc.detach(), scale.detach()).log_prob(flat)
    log_weights = -0.5 * (1 - flat).square() - 0.5 * flat.square() - stopped
    value = Renyi(estimator).surrogate(log_weights, z, 1.0 if estimator == "stl" else 0.0)
    (gradient,) = torch.autograd.grad(value.sum(), parameters)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_value_is_the_bound_and_alpha_may_differ_per_member(alpha: float) -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(1, 4, 2, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True) * 1.0
    log_weights = torch.randn(1, 4, 2, 6, generator=generator, dtype=torch.float64) + z.sum(-1)
    order = torch.tensor([[alpha], [0.25]], dtype=torch.float64)
    value = Renyi("dreg").surrogate(log_weights, z, order)
    torch.testing.assert_close(value, vr(log_weights[0], order))
    alone = Renyi("dreg").surrogate(log_weights, z, alpha)
    torch.testing.assert_close(value[0], alone[0])


@pytest.mark.parametrize("bound", ["miwae", "ciwae", "piwae"])
def test_grouped_bounds_train_each_part_by_its_objective(bound: str) -> None:
    groups, samples = 2, 2
    xi, weight = grid(groups * samples, 22)
    eps = xi.view(groups, samples, -1)

    def objectives(parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_likelihood, log_prior, log_q, _, _ = pieces("normal", eps, parameters)
        log_w = log_likelihood + log_prior - log_q
        pair = {"miwae": (miwae(log_w),) * 2, "ciwae": (ciwae(log_w, 0.3),) * 2, "piwae": piwae(log_w)}[bound]
        return (weight * pair[0]).sum(), (weight * pair[1]).sum()

    parameters = POINT.clone().requires_grad_()
    encoder, decoder = objectives(parameters)
    (by_encoder,) = torch.autograd.grad(encoder, parameters, retain_graph=True)
    (by_decoder,) = torch.autograd.grad(decoder, parameters)
    expected = torch.cat([by_encoder[:2], by_decoder[2:]])
    _, _, log_q, _, z = pieces("normal", eps, parameters)
    z4 = z.unsqueeze(-1)
    log_likelihood, log_prior, _, stopped = _through(z4, "normal", parameters, log_q)
    followed = {"miwae": MIWAE("dreg"), "ciwae": CIWAE("dreg", 0.3), "piwae": PIWAE("dreg")}[bound]
    value = followed.surrogate(log_likelihood + log_prior - stopped, z4, 0.0)
    (gradient,) = torch.autograd.grad((weight * value).sum(), parameters)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=2e-3)


def test_the_right_estimator_is_chosen() -> None:
    assert default_estimator(SMOOTH, 1.0) == "pathwise"
    assert default_estimator(SMOOTH, 0.5) == "dreg"
    assert default_estimator(["normal", "uniform"], 0.5) == "pathwise"
    assert default_estimator(["cauchy"], 0.5) == "dreg"
    assert default_estimator(["cauchy"], 1.5) == "pathwise"
    assert default_estimator(["normal"], -math.inf) == "pathwise"
    for estimator in ESTIMATORS:
        check_estimator(estimator, ["normal"], 1.0)


@pytest.mark.parametrize(
    ("estimator", "families", "alpha", "reason"),
    [
        ("stl", ["normal"], 0.5, "only at alpha = 1, not 0.5; choose 'dreg'"),
        ("stl", ["uniform"], 1.0, "the support of uniform moves.*choose 'pathwise'"),
        ("dreg", ["normal", "exponential"], 0.0, "the support of exponential moves.*choose 'pathwise'"),
        ("dreg", ["cauchy"], 1.0, "power tails of cauchy"),
        ("dreg", ["normal"], math.inf, "jump"),
        ("dregs", ["normal"], 0.0, "did you mean 'dreg'"),
    ],
)
def test_a_wrong_estimator_is_refused(estimator: str, families: list[str], alpha: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_estimator(estimator, families, alpha)

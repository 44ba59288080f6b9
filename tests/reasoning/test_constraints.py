"""Constraints: densities against torch.distributions, Fisher metrics against Monte Carlo, what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Categorical, Criterion, Gaussian, Masked, Scene
from autovae.reasoning.posterior import LatentPosterior


def net(inputs, outputs, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs).double()


def images(n=5, seed=1):
    return torch.randn(n, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("std", [0.3, torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]).double()])
def test_gaussian_is_the_normalised_density(std):
    x, y = images(), images(1, seed=2)[0]
    expected = Normal(x, std).log_prob(y).flatten(1).sum(-1)
    torch.testing.assert_close(Gaussian(None, y, std).log_prob(x), expected)
    torch.testing.assert_close(Gaussian(None, y, std, power=2.5).log_prob(x), 2.5 * expected)


def test_gaussian_with_full_covariance():
    f, x, y = net(6, 3), images(), torch.randn(3).double()
    root = torch.randn(3, 3).double()
    covariance = root @ root.T + torch.eye(3)
    expected = MultivariateNormal(f(x.flatten(1)), covariance).log_prob(y)
    constraint = Gaussian(lambda x: f(x.flatten(1)), y, covariance=covariance)
    torch.testing.assert_close(constraint.log_prob(x), expected)


def test_masked_looks_at_observed_pixels_only():
    x, y = images(), images(1, seed=2)[0]
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    holes = y.masked_fill(mask == 0, math.nan)
    expected = (Normal(x, 0.2).log_prob(y) * mask).flatten(1).sum(-1)
    torch.testing.assert_close(Masked(holes, mask, 0.2).log_prob(x), expected)
    torch.testing.assert_close(Masked(holes, mask, torch.full_like(y, 0.2)).log_prob(x), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_known_precision_gives_the_gradient(masked):
    x, y = images().requires_grad_(), images(1, seed=2)[0]
    std = torch.rand(2, 3).double() + 0.1
    constraint = Masked(y, torch.tensor([[1, 0, 1], [0, 0, 1]]), std) if masked else Gaussian(None, y, std)
    value = constraint.log_prob(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    centre, precision, log_norm = constraint.precision()
    residual = centre - x.flatten(1)
    torch.testing.assert_close(gradient.flatten(1), precision * residual)
    torch.testing.assert_close(value, log_norm - 0.5 * (precision * residual.square()).sum(-1))


def test_categorical_is_the_log_probability_of_the_class():
    f, x = net(6, 4), images()
    classifier = nn.Sequential(nn.Flatten(), f)
    expected = f(x.flatten(1)).log_softmax(-1)[:, 2]
    torch.testing.assert_close(Categorical(classifier, 2, power=3).log_prob(x), 3 * expected)
    single = nn.Sequential(nn.Flatten(), net(6, 1))
    both = torch.stack([Categorical(single, y).log_prob(x) for y in (0, 1)])
    torch.testing.assert_close(both.logsumexp(0), torch.zeros(5).double())
    torch.testing.assert_close(both[1], nn.functional.logsigmoid(single(x))[:, 0])


def test_networks_are_put_in_eval_mode():
    classifier = nn.Sequential(nn.Flatten(), nn.Dropout(), net(6, 4)).train()
    Categorical(classifier, 0)
    assert not classifier[1].training


def test_a_shared_network_runs_once_per_object():
    calls = []

    def classifier(x):
        calls.append(1)
        return x.flatten(1)[:, :4]

    scene = Scene(images())
    for y in range(4):
        Categorical(classifier, y).log_likelihood(scene)
    assert len(calls) == 1


def test_object_selects_one_of_the_replicated():
    x = torch.randn(5, 3, 6).double()
    f = net(6, 4)
    torch.testing.assert_close(Categorical(f, 1, object=2).log_prob(x, objects=3), Categorical(f, 1).log_prob(x[:, 2]))
    y = torch.randn(6).double()
    torch.testing.assert_close(
        Gaussian(None, y, 1.0, object=0).log_prob(x, objects=3), Gaussian(None, y, 1.0).log_prob(x[:, 0])
    )


def test_criterion_tilts():
    x = images()
    torch.testing.assert_close(Criterion(lambda x: x.sum((1, 2)), -2.0).log_prob(x), -2 * x.sum((1, 2)))


# Fisher metrics: E[score score^T] over outcomes drawn from the likelihood equals J^T J.


def test_fisher_metric_of_a_class_against_monte_carlo():
    f = net(3, 4)
    posterior = LatentPosterior(
        PriorModule.from_decoder(nn.Identity().double(), latent_dim=3).double(), Categorical(f, 0, 2.0)
    )
    xi = torch.tensor([[0.3, -0.2, 0.5]]).double()
    _, jacobian = posterior.jacobian(xi)
    log_probs = lambda z: f(z).log_softmax(-1)  # noqa: E731
    scores = torch.autograd.functional.jacobian(log_probs, xi[0])
    outcomes = torch.multinomial(
        log_probs(xi[0]).exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    drawn = scores[outcomes]
    # power 2 stands for two equal outcomes: twice the information
    torch.testing.assert_close((jacobian[0].T @ jacobian[0]), 2 * drawn.T @ drawn / len(drawn), atol=3e-3, rtol=3e-2)
    exact = 2 * torch.einsum("k,ki,kj->ij", log_probs(xi[0]).exp(), scores, scores)
    torch.testing.assert_close(jacobian[0].T @ jacobian[0], exact)


def test_fisher_metric_of_a_measurement_against_monte_carlo():
    torch.manual_seed(3)
    f = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    root = torch.randn(2, 2).double()
    covariance = root @ root.T + 0.1 * torch.eye(2)
    prior = PriorModule.from_decoder(nn.Identity(), latent_dim=3).double()
    posterior = LatentPosterior(prior, Gaussian(f, torch.zeros(2).double(), covariance=covariance))
    xi = torch.tensor([[0.3, -0.2, 0.5]]).double()
    _, jacobian = posterior.jacobian(xi)
    mean = f(xi[0])
    slope = torch.autograd.functional.jacobian(f, xi[0])
    noise = (
        torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1)).double()
        @ torch.linalg.cholesky(covariance).T
    )
    scores = torch.linalg.solve(covariance, noise.T).T @ slope
    metric = scores.T @ scores / len(scores)
    torch.testing.assert_close(jacobian[0].T @ jacobian[0], metric, atol=0.01 * float(metric.abs().max()), rtol=2e-2)
    assert mean.shape == (2,)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gaussian(None, torch.zeros(2), 1.0, covariance=torch.eye(2)), "exactly one"),
        (lambda: Gaussian(None, torch.zeros(2)), "exactly one"),
        (lambda: Gaussian(None, torch.zeros(2), -1.0), "positive"),
        (lambda: Gaussian(None, torch.tensor([0.0, math.nan]), 1.0), "Masked"),
        (lambda: Gaussian(None, torch.zeros(2), covariance=torch.eye(3)), r"expected \(2, 2\)"),
        (lambda: Gaussian(None, torch.zeros(2), covariance=-torch.eye(2)), "positive definite"),
        (lambda: Masked(torch.zeros(2), torch.ones(3), 1.0), "expected equal shapes"),
        (lambda: Categorical(nn.Identity(), 0, power=-1), "power"),
        (lambda: Criterion(lambda x: x, math.inf), "beta"),
    ],
)
def test_evidence_that_makes_no_sense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

"""LatentPosterior: densities, gradients and metrics against autograd; evidence that does not fit is refused by name."""

import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Categorical, Criterion, Gaussian, Masked
from autovae.reasoning.posterior import LatentPosterior


def prior(families="normal", latent_dim=4, pixels=6, **settings):
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(latent_dim, 8), nn.Tanh(), nn.Linear(8, pixels)).double()
    return PriorModule.from_decoder(decoder, families, latent_dim, **settings)


def classifier(inputs=6, classes=3):
    torch.manual_seed(1)
    return nn.Linear(inputs, classes).double()


def evidence():
    return [Gaussian(None, torch.zeros(6).double(), 0.5), Categorical(classifier(), 1, power=2.0)]


@pytest.mark.parametrize("families", ["normal", ["cauchy", "normal", "gumbel", "uniform"]])
def test_log_prob_is_evidence_plus_standard_normal(families):
    question = LatentPosterior(prior(families), evidence())
    xi = torch.randn(3, 5, 4).double()
    x = question.prior.decode(question.prior.from_normal(xi.reshape(-1, 4)))
    expected = sum(c.log_prob(x) for c in evidence()).reshape(3, 5)
    expected = expected - 0.5 * xi.square().sum(-1) - 2 * math.log(2 * math.pi)
    torch.testing.assert_close(question.log_prob(xi), expected)


@pytest.mark.parametrize("families", ["normal", ["cauchy", "normal", "gumbel", "student_t3"]])
def test_value_and_gradient(families):
    question = LatentPosterior(prior(families), evidence())
    xi = torch.randn(5, 4).double()
    value, gradient = question.value_and_gradient(xi)
    torch.testing.assert_close(value, question.log_prob(xi))
    assert torch.autograd.gradcheck(question.log_prob, xi.clone().requires_grad_())
    source = xi.clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(question.log_prob(source).sum(), source)[0])
    with torch.no_grad():
        torch.testing.assert_close(question.value_and_gradient(xi)[1], gradient)


def test_power_scales_the_evidence_only():
    question = LatentPosterior(prior(), evidence())
    xi = torch.randn(5, 4).double()
    torch.testing.assert_close(question.with_power(3).log_likelihood(xi), 3 * question.log_likelihood(xi))
    torch.testing.assert_close(question.with_power(0).log_prob(xi), question.log_prior(xi))
    assert (question.with_power(0).value_and_gradient(xi)[1] == -xi).all()
    theta, jacobian = question.jacobian(xi)
    scaled, scaled_jacobian = question.with_power(4).jacobian(xi)
    torch.testing.assert_close(scaled, 2 * theta)
    torch.testing.assert_close(scaled_jacobian, 2 * jacobian)


def test_jacobian_of_the_coordinates_in_any_chunk():
    question = LatentPosterior(prior(), evidence())
    xi = torch.randn(3, 4).double()
    theta, jacobian = question.jacobian(xi)
    assert theta.shape == (3, 9)
    for i in range(3):
        exact = torch.autograd.functional.jacobian(lambda z: question.coordinates(z[None])[0], xi[i])
        torch.testing.assert_close(jacobian[i], exact)
    torch.testing.assert_close(question.jacobian(xi, chunk=4)[1], jacobian)


class NoForwardDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize("families", ["normal", ["cauchy", "student_t5", "gumbel", "uniform"]])
@pytest.mark.parametrize("custom", [False, True], ids=["pushed forward", "pulled back"])
def test_jacobian_with_many_outputs(families, custom):
    f = NoForwardDerivative.apply if custom else lambda x: 2 * x
    question = LatentPosterior(
        prior(families, pixels=20), [Gaussian(f, torch.zeros(20).double(), 0.5), Categorical(classifier(20), 1)]
    )
    xi = torch.randn(3, 4).double()
    _, jacobian = question.jacobian(xi)
    assert question._forward is not custom
    for i in range(3):
        exact = torch.autograd.functional.jacobian(lambda z: question.coordinates(z[None])[0], xi[i])
        torch.testing.assert_close(jacobian[i], exact)
    torch.testing.assert_close(question.jacobian(xi, chunk=5)[1], jacobian)


def test_constraints_without_outcome_are_named():
    question = LatentPosterior(prior(), [*evidence(), Criterion(lambda x: x.sum(-1))])
    assert question.without_metric == ["Criterion"]
    assert LatentPosterior(prior(), Criterion(lambda x: x.sum(-1))).jacobian(torch.zeros(2, 4).double())[1].shape == (
        2,
        0,
        4,
    )


def test_bound_holds():
    question = LatentPosterior(prior(), evidence())
    assert question.log_likelihood(torch.randn(100, 4).double()).max() <= question.log_bound
    assert LatentPosterior(prior(), Criterion(lambda x: x.sum(-1))).log_bound == math.inf


def test_decode_keeps_leading_shapes():
    question = LatentPosterior(prior(shape=(2, 3)), Criterion(lambda x: x.sum((1, 2))))
    xi = torch.randn(2, 7, 4).double()
    assert question.decode(xi, batch=3).shape == (2, 7, 2, 3)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Gaussian(None, torch.zeros(5), 1.0), r"Gaussian does not fit the generated x, of shape \(3, 6\)"),
        (Gaussian(lambda x: x[:, :2], torch.zeros(3), 1.0), r"f\(x\) has shape \(2,\) and y has shape \(3,\)"),
        (Categorical(classifier(5), 0), "Categorical.* does not fit"),
        (Categorical(classifier(), 3), "got y=3 for a network of 3 classes"),
        (Categorical(classifier(), 0, object=1), "replicate the prior first"),
        (Categorical(nn.Sequential(classifier(), nn.Softmax(-1)), 0), "returns probabilities"),
        (Masked(torch.zeros(2, 3), torch.ones(2, 3), 1.0), r"x has shape \(6,\) and mask has shape \(2, 3\)"),
        (Criterion(lambda x: x), "expected one number per x"),
        (Criterion(lambda x: x.sum(-1) * math.nan), "not a number"),
        (classifier(), "expected a constraint"),
    ],
)
def test_evidence_that_does_not_fit_is_refused_by_name(constraint, message):
    with pytest.raises(ValueError, match=message):
        LatentPosterior(prior(), constraint)


def test_latents_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 4\)"):
        LatentPosterior(prior(), evidence()).log_prob(torch.zeros(2, 3).double())


def test_impossible_evidence_is_named():
    never = Criterion(lambda x: torch.where(x.sum(-1) > 1e6, 0.0, -math.inf))
    question = LatentPosterior(prior(), [*evidence(), never])
    with pytest.raises(ValueError, match="impossible for Criterion"):
        question.start(4, torch.Generator().manual_seed(0))


def test_start_keeps_only_possible_draws():
    half = Criterion(lambda x: torch.where(x.sum(-1) > 0, x.sum(-1), -math.inf))
    question = LatentPosterior(prior(), half)
    xi = question.start(50, torch.Generator().manual_seed(0))
    assert xi.shape == (50, 4)
    assert question.log_prob(xi).isfinite().all()

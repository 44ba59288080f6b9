"""What every constraint of CONSTRAINTS must keep to: densities, gradients, powers, outcomes, Fisher metrics."""

import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import CONSTRAINTS, LatentPosterior, constraints, logic
from autovae.reasoning.constraints import Constraint, Scene
from autovae.reasoning.gradient import likelihood_gradient

every_constraint = pytest.mark.parametrize("row", CONSTRAINTS.values(), ids=CONSTRAINTS)


def points(count=6, dtype=torch.float64):
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


def generator():
    torch.manual_seed(1)
    return PriorModule.from_decoder(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double(), "laplace")


def test_every_public_constraint_has_a_row():
    public = {getattr(module, name) for module in (constraints, logic) for name in module.__all__}
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Constraint)}
    assert kinds - {row.kind for row in CONSTRAINTS.values()} == {Constraint, logic.Statement}


@every_constraint
def test_log_prob_is_the_law(row):
    constraint, x = row.example(), points()
    assert type(constraint) is row.kind
    value = constraint.log_prob(x)
    assert value.shape == (6,)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, row.law(x))


@every_constraint
def test_an_x_alone_has_the_value_it_has_in_a_batch(row):
    constraint, x = row.example(), points()
    alone = torch.cat([constraint.log_prob(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(alone, constraint.log_prob(x))


@every_constraint
def test_the_gradient_agrees_with_finite_differences(row):
    assert torch.autograd.gradcheck(row.example().log_prob, points().requires_grad_())
    posterior, xi = LatentPosterior(generator(), row.example(), power=1.7), points()[:, :2]
    value, slope = likelihood_gradient(posterior)(xi, True)
    torch.testing.assert_close(value, 1.7 * row.law(posterior.decode(xi)))
    nudges = 1e-6 * torch.eye(2, dtype=torch.float64)
    differences = [(posterior.log_likelihood(xi + d) - posterior.log_likelihood(xi - d)) / 2e-6 for d in nudges]
    torch.testing.assert_close(slope, torch.stack(differences, -1), rtol=1e-6, atol=1e-7)


@every_constraint
def test_power_multiplies_the_log_density(row):
    constraint, x = row.example(), points()
    assert constraint.power == 1
    raised = constraint.with_power(2.5)
    assert raised is not constraint
    assert constraint.power == 1
    torch.testing.assert_close(raised.log_prob(x), 2.5 * constraint.log_prob(x))
    torch.testing.assert_close(raised.with_power(2).log_prob(x), 5 * constraint.log_prob(x))
    assert (constraint.with_power(0).log_prob(x) == 0).all()
    with pytest.raises(ValueError, match="power"):
        LatentPosterior(generator(), constraint, power=-1)


@every_constraint
def test_the_outcomes_have_probability_one(row):
    x, outcomes = points(), row.outcomes()
    if not outcomes:
        assert row.example().coordinates(Scene(x)) is None
        return
    total = sum(weight * constraint.log_prob(x).exp() for constraint, weight in outcomes)
    torch.testing.assert_close(total, torch.ones(6, dtype=torch.float64), rtol=1e-7, atol=0)


@every_constraint
def test_the_metric_is_the_fisher_information(row):
    """J^T J of the coordinates is the mean over outcomes of score score^T."""
    x, constraint = points(1), row.example()
    if constraint.coordinates(Scene(x)) is None:
        return
    jacobian = torch.autograd.functional.jacobian(lambda x: constraint.coordinates(Scene(x[None]))[0], x[0])
    information = torch.zeros(3, 3, dtype=torch.float64)
    for outcome, weight in row.outcomes():
        leaf = x.clone().requires_grad_()
        value = outcome.log_prob(leaf)
        (score,) = torch.autograd.grad(value.sum(), leaf)
        information += weight * value.detach().exp() * torch.outer(score[0], score[0])
    torch.testing.assert_close(jacobian.mT @ jacobian, information, rtol=1e-6, atol=1e-9)
    posterior, xi = LatentPosterior(generator(), constraint.with_power(3), power=2), points(2)[:, :2]
    theta, _ = posterior.jacobian(xi)
    torch.testing.assert_close(theta, math.sqrt(6) * constraint.coordinates(posterior.scene(xi)))


@every_constraint
def test_the_bound_is_above_every_value(row):
    constraint = row.example()
    wide = 10 * points(1000)
    assert float(constraint.log_prob(wide).max()) <= constraint.log_bound + 1e-9


@every_constraint
def test_the_name_and_the_power_are_shown(row):
    constraint = row.example()
    assert constraint.name.startswith(row.kind.__name__)
    assert repr(constraint) == f"<{constraint.name}>"
    assert "power 2.5" in repr(constraint.with_power(2.5))
    assert row.kind.__doc__

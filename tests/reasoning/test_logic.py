"""Logic against enumeration: every statement's probability is the sum over joint classes for which it is true."""

import itertools

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Categorical, Criterion, Gaussian
from autovae.reasoning.logic import And, Not, Or, Relation, truth_table
from autovae.reasoning.posterior import LatentPosterior


def logits(n=6, objects=3, classes=4):
    return 3 * torch.randn(n, objects, classes, generator=torch.Generator().manual_seed(0)).double()


def classifier(x):
    """The logits are the object: enumeration needs nothing else."""
    return x


def enumerate_log_prob(x, holds):
    """log of the summed probability of the joint classes for which `holds` is true, object by object."""
    log_probs = x.log_softmax(-1)
    _, objects, classes = x.shape
    total = torch.zeros(len(x)).double()
    for cell in itertools.product(range(classes), repeat=objects):
        if holds(*cell):
            total += sum(log_probs[:, v, c] for v, c in enumerate(cell)).exp()
    return total.log()


def is_class(y, index):
    return Categorical(classifier, y, object=index)


STATEMENTS = {
    "sum": (
        lambda: Relation("i,j,k->", truth_table(lambda i, j, k: i + j == k, (4, 4, 4)), [classifier] * 3),
        lambda i, j, k: i + j == k,
    ),
    "two of three": (
        lambda: Relation("i,j->", truth_table(lambda i, j: j == i + 2, (4, 4)), classifier, objects=[2, 0]),
        lambda i, j, k: i == k + 2,
    ),
    "odd": (lambda: Relation("i->", torch.tensor([0.0, 1, 0, 1]), classifier, objects=[1]), lambda i, j, k: j % 2 == 1),
    "same letter": (lambda: Relation("i,i,i->", torch.ones(4), classifier), lambda i, j, k: i == j == k),
    "same letter weighted": (
        lambda: Relation("i,j,i->", truth_table(lambda i, j: i < j, (4, 4)), classifier),
        lambda i, j, k: i == k and i < j,
    ),
    "not": (lambda: Not(is_class(3, 0)), lambda i, j, k: i != 3),
    "or of one variable": (lambda: Or(is_class(3, 0), is_class(1, 0)), lambda i, j, k: i in {1, 3}),
    "or of two": (lambda: Or(is_class(3, 0), is_class(1, 2)), lambda i, j, k: i == 3 or k == 1),
    "and": (
        lambda: And(is_class(3, 0), is_class(1, 2), Not(is_class(0, 1))),
        lambda i, j, k: i == 3 and k == 1 and j != 0,
    ),
    "operators": (
        lambda: (is_class(3, 0) & ~is_class(1, 2)) | is_class(2, 1),
        lambda i, j, k: (i == 3 and k != 1) or j == 2,
    ),
    "exclusive or": (
        lambda: Or(And(is_class(1, 0), Not(is_class(2, 1))), And(Not(is_class(1, 0)), is_class(2, 1))),
        lambda i, j, k: (i == 1) != (j == 2),
    ),
    "of relations": (
        lambda: And(
            Relation("i,j,k->", truth_table(lambda i, j, k: i + j == k, (4, 4, 4)), classifier), Not(is_class(3, 2))
        ),
        lambda i, j, k: i + j == k and k != 3,
    ),
    "variables in another order": (
        lambda: And(
            Relation("i,j->", truth_table(lambda i, j: i < j, (4, 4)), classifier, objects=[0, 1]),
            Not(Relation("i,j->", truth_table(lambda i, j: i == j + 2, (4, 4)), classifier, objects=[1, 0])),
        ),
        lambda i, j, k: i < j and j != i + 2,
    ),
    "order of variables": (
        lambda: And(
            Relation("i,j->", truth_table(lambda i, j: j > i, (4, 4)), classifier, objects=[2, 0]), is_class(1, 1)
        ),
        lambda i, j, k: i > k and j == 1,
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_against_enumeration(name):
    build, holds = STATEMENTS[name]
    x = logits()
    torch.testing.assert_close(build().log_prob(x, objects=3), enumerate_log_prob(x, holds))


@pytest.mark.parametrize("name", STATEMENTS)
def test_not_is_exact_also_where_the_statement_is_almost_certain(name):
    build, holds = STATEMENTS[name]
    x = 20 * logits()
    expected = enumerate_log_prob(x, lambda *cell: not holds(*cell))
    torch.testing.assert_close(Not(build()).log_prob(x, objects=3), expected)


def test_all_sixteen_questions_about_two_features():
    x = logits(objects=2, classes=2)
    a, b = is_class(1, 0), is_class(1, 1)
    for truth in itertools.product([0, 1], repeat=4):
        cells = [cell for cell, true in zip(itertools.product([0, 1], repeat=2), truth, strict=True) if true]
        if not cells:
            continue
        question = Or(*(And(a if i else Not(a), b if j else Not(b)) for i, j in cells))
        expected = enumerate_log_prob(x, lambda i, j, cells=cells: (i, j) in cells)
        torch.testing.assert_close(question.log_prob(x, objects=2), expected)


def test_shares_of_truth():
    x = logits(objects=1)
    shares = torch.tensor([0.0, 0.25, 0.5, 1.0]).double()
    expected = (x[:, 0].softmax(-1) @ shares).log()
    torch.testing.assert_close(Relation("i->", shares, classifier, objects=[0]).log_prob(x[:, 0]), expected)
    torch.testing.assert_close(
        Not(Relation("i->", shares, classifier)).log_prob(x[:, 0]), (x[:, 0].softmax(-1) @ (1 - shares)).log()
    )


def test_gradients_are_finite_where_the_statement_is_hopeless_or_certain():
    for sign in (1, -1):
        x = (sign * 300 * torch.tensor([[1.0, -1.0, -1.0]])).double().requires_grad_()
        statement = Or(Categorical(classifier, 0), Categorical(classifier, 1))
        (gradient,) = torch.autograd.grad(statement.log_prob(x).sum(), x)
        assert gradient.isfinite().all()


def test_densities_join_by_their_likelihoods():
    x = torch.randn(5, 2).double()
    one, two = Gaussian(None, torch.zeros(2), 1.0), Criterion(lambda x: x[:, 0], 2.0)
    torch.testing.assert_close(And(one, two, power=2).log_prob(x), 2 * (one.log_prob(x) + two.log_prob(x)))
    torch.testing.assert_close(Or(one, two).log_prob(x), torch.logaddexp(one.log_prob(x), two.log_prob(x)))
    powered = Categorical(classifier, 0, power=3)
    torch.testing.assert_close(And(powered, one).log_prob(x), powered.log_prob(x) + one.log_prob(x))


def test_fisher_coordinate_of_a_statement_has_the_information_of_its_outcome():
    f = nn.Linear(3, 4).double()
    prior = PriorModule.from_decoder(nn.Identity(), latent_dim=3).double()
    statement = Relation("i->", torch.tensor([1.0, 0, 1, 0]), f)
    posterior = LatentPosterior(prior, statement)
    xi = torch.randn(4, 3).double()
    _, jacobian = posterior.jacobian(xi)
    for row, point in zip(jacobian, xi, strict=True):
        log_p = lambda z: statement.log_prob(z[None])[0]  # noqa: E731
        slope, p = torch.autograd.functional.jacobian(log_p, point), log_p(point).exp()
        # E score^2 = p (log p)'^2 + (1 - p) (log(1 - p))'^2 = (log p)'^2 p / (1 - p)
        torch.testing.assert_close(row.T @ row, torch.outer(slope, slope) * p / (1 - p))


def test_metric_is_finite_for_certain_statements():
    statement = Relation("i->", torch.ones(3), classifier)
    prior = PriorModule.from_decoder(nn.Identity(), latent_dim=3).double()
    _, jacobian = LatentPosterior(prior, statement).jacobian(torch.randn(2, 3).double())
    assert jacobian.isfinite().all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Relation("i,j", torch.ones(2, 2), classifier), "nothing on the right"),
        (lambda: Relation("i,j->k", torch.ones(2, 2), classifier), "nothing on the right"),
        (lambda: Relation("i,j->", torch.ones(2), classifier), "expected 2"),
        (lambda: Relation("i,j->", torch.ones(2, 2), [classifier] * 3), "expected 2 each"),
        (lambda: Relation("i->", 2 * torch.ones(2), classifier), "outside"),
        (lambda: Not(Gaussian(None, torch.zeros(2), 1.0)), "not a density"),
        (lambda: Not(And(Gaussian(None, torch.zeros(2), 1.0))), "not a density"),
        (lambda: Not(Categorical(classifier, 1, power=2)), "power outside"),
        (lambda: And(), "no parts"),
    ],
)
def test_statements_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_statement_that_can_never_hold_is_refused_by_name():
    prior = PriorModule.from_decoder(nn.Identity(), latent_dim=3).double()
    label = Categorical(classifier, 1)
    with pytest.raises(ValueError, match=r"And\(Categorical\(y=1\), Not.*can never hold"):
        LatentPosterior(prior, And(label, Not(label)))
    with pytest.raises(ValueError, match="has 4 entries and its network has 3 classes"):
        LatentPosterior(prior, Relation("i->", torch.ones(4), classifier))

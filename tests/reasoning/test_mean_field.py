"""Mean field: the ADVI step by hand, whitened noise, annealing through modes, what is watched."""

import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import (
    Categorical,
    Criterion,
    Gaussian,
    LatentPosterior,
    MeanField,
    Not,
    Or,
    Relation,
    truth_table,
)
from autovae.reasoning.mean_field import ADVIStep, whitened


def identity_prior(dim):
    return PriorModule.from_decoder(nn.Identity(), latent_dim=dim).double()


def test_advi_step_by_hand():
    parameter = torch.tensor([1.0, -2.0]).double().requires_grad_()
    optimizer = ADVIStep([parameter], eta=0.5)
    gradients = [torch.tensor([0.3, -1.0]).double(), torch.tensor([-0.2, 0.5]).double()]
    expected, average = parameter.detach().clone(), None
    for k, g in enumerate(gradients, start=1):
        parameter.grad = g.clone()
        optimizer.step()
        average = g**2 if average is None else 0.1 * g**2 + 0.9 * average
        expected = expected - 0.5 * k ** (-0.5 + 1e-16) / (1 + average.sqrt()) * g
        torch.testing.assert_close(parameter.detach(), expected)


def test_advi_step_minimises_and_takes_a_closure():
    parameter = torch.tensor([3.0]).requires_grad_()
    optimizer = ADVIStep([parameter], eta=1.0)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(100)]
    assert losses[-1] < 1e-2 * losses[0]


@pytest.mark.parametrize(("pairs", "dim"), [(3, 8), (8, 8), (20, 8)])
def test_whitened_noise(pairs, dim):
    eps = whitened(pairs, dim, torch.Generator().manual_seed(0), torch.zeros(()).double())
    assert eps.shape == (pairs, dim)
    moments = eps.T @ eps / pairs
    torch.testing.assert_close(moments.diagonal(), torch.ones(dim).double())
    if pairs >= dim:
        torch.testing.assert_close(moments, torch.eye(dim).double())


def test_whitened_noise_is_still_normal_in_each_latent():
    generator = torch.Generator().manual_seed(0)
    draws = torch.cat([whitened(5, 40, generator, torch.zeros(()).double()) for _ in range(200)])
    assert abs(float(draws.mean())) < 0.02
    assert float((draws.abs() > 2.2).double().mean()) < 0.02


def test_annealing_rises_to_the_full_power_and_everything_is_watched():
    seen = []
    question = LatentPosterior(identity_prior(2), Gaussian(None, torch.ones(2).double(), 0.5), power=4.0)
    method = MeanField(anneal=(0.1, 0.5, 1.0), watch=lambda i, power, mean, std: seen.append((i, power, mean, std)))
    draws = method.run(question)
    assert [i for i, *_ in seen] == list(range(draws.info["evaluations"]))
    assert list(dict.fromkeys(power for _, power, *_ in seen)) == [0.4, 2.0, 4.0]
    torch.testing.assert_close(seen[-1][2], draws.transport.loc)
    torch.testing.assert_close(draws.transport.loc, torch.full((2,), 16 / 17).double(), atol=1e-5, rtol=0)


def test_impossible_regions_do_not_spoil_the_fit():
    """Evidence that is not a number beyond |x| = 2: q starts narrower, and the line search comes back."""
    inside = Criterion(lambda x: torch.where(x.abs() < 2, x, math.nan).sum(-1))
    draws = MeanField(pairs=20).run(LatentPosterior(identity_prior(1), inside), seed=1)
    assert draws.flags == ()
    assert math.isfinite(draws.info["elbo"])
    assert 0 < float(draws.transport.loc) < 2


@pytest.mark.parametrize("optimizer", ["lbfgs", "advi"])
def test_a_label_is_reached(optimizer):
    torch.manual_seed(0)
    classifier = nn.Linear(6, 4, bias=False).double()
    prior = PriorModule.from_decoder(nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 6)).double())
    classes = classifier(prior.decode(prior.sample(2000))).argmax(-1)
    label = int(classes.bincount(minlength=4).topk(2).indices[1])  # not the most frequent
    assert classes.eq(label).double().mean() < 0.5
    question = LatentPosterior(prior, Categorical(classifier, label, power=100.0))
    draws = MeanField(optimizer=optimizer, iterations=400).run(question, draws=300, seed=2)
    assert classifier(draws.decode()[0]).argmax(-1).eq(label).double().mean() > 0.9


def test_the_best_restart_is_kept():
    """Two hills, one higher: each start finds its own, the higher one is the answer."""
    hills = Criterion(lambda x: torch.logaddexp(-50 * (x[:, 0] - 1) ** 2, 3 - 50 * (x[:, 0] + 1) ** 2))
    question = LatentPosterior(identity_prior(1), [hills])
    start = torch.tensor([[1.0], [-1.0], [1.0]]).double()
    draws = MeanField(restarts=3, optimizer="advi", iterations=300, eta=0.1).run(question, start=start)
    single = MeanField(optimizer="advi", iterations=300, eta=0.1).run(question, start=start[1])
    assert float(draws.transport.loc) < 0
    assert draws.info["elbo"] >= draws.info["worst_elbo"]
    assert draws.info["evaluations"] == 3 * single.info["evaluations"]


def test_khat_tells_a_good_answer_from_a_bad_one():
    independent = Gaussian(None, torch.ones(4).double(), torch.tensor([0.3, 0.5, 1.0, 2.0]).double())
    good = MeanField().run(LatentPosterior(identity_prior(4), independent))
    together = Gaussian(lambda x: x.sum(-1, keepdim=True), torch.zeros(1).double(), 0.05)
    bad = MeanField().run(LatentPosterior(identity_prior(4), together))
    assert good.khat < 0.5
    assert good.problems == ()
    assert bad.khat > 0.7
    assert "k-hat" in bad.problems[0]


def test_elbo_is_below_the_evidence():
    together = Gaussian(lambda x: x.sum(-1, keepdim=True), torch.zeros(1).double(), 0.5)
    draws = MeanField(pairs=8).run(LatentPosterior(identity_prior(4), together))
    log_evidence = float(torch.distributions.Normal(0.0, math.sqrt(4.25)).log_prob(torch.tensor(0.0)))
    assert draws.info["elbo"] < log_evidence


def test_a_riddle_with_three_unknown_digits():
    """x1 odd, x2 = x1 + 2, x1 + x2 = x3, x3 not seven: over digits 0..9 only 1-3-4 is left, since 3-5-8 has a circle."""
    prior = PriorModule(nn.Identity(), ["normal"] * 10).double().replicate(3)
    reader = nn.Linear(10, 10, bias=False).double()
    with torch.no_grad():
        reader.weight.copy_(8 * torch.eye(10))
    digits = (10, 10)
    riddle = [
        Relation("i->", torch.arange(10) % 2, reader, objects=[0], power=10.0),
        Relation("i,j->", truth_table(lambda i, j: j == i + 2, digits), reader, objects=[0, 1], power=10.0),
        Relation("i,j,k->", truth_table(lambda i, j, k: i + j == k, (10, 10, 10)), reader, power=10.0),
        Not(Categorical(reader, 7, object=2), power=10.0),
        Not(Or(*(Categorical(reader, y, object=2) for y in (0, 6, 8, 9))), power=10.0),
    ]
    method = MeanField(pairs=50, anneal=(0.05, 0.1, 0.3, 1.0), restarts=3)
    draws = method.run(LatentPosterior(prior, riddle), draws=200, seed=0)
    answers = reader(draws.decode()[0]).argmax(-1)
    assert (answers == torch.tensor([1, 3, 4])).all(-1).double().mean() > 0.9

"""Learned priors: densities, draws that follow them, members side by side, exact maps to a standard normal."""

import math

import pytest
import torch
from torch.nn import functional as F

from autovae import registry
from autovae.beliefs.flows import Flow
from autovae.beliefs.learned_priors import LEARNED_PRIORS, Components, join, part
from autovae.beliefs.mixtures import from_normal, log_components, log_normal_components, to_normal
from autovae.beliefs.pairing import Pairing
from autovae.beliefs.posteriors import FlowPosterior

FEATURES = 5
AWAY = {"mixture": 0.03, "vampprior": 0.25, "flow": 0.06}  # how far a prior is moved from its start


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def encoder(members, latents):
    """A fixed encoder for P members: inputs (P, N, X) to loc and scale (P, N, D)."""
    weight = randn(members, FEATURES, 2 * latents, seed=9)

    def encode(x):
        loc, s = (x @ weight[: len(x)]).chunk(2, -1)
        return loc, 0.3 + F.softplus(s)

    return encode


def learned_prior(name, latents, seed=0, components=4):
    """A learned prior away from its start, as training leaves it."""
    made = LEARNED_PRIORS[name].new(latents, FEATURES, components, seeded(seed)).double()
    with torch.no_grad():
        for place, p in enumerate(made.parameters()):
            p.add_(AWAY.get(name, 0.1) * randn(*p.shape, seed=seed + place + 1))
    return made


def pairing(family="normal", latents=2, members=1):
    return Pairing([[(family, family)] * latents] * members)


def grid(half, points):
    axis = torch.linspace(-half, half, points, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).view(1, -1, 2), (axis[1] - axis[0]) ** 2


def test_components_of_posteriors_are_known_to_the_registry():
    for name, row in registry.LEARNED_PRIORS.items():
        kind = LEARNED_PRIORS[name]
        assert row.of_posterior == (issubclass(kind, Components) and kind.side == 0)


@pytest.mark.parametrize("family", ["normal", "logistic"])
@pytest.mark.parametrize("name", LEARNED_PRIORS)
def test_densities_integrate_to_one(name, family):
    z, cell = grid(24.0 if family == "logistic" else 10.0, 241)
    log_p = learned_prior(name, 2).requires_grad_(False).log_prob(z, pairing(family), encoder(1, 2))
    assert float(log_p.exp().sum() * cell) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("family", ["normal", "laplace"])
@pytest.mark.parametrize("name", LEARNED_PRIORS)
def test_draws_follow_the_density(name, family):
    """E_p f = integral f p for two functions f, draws against a grid."""
    made, laws, encode = learned_prior(name, 2), pairing(family), encoder(1, 2)
    with torch.no_grad():
        uniform = torch.rand(1, 10_000, generator=seeded(5), dtype=torch.float64)
        draws = made.sample(randn(1, 10_000, 2, seed=4), uniform, laws, encode)
        z, cell = grid(16.0, 241)
        weight = made.log_prob(z, laws, encode).exp() * cell
        for f in (lambda z: z[..., 0].tanh(), lambda z: torch.sigmoid(z[..., 0] - z[..., 1])):
            value, error = f(draws).mean(), f(draws).std() / 100
            assert abs(float(value - (f(z) * weight).sum())) < 4 * float(error) + 1e-3


@pytest.mark.parametrize("name", LEARNED_PRIORS)
def test_members_side_by_side_give_each_its_own_numbers(name):
    members = [learned_prior(name, 3, seed=seed) for seed in (0, 7)]
    whole, z = join(members), randn(2, 6, 3, seed=1)
    encode = encoder(2, 3)
    together = whole.log_prob(z, pairing(latents=3, members=2), encode)
    for place, member in enumerate(members):
        one = lambda x, place=place: tuple(t[place : place + 1] for t in encode(x.expand(2, -1, -1)))  # noqa: E731
        alone = member.log_prob(z[place : place + 1], pairing(latents=3), one)
        torch.testing.assert_close(together[place], alone[0])
    with torch.no_grad():
        for p in whole.parameters():
            p.mul_(2)
    part(whole, members)
    for member, other in zip(members, (0, 7), strict=True):
        for mine, was in zip(member.parameters(), learned_prior(name, 3, seed=other).parameters(), strict=True):
            torch.testing.assert_close(mine, 2 * was)


def test_products_and_single_components_agree():
    loc, scale, z = randn(2, 5, 3), randn(2, 5, 3, seed=1).exp() * 0.01, randn(2, 7, 3, seed=2)
    law = pairing(latents=3, members=2).log_prior
    exact = log_components(z, loc, scale, law)
    torch.testing.assert_close(log_normal_components(z, loc, scale), exact, rtol=1e-9, atol=1e-9)
    single = log_normal_components(z.float(), loc.float(), scale.float())
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-3)


def test_a_new_flow_is_the_fixed_prior_and_draws_nothing_from_the_global_stream():
    state = torch.random.get_rng_state()
    made = LEARNED_PRIORS["flow"].new(3, FEATURES, 1, seeded())
    assert torch.equal(state, torch.random.get_rng_state())
    z = torch.randn(1, 5, 3, generator=seeded())
    laws = pairing(latents=3)
    torch.testing.assert_close(made.log_prob(z, laws, encoder(1, 3)), laws.log_prior(z))


@pytest.mark.parametrize("families", [("normal",) * 3, ("laplace", "cauchy", "gumbel")])
def test_a_mixture_maps_to_a_standard_normal_and_back(families):
    loc, scale = 3 * randn(4, 3), 0.1 + torch.rand(4, 3, generator=seeded(1), dtype=torch.float64)
    log_weights = randn(4, seed=2).log_softmax(0)
    xi = torch.cat([2 * randn(20, 3, seed=3), torch.tensor([[8.0, -8.0, 0.0]], dtype=torch.float64)])
    z = from_normal(xi, loc, scale, log_weights, families)
    back, log_p = to_normal(z, loc, scale, log_weights, families)
    torch.testing.assert_close(back, xi, rtol=1e-9, atol=1e-9)
    one = xi[0].clone()
    forward = torch.autograd.functional.jacobian(
        lambda x: from_normal(x[None], loc, scale, log_weights, families)[0], one
    )
    reverse = torch.autograd.functional.jacobian(
        lambda x: to_normal(x[None], loc, scale, log_weights, families)[0][0], z[0].detach()
    )
    torch.testing.assert_close(forward @ reverse, torch.eye(3, dtype=torch.float64))
    normal = -0.5 * one.square().sum() - 1.5 * math.log(2 * math.pi)
    assert float(log_p[0]) == pytest.approx(float(normal + torch.linalg.slogdet(reverse).logabsdet))


@pytest.mark.parametrize(("latents", "context", "passes"), [(1, 0, None), (3, 0, None), (4, 2, 2)])
def test_flows_invert_and_know_their_determinant(latents, context, passes):
    flow = Flow(latents, context, passes, generator=seeded()).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * randn(*p.shape, seed=3))
    u, c = randn(1, 6, latents), randn(1, 6, context) if context else None
    y, log_det = flow(u, c)
    back, minus = flow.inverse(y, c)
    torch.testing.assert_close(back, u)
    torch.testing.assert_close(minus, -log_det)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: flow(x.view(1, 1, -1), None if c is None else c[:, :1])[0].view(-1), u[0, 0]
    )
    assert log_det[0, 0].item() == pytest.approx(float(torch.linalg.slogdet(jacobian).logabsdet))


def test_a_flow_posterior_depends_on_its_point_and_stops_where_asked():
    flow = FlowPosterior(2, seeded()).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * randn(*p.shape, seed=3))
    z0, scale = randn(1, 4, 2), torch.ones(1, 4, 2, dtype=torch.float64)
    here, _ = flow(z0, z0 * 0, scale)
    there, _ = flow(z0, z0 * 0 + 1, scale)
    assert (here - there).abs().max() > 1e-3
    z = here.detach().requires_grad_()
    back, log_det = flow.inverse(z, z0 * 0, scale, stopped=True)
    (back.sum() + log_det.sum()).backward()
    assert z.grad.abs().max() > 0
    assert all(p.grad is None for p in flow.parameters())

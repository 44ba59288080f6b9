"""Ex-post density: a flow in front of the source gains on held-out latents and keeps densities exact."""

import math

import pytest
import torch
from torch import nn

from autovae.export.density import Flow, fit_flow
from autovae.export.prior import PriorModule
from autovae.export.transport import build


def prior(families=("laplace", "normal")):
    torch.manual_seed(0)
    return PriorModule(nn.Linear(len(families), 3).double(), families)


def ring(n=3000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(n, generator=generator).double()
    radius = 1.5 + 0.1 * torch.randn(n, generator=generator).double()
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def test_a_flow_starts_at_the_identity_and_inverts():
    flow = Flow(4).double()
    xi = torch.randn(5, 3, 4).double()
    u, log_det = flow(xi)
    torch.testing.assert_close(u, xi)
    torch.testing.assert_close(log_det, torch.zeros(5, 3).double())
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    u, log_det = flow(xi)
    back, inverse_log_det = flow.inverse(u)
    torch.testing.assert_close(back, xi)
    torch.testing.assert_close(inverse_log_det, -log_det)
    rebuilt = build(flow.config()).double()
    rebuilt.load_state_dict(flow.state_dict())
    torch.testing.assert_close(rebuilt(xi)[0], u)


def test_a_ring_is_learnt_and_the_density_stays_normalised():
    model, state = prior(), torch.get_rng_state()
    fitted = fit_flow(model, ring(), steps=250, transforms=3, rate=5e-3, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert fitted.card["source"]["gain"] > 0.7  # a ring of width .1 is worth more than a nat over two normals
    z = fitted.sample(2000, torch.Generator().manual_seed(3))
    assert float(((z.norm(dim=-1) - 1.5).abs() < 0.5).double().mean()) > 0.6
    axis = torch.linspace(-4, 4, 201).double()
    mass = fitted.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * float(axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=0.03)
    torch.testing.assert_close(fitted.from_normal(fitted.to_normal(z)), z)
    assert fitted.replicate(2).sample(3).shape == (3, 4)


def test_nothing_to_gain_gains_nothing():
    model = prior()
    fitted = fit_flow(model, model.sample(500, torch.Generator().manual_seed(1)), steps=60)
    assert abs(fitted.card["source"]["gain"]) < 0.1


def test_too_little_to_fit():
    with pytest.raises(ValueError, match="at least 20"):
        fit_flow(prior(), ring(10))
    with pytest.raises(ValueError, match="at least 2"):
        Flow(1)

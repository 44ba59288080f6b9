"""Active units: the latents that a linear encoder moves are counted, idle ones are not."""

from __future__ import annotations

import pytest
import torch

from autovae.metrics.active_units import active_units, posterior_spread
from autovae.model.vae import build
from autovae.spec import VAESpec


def test_the_spread_is_the_variance_of_the_encoders_mean(linear_vae, monkeypatch) -> None:
    vae, data, _ = linear_vae()
    weight = vae.encoder.module.weight[:3]
    expected = (data.test.x.double() @ weight.T).var(0)
    torch.testing.assert_close(posterior_spread(vae, data, data.test), expected, rtol=1e-6, atol=0)
    assert active_units(vae, data, data.test) == 3
    with torch.no_grad():
        vae.encoder.module.weight[1] = 0.0
    assert active_units(vae, data, data.test) == 2
    monkeypatch.setattr("autovae.metrics.active_units.CHUNK", 40)
    assert active_units(vae, data, data.test) == 2


def test_flow_posteriors_have_a_centre_too(linear_vae) -> None:
    _, data, _ = linear_vae()
    vae = build(VAESpec(likelihood="normal", latent_dim=2, hidden=(4,), posterior_flow=True), data.domain)
    assert posterior_spread(vae, data, data.test).shape == (2,)


def test_a_spread_needs_points(linear_vae) -> None:
    vae, data, _ = linear_vae()
    with pytest.raises(ValueError, match="at least 2"):
        posterior_spread(vae, data, data.test, points=1)

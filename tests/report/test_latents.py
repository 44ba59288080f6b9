from __future__ import annotations

import numpy as np
import pytest
import torch

from autovae.data.datasets import load
from autovae.export.card import save_vae
from autovae.model.vae import build
from autovae.report.figures.latents import information_figure, shares_figure
from autovae.report.landscape import landscape_figure
from autovae.report.latents import interpolate, load_model, look, traverse
from autovae.report.theme import svg_of
from autovae.spec import VAESpec


@pytest.fixture
def model(tmp_path):
    data = load(np.random.default_rng(0).integers(0, 17, (30, 4, 4)).astype(np.uint8))
    spec = VAESpec(
        ["normal", "laplace", "normal"],
        ["normal", "gumbel", "cauchy"],
        "continuous_bernoulli",
        latent_dim=3,
        hidden=(8,),
    )
    vae = build(spec, data.domain)
    with torch.no_grad():  # the last latent ignores the data: its location and scale are constants
        last = [layer for layer in vae.encoder.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.weight[[2, 5]] = 0
        last.bias[[2, 5]] = 0
    save_vae(vae, data, tmp_path / "vae")
    return load_model(tmp_path / "vae")


def inputs(count=20):
    return np.random.default_rng(1).random((count, 4, 4)).astype(np.float32)


def test_a_latent_that_ignores_the_data_is_not_active(model):
    seen = look(model, inputs())
    assert seen.variance[2] == pytest.approx(0, abs=1e-10)
    assert not seen.active[2]
    assert (seen.variance[:2] > 1e-6).all()
    assert seen.reconstructions.shape == (20, 4, 4)
    assert np.isfinite(seen.information).all()


def test_information_is_the_mean_divergence(model):
    seen = look(model, inputs())
    stack = model.vae.stacked.eval()
    with torch.no_grad():
        loc, scale = stack.encode(torch.from_numpy(inputs()).flatten(1))
        expected = float(stack.divergence(loc, scale).mean())
    assert seen.information.sum() == pytest.approx(expected, rel=1e-4)


def test_a_single_example_shows_information_and_no_activity(model):
    seen = look(model, inputs(1))
    axes = information_figure({"Winner": seen}).axes[0]
    assert axes.get_title("left").endswith("0 of 3 latents active")
    assert [bar.get_height() for bar in axes.patches] == sorted(seen.information, reverse=True)
    assert {bar.get_facecolor()[3] for bar in axes.patches} == {0}  # hollow


def test_ways_between_samples_start_and_end_at_samples(model):
    x = interpolate(model.prior, rows=2, steps=5, seed=3)
    with torch.no_grad():
        ends = model.prior(model.prior.sample_normal(4, generator=torch.Generator().manual_seed(3)))
    np.testing.assert_allclose(x[:, 0], ends[:2], atol=1e-4)
    np.testing.assert_allclose(x[:, -1], ends[2:], atol=1e-4)


def test_a_traversal_moves_one_latent(model):
    x = traverse(model.prior, np.array([1]), steps=3)
    with torch.no_grad():
        middle = model.prior(torch.zeros(1, 3))
    np.testing.assert_allclose(x[0, 1], middle[0], atol=1e-6)
    assert np.abs(x[0, 0] - x[0, 2]).max() > 0


@pytest.mark.parametrize(
    ("pair", "hatched"),
    [
        (("normal", "normal"), False),
        (("laplace", "gumbel"), True),
        (("uniform", "uniform"), True),
        (("cauchy", "normal"), True),
    ],
)
def test_landscapes_hatch_where_a_pair_is_infinite_and_hold_the_encoders_points(pair, hatched):
    plain = landscape_figure(*pair).axes[0]
    assert any(any(own.hatches) for own in plain.collections) == hatched
    assert not plain.lines
    shown = landscape_figure(*pair, np.array([[0.1, 9.0]]), np.array([[0.2, 0.5]])).axes[0]
    np.testing.assert_allclose(shown.lines[0].get_xydata(), [[0.1, np.log10(0.2)], [9.0, np.log10(0.5)]])
    assert shown.get_xlim()[1] > 9


def test_shares_are_counted():
    text = svg_of(shares_figure({"Winner": [("logistic", "normal")] * 14 + [("cauchy", "cauchy")] * 6}))
    assert "14 latents logistic|normal" in text

"""Named networks: shapes, odd image sizes, and a convolutional population that trains like its single fits."""

import numpy as np
import pytest
import torch

import autovae
from autovae.export.card import save_vae, to_prior
from autovae.model.networks import NETWORKS
from autovae.model.vae import build
from autovae.spec import Domain, VAESpec


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (28, 20), (3, 32, 32), (1, 17, 13)])
@pytest.mark.parametrize("scale", ["global", "pixel"])
def test_convolutions_give_back_the_shape_of_an_image(shape, scale):
    spec = VAESpec(network="conv", hidden=(6, 5), latent_dim=3, likelihood="normal", scale=scale)
    vae = build(spec, Domain(shape, "unit", 256))
    points = int(np.prod(shape))
    x = torch.rand(4, points)
    assert vae.encoder(x).shape == (4, 6)
    assert vae.decoder(torch.zeros(4, 3)).shape == (4, points * (2 if scale == "pixel" else 1))


def test_an_image_keeps_its_place_through_the_flat_layout():
    """A decoder that passes a single bright channel through puts it where the image has it."""
    spec = VAESpec(network="conv", hidden=(4,), latent_dim=2)
    vae = build(spec, Domain((3, 8, 8), "unit", 256))
    last = vae.decoder[3]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    image = vae.decoder(torch.zeros(1, 2)).reshape(3, 8, 8)
    assert [float(channel.detach().mean()) for channel in image] == [0.0, 1.0, 2.0]


def test_a_convolutional_population_equals_its_single_fits():
    data = autovae.data.datasets.load(np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8))
    specs = [
        VAESpec(network="conv", hidden=(4, 6), latent_dim=2, epochs=2, batch_size=20, seed=seed, likelihood=likelihood)
        for seed, likelihood in enumerate(["continuous_bernoulli", "normal", "normal"])
    ]
    together = autovae.fit_population(specs, data, dtype=torch.float64)
    for spec, fit in zip(specs, together, strict=True):
        alone = autovae.fit(spec, data, dtype=torch.float64)
        assert [row["loss"] for row in fit.history] == pytest.approx([row["loss"] for row in alone.history], rel=1e-10)


def test_points_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        build(VAESpec(network="conv", hidden=(4,), likelihood="normal"), Domain((7,), "real", 256))
    with pytest.raises(ValueError, match="halve images"):
        build(VAESpec(network="conv", hidden=(4, 4, 4, 4)), Domain((8, 8), "unit", 17))


def test_a_saturating_decoder_is_bounded_in_both_networks():
    for network in NETWORKS:
        spec = VAESpec(posterior="cauchy", prior="cauchy", network=network, hidden=(4, 4), latent_dim=2)
        vae = build(spec, Domain((8, 8), "unit", 17))
        far = vae.decoder(torch.full((1, 2), 1e30))
        assert torch.isfinite(far).all()
        assert far.abs().max() < 100


def test_a_convolutional_prior_is_saved_and_loaded(tmp_path):
    data = autovae.data.datasets.load(np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8))
    trained = autovae.fit(VAESpec(network="conv", hidden=(4, 6), latent_dim=2, epochs=1, batch_size=20), data)
    save_vae(trained.model, data, tmp_path / "prior")
    z = torch.randn(3, 2)
    assert torch.equal(autovae.load_prior(tmp_path / "prior").decode(z), to_prior(trained).decode(z))

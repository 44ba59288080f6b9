"""PriorModule: exact maps, densities, products, wrapping of generators, and what it refuses."""

import math

import mpmath
import pytest
import torch
from torch import nn

from autovae.beliefs.families import FAMILIES
from autovae.export.prior import PriorModule
from autovae.export.transports import Affine, build

MIXED = ["normal", "cauchy", "laplace", "cauchy", "gumbel", "uniform", "normal", "student_t3"]


def linear_prior(families, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    return PriorModule(nn.Linear(len(families), 6, dtype=dtype), families, **settings)


def grid(dim, dtype=torch.float64):
    return torch.linspace(-8, 8, 33, dtype=dtype)[:, None].expand(-1, dim).clone()


QUANTILES = {
    "laplace": lambda p: -mpmath.log(2 * p),
    "logistic": lambda p: mpmath.log((1 - p) / p),
    "cauchy": lambda p: mpmath.cot(mpmath.pi * p),
    "uniform": lambda p: 1 - 2 * p,
    "hypsecant": lambda p: -mpmath.log(mpmath.tan(mpmath.pi * p / 2)),
}


@pytest.mark.parametrize("family", QUANTILES)
def test_from_normal_agrees_with_high_precision_to_8_deviations_in_float32(family):
    prior = linear_prior([family], torch.float32)
    xi = torch.tensor([8.0, 5.5, 3.0, 1.0, 0.999, 0.1, 1e-3, 1e-6])
    z = prior.from_normal(xi[:, None])[:, 0].double()
    with mpmath.workdps(40):
        exact = torch.tensor(
            [float(QUANTILES[family](mpmath.erfc(mpmath.mpf(float(x)) / mpmath.sqrt(2)) / 2)) for x in xi]
        )
    exact = exact.double()
    assert ((z - exact).abs() <= 2e-6 * exact.abs().clamp(min=1e-3)).all()
    torch.testing.assert_close(prior.from_normal(-xi[:, None])[:, 0].double(), -z)


@pytest.mark.parametrize("family", FAMILIES)
def test_source_maps_invert_each_other_and_stay_finite(family):
    prior = linear_prior([family] * 2)
    xi = grid(2).requires_grad_()
    z = prior.from_normal(xi)
    (gradient,) = torch.autograd.grad(z.sum(), xi)
    assert z.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient > 0).all()
    inside = xi.abs() <= 5  # a bounded law squeezes its ends below the spacing of floats
    torch.testing.assert_close(prior.to_normal(z)[inside], xi[inside], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_normal_and_its_gradient_are_finite_in_float32(family):
    prior = linear_prior([family], torch.float32)
    xi = grid(1, torch.float32).requires_grad_()
    z = prior.from_normal(xi)
    (gradient,) = torch.autograd.grad(z.sum(), xi)
    assert z.dtype == torch.float32
    assert z.isfinite().all()
    assert gradient.isfinite().all()


def test_each_latent_has_its_own_family():
    prior = linear_prior(MIXED)
    xi = torch.randn(5, len(MIXED), dtype=torch.float64)
    z = prior.from_normal(xi)
    for i, name in enumerate(MIXED):
        torch.testing.assert_close(z[:, i], FAMILIES[name].from_normal(xi[:, i]))
    log_prob = sum(FAMILIES[name].log_prob(z[:, i]) for i, name in enumerate(MIXED))
    torch.testing.assert_close(prior.log_prob(z), log_prob)
    torch.testing.assert_close(prior.to_normal(z), xi)


@pytest.mark.parametrize("transport", [False, True])
def test_density_is_the_change_of_variables_of_the_source(transport):
    prior = linear_prior(MIXED)
    if transport:
        root = torch.eye(8, dtype=torch.float64) + 0.1 * torch.randn(8, 8, dtype=torch.float64)
        prior = prior.transported(Affine(torch.randn(8, dtype=torch.float64), root))
    xi = torch.randn(8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(prior.from_normal, xi)
    log_normal = -0.5 * xi.square().sum() - 4 * math.log(2 * math.pi)
    expected = log_normal - torch.linalg.slogdet(jacobian).logabsdet
    z = prior.from_normal(xi)
    torch.testing.assert_close(prior.log_prob(z), expected)
    torch.testing.assert_close(prior.to_normal(z), xi)


def test_samples_follow_the_families():
    prior = linear_prior(MIXED)
    z = prior.sample(20_000, generator=torch.Generator().manual_seed(1))
    for i, name in enumerate(MIXED):
        u = FAMILIES[name].cdf(z[:, i]).sort().values
        distance = (u - torch.linspace(0, 1, len(u), dtype=u.dtype)).abs().max()
        assert distance < 1.95 / math.sqrt(len(u)), name  # Kolmogorov, one in a thousand
    torch.testing.assert_close(
        prior.sample(3, torch.Generator().manual_seed(2)), prior.sample(3, torch.Generator().manual_seed(2))
    )


def test_replicate_is_the_product_of_independent_objects():
    prior = linear_prior(MIXED, shape=(2, 3))
    three = prior.replicate(3)
    assert three.latent_dim == 24
    z = three.sample(5)
    parts = z.split(8, -1)
    torch.testing.assert_close(three.decode(z), torch.stack([prior.decode(part) for part in parts], 1))
    assert three.decode(z).shape == (5, 3, 2, 3)
    torch.testing.assert_close(three.log_prob(z), sum(prior.log_prob(part) for part in parts))
    xi = torch.randn(5, 24, dtype=torch.float64)
    torch.testing.assert_close(three.from_normal(xi), torch.cat([prior.from_normal(p) for p in xi.split(8, -1)], -1))


def test_replicate_of_a_transported_prior_moves_every_object_alike():
    moved = linear_prior(MIXED).transported(
        Affine(torch.ones(8, dtype=torch.float64), 0.5 * torch.ones(8, dtype=torch.float64))
    )
    two = moved.replicate(2)
    xi = torch.randn(4, 16, dtype=torch.float64)
    torch.testing.assert_close(two.from_normal(xi), torch.cat([moved.from_normal(p) for p in xi.split(8, -1)], -1))
    z = two.from_normal(xi)
    torch.testing.assert_close(two.log_prob(z), sum(moved.log_prob(p) for p in z.split(8, -1)))
    torch.testing.assert_close(two.to_normal(z), xi)


def test_transports_are_rebuilt_from_plain_values():
    affine = Affine(torch.randn(8, dtype=torch.float64), torch.rand(8, 8, dtype=torch.float64) + 4 * torch.eye(8))
    moved = linear_prior(MIXED).transported(affine).transported(affine).replicate(2)
    rebuilt = build(moved.transport.config()).double()
    rebuilt.load_state_dict(moved.transport.state_dict())
    xi = torch.randn(3, 16, dtype=torch.float64)
    torch.testing.assert_close(rebuilt(xi), moved.transport(xi))


def test_a_decoder_without_weights_keeps_its_precision():
    prior = PriorModule(nn.Identity(), MIXED).double()
    assert prior.replicate(2).dtype == torch.float64
    assert prior.transported(Affine(torch.zeros(8).double(), torch.ones(8).double())).sample(2).dtype == torch.float64


def test_decode_takes_any_leading_shape():
    prior = linear_prior(MIXED, shape=(2, 3))
    z = prior.sample(12)
    x = prior.decode(z)
    torch.testing.assert_close(prior.decode(z.reshape(3, 4, 8)), x.reshape(3, 4, 2, 3))
    torch.testing.assert_close(prior.decode(z[0]), x[0])


def test_wrapped_generator_returns_its_output_unchanged_and_is_frozen():
    generator = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 6), nn.Unflatten(1, (1, 2, 3))
    )
    prior = PriorModule.from_decoder(generator.train())
    assert prior.latent_dim == 4
    z = torch.randn(5, 4)
    assert torch.equal(prior.decode(z), generator(z))
    prior.train()
    assert not any(module.training for module in generator.modules())
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_families_as_counts():
    prior = PriorModule.from_decoder(nn.Linear(3, 2), families={"logistic": 2, "cauchy": 1})
    assert prior.families == ("logistic", "logistic", "cauchy")


class Noisy(nn.Module):
    def forward(self, z):
        return z + 0.01 * torch.randn_like(z)


class Counting(nn.Module):
    calls = 0

    def forward(self, z):
        self.calls += 1
        return z * self.calls


class Batchwise(nn.Module):
    def forward(self, z):
        return z - z.mean(0)


@pytest.mark.parametrize(
    ("decoder", "settings", "message"),
    [
        (Noisy(), {"latent_dim": 2}, "changes between two calls"),
        (Counting(), {"latent_dim": 2}, "changes between two calls"),
        (Batchwise(), {"latent_dim": 2}, "depends on the others in the batch"),
        (nn.Linear(3, 2), {"latent_dim": 4}, "does not take latents"),
        (nn.Identity(), {}, "pass latent_dim"),
        (nn.Linear(3, 2), {"families": ["normal", "normal"]}, "does not take latents"),
        (nn.Linear(3, 2), {"families": "norml"}, "did you mean 'normal'"),
        (nn.Linear(3, 2), {"families": ["normal"] * 4, "latent_dim": 3}, "got 4 families for 3 latents"),
    ],
)
def test_bad_generators_are_refused(decoder, settings, message):
    with pytest.raises(ValueError, match=message):
        PriorModule.from_decoder(decoder, **settings)


def test_checking_a_generator_leaves_the_global_stream_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="changes"):
        PriorModule.from_decoder(Noisy(), latent_dim=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_latents_of_another_size_are_refused():
    prior = linear_prior(MIXED)
    for method in (prior.decode, prior.log_prob, prior.from_normal, prior.to_normal):
        with pytest.raises(ValueError, match=r"expected \(\.\.\., 8\)"):
            method(torch.zeros(2, 7, dtype=torch.float64))


@pytest.mark.slow
def test_decode_and_the_whole_prior_can_be_exported():
    prior = linear_prior(MIXED, torch.float32, likelihood="bernoulli", shape=(2, 3))
    batch = {0: torch.export.Dim("batch")}
    xi = torch.randn(7, 8)
    whole = torch.export.export(prior, (torch.randn(4, 8),), dynamic_shapes={"xi": batch})
    torch.testing.assert_close(whole.module()(xi), prior(xi))

    class Decode(nn.Module):
        def __init__(self):
            super().__init__()
            self.prior = prior

        def forward(self, z):
            return self.prior.decode(z)

    decode = torch.export.export(Decode(), (torch.randn(4, 8),), dynamic_shapes={"z": batch})
    torch.testing.assert_close(decode.module()(xi), prior.decode(xi))

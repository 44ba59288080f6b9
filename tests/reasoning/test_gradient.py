"""The hand-written gradient equals autograd's, for every decoder, prior, likelihood and evidence it takes on."""

import pytest
import torch
from torch import nn

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.export.prior import PriorModule
from autovae.export.transports import Affine
from autovae.model.classifiers import NETWORKS, Classifier
from autovae.reasoning.constraints import Categorical, Criterion, Gaussian, Masked
from autovae.reasoning.gradient import MEAN_SLOPES, likelihood_gradient
from autovae.reasoning.posterior import LatentPosterior

ACTIVATIONS = [
    nn.ReLU(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.LeakyReLU(0.2),
    nn.ELU(0.7),
    nn.SiLU(),
    nn.GELU(),
    nn.GELU("tanh"),
]
MIXED = ["normal", "cauchy", "laplace", "gumbel", "uniform", "student_t3"]


def decoder(activation=None, pixels=10, dim=6):
    torch.manual_seed(0)
    act = activation or nn.Tanh()
    layers = nn.Sequential(
        nn.Linear(dim, 16), act, nn.Sequential(nn.Linear(16, 12, bias=False), act), nn.Linear(12, pixels)
    )
    return layers.double()


def measurement(pixels=10):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(pixels, generator=generator).double()


def classifier(pixels=10):
    torch.manual_seed(2)
    return nn.Linear(pixels, 3).double()


def assert_exact(posterior):
    xi = torch.randn(5, posterior.latent_dim, generator=torch.Generator().manual_seed(3)).double()
    value, gradient = likelihood_gradient(posterior)(xi, True)
    expected_value, expected = posterior.likelihood_and_gradient(xi)
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(likelihood_gradient(posterior)(xi, False)[1], expected)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations(activation):
    prior = PriorModule.from_decoder(decoder(activation))
    assert_exact(LatentPosterior(prior, Gaussian(None, measurement(), 0.3)))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("families", [["normal"] * 6, MIXED], ids=["normal", "mixed"])
@pytest.mark.parametrize("units", [(0.0, 1.0), (torch.arange(10.0), 2.5)], ids=["plain", "standardised"])
def test_likelihoods_families_and_units(likelihood, families, units):
    scale = 0.3 if LIKELIHOODS[likelihood].has_scale else None
    prior = PriorModule(
        decoder(), families, likelihood=likelihood, scale=scale, offset=units[0], unit=units[1], shape=(2, 5)
    )
    y = measurement().reshape(2, 5)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1]])
    assert_exact(LatentPosterior(prior, Gaussian(None, y, 0.3)))
    both = [Gaussian(None, y, 0.1 + torch.rand(2, 5).double(), power=2.0), Masked(y + 1, mask, 0.2)]
    assert_exact(LatentPosterior(prior, both, power=0.7))


@pytest.mark.parametrize(
    "evidence",
    [
        lambda: Categorical(classifier(), 1, power=3.0),
        lambda: Criterion(lambda x: x.square().sum(-1), -0.5),
        lambda: Gaussian(classifier(), torch.zeros(3).double(), 0.5),
        lambda: Gaussian(None, measurement(), covariance=torch.eye(10).double() + 0.3),
    ],
)
def test_evidence_without_a_closed_form(evidence):
    prior = PriorModule(decoder(), MIXED, likelihood="bernoulli")
    assert_exact(LatentPosterior(prior, [evidence(), Gaussian(None, measurement(), 0.3)]))


@pytest.mark.parametrize("likelihood", [None, "bernoulli"])
@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.GELU()], ids=str)
def test_an_activation_at_the_end(likelihood, last):
    prior = PriorModule(nn.Sequential(decoder(), last), MIXED, likelihood=likelihood)
    assert_exact(LatentPosterior(prior, Gaussian(None, measurement(), 0.3)))


def test_no_network_at_all():
    prior = PriorModule(nn.Identity(), MIXED).double()
    assert_exact(LatentPosterior(prior, Gaussian(None, measurement(6), 0.3)))


def test_the_gradient_does_not_change_its_argument_nor_earlier_results():
    gradient = likelihood_gradient(
        LatentPosterior(PriorModule.from_decoder(decoder()), Gaussian(None, measurement(), 0.3))
    )
    xi, other = torch.randn(2, 5, 6).double()
    before = xi.clone()
    value, slope = gradient(xi, True)
    kept = value.clone(), slope.clone()
    gradient(other, True)
    assert torch.equal(xi, before)
    assert torch.equal(value, kept[0])
    assert torch.equal(slope, kept[1])


def test_several_objects():
    prior = PriorModule(decoder(), MIXED, likelihood="bernoulli", shape=(2, 5)).replicate(3)
    y = measurement().reshape(2, 5)
    assert_exact(LatentPosterior(prior, [Gaussian(None, y, 0.3, object=1), Gaussian(None, y.expand(3, 2, 5), 0.5)]))


def test_scale_per_pixel():
    prior = PriorModule(decoder(pixels=20), MIXED, likelihood="normal", scale="pixel", scale_floor=0.01)
    assert_exact(LatentPosterior(prior, Gaussian(None, measurement(), 0.3)))


def test_other_networks_and_transports():
    y = measurement()
    for other in (nn.Sequential(decoder(), nn.Softplus()), nn.Sequential(decoder(), nn.LayerNorm(10).double())):
        assert_exact(LatentPosterior(PriorModule.from_decoder(other), Gaussian(None, y, 0.3)))
    moved = PriorModule(decoder(), MIXED).transported(Affine(torch.ones(6).double(), torch.ones(6).double()))
    assert_exact(LatentPosterior(moved, Gaussian(None, y, 0.3)))


def test_hooks_count():
    hooked = decoder()
    hooked[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    assert_exact(LatentPosterior(PriorModule.from_decoder(hooked), Gaussian(None, measurement(), 0.3)))
    whole = decoder()
    whole.register_forward_hook(lambda module, inputs, output: output.square())
    assert_exact(LatentPosterior(PriorModule.from_decoder(whole), Gaussian(None, measurement(), 0.3)))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_a_classifier_of_images(network, task):
    torch.manual_seed(0)
    net = Classifier(network, (8, 8), 5 if task == "classes" else 0).double().eval().requires_grad_(False)
    prior = PriorModule(decoder(pixels=64), MIXED, likelihood="continuous_bernoulli", shape=(8, 8))
    assert_exact(LatentPosterior(prior, Categorical(net, 3) if task == "classes" else Gaussian(net, 1.0, 0.5)))


def test_labels_of_several_networks():
    """Two labels of one network, one of another, of which one has a single output."""
    torch.manual_seed(4)
    other, single = nn.Linear(10, 4).double(), nn.Linear(10, 1).double()
    first = classifier()
    labels = [Categorical(first, 1, power=3.0), Categorical(first, 2), Categorical(other, 0, power=0.0)]
    prior = PriorModule(decoder(), MIXED, likelihood="bernoulli")
    assert_exact(LatentPosterior(prior, labels, power=0.7))
    assert_exact(LatentPosterior(prior, [*labels, Categorical(single, 1)]))
    assert_exact(
        LatentPosterior(prior.replicate(2), [Categorical(first, 1, object=1), Categorical(other, 3, object=0)])
    )


@pytest.mark.parametrize("size", [8, 40], ids=["as a matrix", "as a convolution"])
def test_convolutions(size):
    torch.manual_seed(0)
    layers = [
        nn.Linear(6, size * size), nn.Unflatten(1, (1, size, size)), nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(),
        nn.Conv2d(3, 1, 3), nn.Flatten(),
    ]  # fmt: skip
    prior = PriorModule.from_decoder(nn.Sequential(*layers).double())
    assert_exact(LatentPosterior(prior, Gaussian(None, torch.zeros((size - 2) ** 2).double(), 0.3)))


def test_a_generator_that_ignores_its_latents():
    prior = PriorModule(Constant(), MIXED, likelihood="bernoulli").double()
    assert_exact(LatentPosterior(prior, Gaussian(None, measurement(3), 0.3)))


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.output = nn.Parameter(torch.zeros(3))

    def forward(self, z):
        return self.output.expand(len(z), 3)


@pytest.mark.parametrize("name", MEAN_SLOPES)
def test_slopes_of_means(name):
    eta = torch.cat(
        [torch.linspace(-30, 30, 241), torch.tensor([-800.0, -0.5, -1e-3, 0.0, 1e-5, 0.4999, 800.0])]
    ).double()
    leaf = eta.clone().requires_grad_()
    mean = LIKELIHOODS[name].mean(leaf)
    (expected,) = torch.autograd.grad(mean.sum(), leaf)
    torch.testing.assert_close(MEAN_SLOPES[name](eta, mean.detach()), expected, rtol=1e-5, atol=1e-9)


def test_no_evidence_has_no_gradient():
    prior = PriorModule.from_decoder(decoder())
    value, gradient = likelihood_gradient(LatentPosterior(prior, []))(torch.randn(4, 6).double(), True)
    assert (value == 0).all()
    assert (gradient == 0).all()

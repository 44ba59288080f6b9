"""Plain questions: labels, denoising, in-painting, and what is missing from a bad one."""

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import MGVI, ask


def prior():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 6)).double()
    return PriorModule(decoder, ["normal", "laplace", "normal"], likelihood="bernoulli", shape=(2, 3))


def classifier():
    torch.manual_seed(1)
    layer = nn.Linear(6, 4).double()
    nn.init.normal_(layer.weight, std=20.0)
    with torch.no_grad():  # every class occurs: the mean image is undecided
        layer.bias.copy_(-layer.weight @ prior().decode(prior().sample(1000)).flatten(1).mean(0))
    return nn.Sequential(nn.Flatten(), layer)


def test_a_label():
    model, net = prior(), classifier()
    classes = net(model.decode(model.sample(1000))).argmax(-1)
    label = int(classes.bincount(minlength=4).topk(2).indices[1])
    draws = ask(model, label=label, classifier=net, method="mean_field", draws=100)
    assert net(draws.decode()[0]).argmax(-1).eq(label).double().mean() > 0.9


def test_denoising_is_nearer_than_the_noisy_image():
    model = prior()
    truth = model.decode(model.sample(1, torch.Generator().manual_seed(3)))[0]
    image = truth + 0.2 * torch.randn(2, 3, generator=torch.Generator().manual_seed(4)).double()
    draws = ask(model, image=image.flatten(), noise=0.2, method=MGVI(rounds=4), draws=200)
    assert (draws.decode()[0].mean(0) - truth).norm() < (image - truth).norm()


def test_inpainting_looks_at_the_mask_only():
    model = prior()
    truth = model.decode(model.sample(1))[0]
    mask = torch.tensor([[1, 1, 0], [0, 1, 0]])
    damaged = truth.masked_fill(mask == 0, float("nan"))
    draws = ask(model, image=damaged, mask=mask, noise=0.02, method="mgvi", settings={"pairs": 3, "rounds": 4})
    assert draws.decode().shape == (1, 6, 2, 3)
    assert (draws.decode()[0].mean(0) - truth)[mask == 1].abs().max() < 0.1


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "got no evidence"),
        ({"label": 1}, "no classifier"),
        ({"mask": torch.ones(2, 3)}, "no image"),
        ({"image": torch.zeros(2, 3), "method": "hcm"}, "did you mean 'hmc'"),
        ({"image": torch.zeros(2, 3), "settings": {"chain": 3}}, "HMC does not take these settings"),
        ({"image": torch.zeros(2, 3), "settings": {"chains": 3}, "method": MGVI()}, "method object"),
        ({"image": torch.zeros(5)}, r"f\(x\) has shape \(2, 3\) and y has shape \(5,\)"),
    ],
)
def test_bad_questions(question, message):
    with pytest.raises(ValueError, match=message):
        ask(prior(), **question)

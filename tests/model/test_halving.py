"""Halving and doubling convolutions are torch's own in values, gradients, derivatives of gradients, names and shapes."""

import pytest
import torch
from torch import nn

from autovae.model.halving import DoublingConv, HalvingConv, Image


@pytest.mark.parametrize("size", [(8, 8), (12, 28), (9, 8), (7, 11)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("own", "plain"), [(HalvingConv, nn.Conv2d), (DoublingConv, nn.ConvTranspose2d)], ids=["halving", "doubling"]
)
def test_values_and_derivatives_are_those_of_torch(own, plain, channels, size):
    torch.manual_seed(0)
    sides = (channels, 5) if own is HalvingConv else (5, channels)
    layer, expected = own(*sides).double(), plain(*sides, 4, 2, 1).double()
    expected.load_state_dict(layer.state_dict())
    x = torch.randn(3, sides[0], *size, dtype=torch.float64, requires_grad=True)
    found = []
    for one in (layer, expected):
        y = one(x)
        (slope,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        found.append((y, slope, *torch.autograd.grad(slope.square().sum(), [x, *one.parameters()])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_flat_features_become_images_with_channels_side_by_side():
    x = torch.randn(2, 3 * 4 * 4)
    image = Image(3, 4, 4)(x)
    assert torch.equal(image, x.reshape(2, 3, 4, 4))
    assert image.is_contiguous(memory_format=torch.channels_last)

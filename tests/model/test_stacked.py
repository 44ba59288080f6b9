"""A stack is its members side by side: same outputs, same gradients, weights given back unchanged."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autovae.model.networks import mlp
from autovae.model.operations import TorchOperations
from autovae.model.stacked import LinearStack, ModuleStack, is_linear, stack


def chains(names: list[str], seed: int = 0) -> list[nn.Sequential]:
    torch.manual_seed(seed)
    return [mlp([5, 7, 6, 4], name).double() for name in names]


def separate(members: list[nn.Sequential], x: torch.Tensor) -> torch.Tensor:
    return torch.stack([member(x if x.dim() == 2 else x[place]) for place, member in enumerate(members)])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "names", [["relu"], ["gelu"], ["relu", "relu"], ["tanh", "gelu", "relu", "silu", "elu", "leaky_relu"]]
)
def test_outputs_and_gradients_are_the_members_own(names: list[str], shared: bool) -> None:
    members = chains(names)
    twins = copy.deepcopy(members)
    whole = stack(members)
    assert isinstance(whole, LinearStack)
    x = torch.randn(9, 5, dtype=torch.float64) if shared else torch.randn(len(names), 9, 5, dtype=torch.float64)
    x.requires_grad_()
    z = x.detach().clone().requires_grad_()
    weight = torch.randn(len(names), 9, 4, dtype=torch.float64)
    found, expected = whole(x), separate(twins, z)
    assert torch.allclose(found, expected, rtol=1e-12)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.allclose(x.grad, z.grad, rtol=1e-10)
    for place, twin in enumerate(twins):
        own = [layer for layer in twin if isinstance(layer, nn.Linear)]
        for (name, p), layer in zip([(n, p) for n, p in whole.named_parameters() if "weight" in n], own, strict=True):
            bias = whole.get_parameter(name.replace("weight", "bias"))
            assert torch.allclose(p.grad[place].T, layer.weight.grad, rtol=1e-10)
            assert torch.allclose(bias.grad[place, 0], layer.bias.grad, rtol=1e-10)


def test_narrow_products_keep_wide_weights_and_gradients() -> None:
    torch.manual_seed(0)
    members = [mlp([50, 40, 30], "relu") for _ in range(2)]
    exact, narrow = stack(members), stack(members)
    narrow.operations = TorchOperations(torch.bfloat16)
    x = torch.randn(64, 50)
    for each in (exact, narrow):
        each(x).square().sum().backward()
    for a, b in zip(exact.parameters(), narrow.parameters(), strict=True):
        assert b.dtype == b.grad.dtype == torch.float32
        assert 0 < (a.grad - b.grad).norm() / a.grad.norm() < 0.02


def test_a_stack_moves_to_another_type() -> None:
    whole = stack(chains(["relu", "relu"]))
    whole(torch.randn(3, 5, dtype=torch.float64))
    assert whole.float()(torch.randn(3, 5)).dtype == torch.float32


@pytest.mark.parametrize("kind", [LinearStack, ModuleStack])
def test_unstack_gives_the_weights_back(kind: type[LinearStack] | type[ModuleStack]) -> None:
    members = chains(["relu", "relu"])
    before = [p.clone() for member in members for p in member.parameters()]
    whole = kind(members)
    with torch.no_grad():
        for p in whole.parameters():
            p += 1
    assert all(torch.equal(a, b) for a, b in zip(before, (p for m in members for p in m.parameters()), strict=True))
    whole.unstack(members)
    assert all(torch.equal(a + 1, b) for a, b in zip(before, (p for m in members for p in m.parameters()), strict=True))


def test_settings_of_an_activation_are_kept() -> None:
    members = [nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(slope), nn.Linear(4, 2)) for slope in (0.1, 0.5)]
    x = torch.randn(6, 3)
    assert torch.allclose(stack(members)(x), separate(members, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(3, 2),
        nn.Sequential(nn.Linear(3, 2, bias=False)),
        nn.Sequential(nn.Linear(3, 2), nn.Softplus(), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
    ],
)
def test_other_modules_are_mapped(module: nn.Module) -> None:
    assert not is_linear(module)
    twin = copy.deepcopy(module)
    x = torch.randn(5, 3)
    assert torch.allclose(stack([module, twin])(x), torch.stack([module(x), twin(x)]), rtol=1e-5, atol=1e-6)


def test_frozen_parameters_stay_frozen() -> None:
    members = chains(["relu", "relu"])
    for member in members:
        member[0].weight.requires_grad_(False)
    whole = stack(members)
    whole(torch.randn(4, 5, dtype=torch.float64)).sum().backward()
    learned = [p.grad is not None for p in whole.parameters()]
    assert learned == [False, True, True, True, True, True]

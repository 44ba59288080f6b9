"""Adam over stacks: torch's own steps, and moments that never become subnormal numbers, which processors are slow with."""

import pytest
import torch

from autovae.training.adam import SWEEP, StackedAdam

SMALLEST = torch.finfo(torch.float32).tiny


def gradients(step, last=60):
    """Three members of two tensors; some gradients are zero for good after the step `last`, as those of dead units are."""
    generator = torch.Generator().manual_seed(step)
    found = [torch.randn(3, *shape, generator=generator) for shape in ((4, 5), (1, 5))]
    if step >= last:
        for gradient in found:
            gradient[..., :3] = 0
    return found


def trained(rates, steps):
    """(parameters, optimizer) after so many steps."""
    torch.manual_seed(0)
    parameters = [torch.randn(3, *shape) for shape in ((4, 5), (1, 5))]
    for p in parameters:
        p.requires_grad_()
    adam = StackedAdam(parameters, rates)
    for step in range(steps):
        for p, g in zip(parameters, gradients(step), strict=True):
            p.grad = g
        adam.step()
    return parameters, adam


@pytest.mark.parametrize("rates", [(1e-2,) * 3, (1e-2, 3e-3, 1e-3)], ids=["one rate", "rates"])
def test_the_steps_are_those_of_torch(rates):
    found, _ = trained(rates, 3 * SWEEP)
    for member, rate in enumerate(rates):
        torch.manual_seed(0)
        own = [torch.randn(3, *shape)[member].requires_grad_() for shape in ((4, 5), (1, 5))]
        adam = torch.optim.Adam(own, lr=rate)
        for step in range(3 * SWEEP):
            for p, g in zip(own, gradients(step), strict=True):
                p.grad = g[member].clone()
            adam.step()
        for p, expected in zip(found, own, strict=True):
            torch.testing.assert_close(p[member], expected, rtol=1e-5, atol=1e-6)


def test_moments_of_dead_units_become_zero_and_never_subnormal():
    """m shrinks to 1e-38 some 800 steps after its gradient has died; torch's own would stay subnormal for good."""
    _, adam = trained((1e-2,) * 3, 1500)
    for moment in (*adam.means, *adam.squares):
        assert not bool(((moment != 0) & (moment.abs() < SMALLEST)).any())
    assert all(bool((mean[..., :3] == 0).all()) and bool((mean[..., 3:] != 0).all()) for mean in adam.means)

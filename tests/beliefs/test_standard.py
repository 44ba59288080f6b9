"""A normal posterior under a normal prior in one pass is the general path of any pair, in values and in slopes."""

from __future__ import annotations

import pytest
import torch

from autovae import native
from autovae.beliefs.pairing import Pairing
from autovae.beliefs.standard import LOG_SCALE_LIMIT, NormalLatents, in_one_pass

pytestmark = pytest.mark.skipif(not native.serves(), reason="there is no C compiler here")


def general(raw: torch.Tensor, xi: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    members, samples, points, latents = xi.shape
    pairing = Pairing([[("normal", "normal")] * latents] * members)
    loc, scale = pairing.parametrise(raw)
    z = (loc.unsqueeze(1) + scale.unsqueeze(1) * xi).reshape(members, samples * points, latents)
    return z, pairing.divergence(loc, scale)


def example(members: int, samples: int, points: int, latents: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Some log scales beyond the limits, and noise that does not lie side by side."""
    generator = torch.Generator().manual_seed(members + latents)
    raw = 3 * torch.randn(members, points, 2 * latents, generator=generator)
    raw[0, 0, latents], raw[-1, -1, -1] = LOG_SCALE_LIMIT + 1, -LOG_SCALE_LIMIT - 1
    xi = torch.randn(members, 3, samples, points + 2, latents, generator=generator)[:, 1, :, :points]
    return raw.requires_grad_(), xi


def values_and_slopes(function, raw, xi):  # type: ignore[no-untyped-def]
    z, kl = function(raw, xi)
    weights = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t) for t in (z, kl)]
    (slope,) = torch.autograd.grad((z * weights[0]).sum() + (kl * weights[1]).sum(), raw)
    return z.detach(), kl.detach(), slope


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [(1, 1, 7, 20), (3, 1, 100, 20), (2, 4, 5, 3), (1, 2, 1, 16), (2, 1, 500, 37)])
def test_it_is_the_general_path(sizes: tuple[int, int, int, int], threads: int) -> None:
    raw, xi = example(*sizes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = values_and_slopes(NormalLatents.apply, raw, xi)
    finally:
        torch.set_num_threads(before)
    wanted = values_and_slopes(general, raw.detach().double().requires_grad_(), xi.double())
    plain = values_and_slopes(general, raw.detach().requires_grad_(), xi)
    for a, b, c in zip(found, wanted, plain, strict=True):  # terms cancel in some sums: of the same size as torch's own
        assert error(a, b) < 3 * error(c, b) + 1e-7


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).abs() / (1 + wanted.abs())).max())


def test_what_is_no_number_stays_with_its_point() -> None:
    raw, xi = example(2, 1, 6, 5)
    z, kl = NormalLatents.apply(raw, xi)
    spoilt = raw.detach().clone()
    spoilt[1, 2, 7] = torch.nan
    other, other_kl = NormalLatents.apply(spoilt, xi)
    assert other[1, 2, 2].isnan()
    assert other_kl[1, 2].isnan()
    assert int(other.isnan().sum()) == int(other_kl.isnan().sum()) == 1
    assert torch.equal(other[~other.isnan()], z[~other.isnan()])
    assert torch.equal(other_kl[~other_kl.isnan()], kl[~other_kl.isnan()])


def test_where_it_serves() -> None:
    raw, xi = example(1, 1, 4, 3)
    assert in_one_pass(raw)
    assert not in_one_pass(raw.double())
    for spoilt in (xi.double(), xi.transpose(-1, -2).contiguous().transpose(-1, -2)):
        with pytest.raises(ValueError, match="noise"):
            NormalLatents.apply(raw, spoilt)

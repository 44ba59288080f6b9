"""Inputs, targets, bins and orders: every value in its bin, every point once an epoch."""

import numpy as np
import pytest
import torch

from autovae.data.batches import (
    bin_edges,
    bin_index,
    binarise,
    dequantise,
    epoch_order,
    grey,
    minibatches,
    network_input,
)
from autovae.data.datasets import DataError, load

RNG = np.random.default_rng(3)
GREY = load(RNG.integers(0, 256, (60, 5), dtype=np.uint8))
DIGITS = load(RNG.integers(0, 17, (60, 5)), levels=17)
DEEP = load(RNG.integers(0, 32768, (60, 5)), levels=32768)
BINARY = load(RNG.integers(0, 2, (60, 5)))
REAL = load(RNG.normal(2, 9, (60, 5)))
ALL = {"grey": GREY, "digits": DIGITS, "deep": DEEP, "binary": BINARY, "real": REAL}
LEVELLED = ("grey", "digits", "deep", "binary")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ALL)
def test_input_and_target_lie_in_the_bin_of_the_value(name):
    data = ALL[name]
    x = data.train.x
    lower, upper = bin_edges(x, data)
    assert lower.dtype == upper.dtype == torch.float32
    for values in (network_input(x, data), dequantise(x, data, generator())):
        assert values.dtype == torch.float32
        assert (lower <= values).all()
        assert (values < upper).all()


def test_input_is_the_middle_of_the_bin():
    every = torch.arange(17, dtype=torch.uint8)
    torch.testing.assert_close(network_input(every, DIGITS), (torch.arange(17) + 0.5) / 17)
    torch.testing.assert_close(network_input(torch.tensor([0, 1]), BINARY), torch.tensor([0.0, 1.0]))
    assert torch.equal(network_input(REAL.train.x, REAL), REAL.train.x)


def test_unobserved_entries_are_neutral():
    mask = torch.rand(GREY.train.x.shape, generator=generator()) < 0.5
    assert (network_input(GREY.train.x, GREY, mask)[~mask] == 0.5).all()
    assert (network_input(BINARY.train.x, BINARY, mask)[~mask] == 0.5).all()
    assert (network_input(REAL.train.x, REAL, mask)[~mask] == 0).all()
    assert torch.equal(network_input(GREY.train.x, GREY, mask)[mask], network_input(GREY.train.x, GREY)[mask])


@pytest.mark.parametrize("name", LEVELLED)
def test_bins_meet_and_cover_the_line(name):
    data = ALL[name]
    lower, upper = bin_edges(torch.arange(data.levels), data)
    assert torch.equal(lower[1:], upper[:-1])
    assert (lower[0], upper[-1]) == (-torch.inf, torch.inf)
    expected = torch.arange(1, data.levels, dtype=torch.float64) / data.levels
    assert torch.equal(lower[1:], expected.float())


def test_real_bins_meet_and_cover_the_line():
    x = torch.linspace(REAL.low - 1, REAL.high + 1, 5001)
    lower, upper = bin_edges(x, REAL)
    assert (lower <= x).all()
    assert (x < upper).all()
    edges = torch.unique(torch.cat([lower, upper]))
    assert len(edges) == 257
    assert bin_index(x, REAL).unique().tolist() == list(range(256))
    width = (REAL.high - REAL.low) / 256
    torch.testing.assert_close(edges[1:-1].diff(), torch.full((254,), width), rtol=1e-3, atol=0)


def test_dequantised_values_are_uniform_in_their_bins():
    x = torch.full((200_000,), 3, dtype=torch.uint8)
    inside = dequantise(x, DIGITS, generator()).double() * 17 - 3
    assert abs(inside.mean() - 0.5) < 4 / (12 * 200_000) ** 0.5
    assert abs(inside.var() - 1 / 12) < 1e-3
    assert torch.equal(dequantise(x, DIGITS, generator(1)), dequantise(x, DIGITS, generator(1)))


@pytest.mark.parametrize("name", ["grey", "digits", "deep"])
def test_dequantised_values_never_touch_the_ends(name, monkeypatch):
    data = ALL[name]
    ends = torch.tensor([0, data.levels - 1])
    for extreme in (0.0, 1 - 2.0**-24):
        monkeypatch.setattr(torch, "rand", lambda shape, extreme=extreme, **_: torch.full(shape, extreme))
        values = dequantise(ends, data)
        assert (values > 0).all()
        assert (values < 1).all()
        assert torch.equal((values.double() * data.levels).floor().long(), ends)


def test_real_targets_are_the_values():
    assert torch.equal(dequantise(REAL.train.x, REAL, generator()), REAL.train.x)


def test_dynamic_binarisation_has_the_right_mean_and_changes_each_draw():
    x = grey(torch.arange(17, dtype=torch.uint8), DIGITS)
    assert (x[0], x[-1]) == (0, 1)
    source = generator()
    draws = torch.stack([binarise(x, source) for _ in range(4000)])
    assert draws.unique().tolist() == [0, 1]
    torch.testing.assert_close(draws.double().mean(0), x.double(), atol=4 * 0.5 / 4000**0.5, rtol=0)
    assert (draws[:, 0] == 0).all()
    assert (draws[:, -1] == 1).all()
    with pytest.raises(DataError, match="real-valued"):
        grey(REAL.train.x, REAL)


@pytest.mark.parametrize(("points", "size"), [(10, 3), (12, 3), (5, 9), (1, 1)])
def test_an_epoch_takes_every_point_once(points, size):
    batches = minibatches(points, size, data_seed=4, epoch=2)
    assert torch.cat(batches).sort().values.tolist() == list(range(points))
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(batch.dtype == torch.int64 for batch in batches)


def test_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = epoch_order(1000, 0, 0)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, epoch_order(1000, 0, 0))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, epoch_order(1000, 0, 1))
    assert not torch.equal(first, epoch_order(1000, 1, 0))
    assert torch.equal(torch.cat(minibatches(1000, 64, 0, 0)), first)


def test_impossible_batches_are_refused():
    with pytest.raises(ValueError, match="batches of 0"):
        minibatches(10, 0, 0, 0)

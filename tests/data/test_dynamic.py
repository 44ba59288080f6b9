"""Dynamic binarisation: training bits change with the epoch and have the grey levels as their mean; test bits are fixed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autovae.data.datasets import Split, load
from autovae.data.minibatches import Minibatches

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("AUTOVAE_DATA", ROOT.parent / "shared" / "data"))


def grey_data():
    levels = torch.arange(256, dtype=torch.uint8).repeat(50, 1)
    data = load((torch.rand(100, 256, generator=torch.Generator().manual_seed(0)) < 0.5).numpy())
    return replace(data, train=Split(levels, grey=256))


def batches(feed, epoch):
    return [batch.inputs for batch in feed.epoch(10, 0, epoch, ("levels",))]


def test_bits_are_fresh_each_epoch_and_repeatable():
    feed = Minibatches(grey_data())
    first, again, other = batches(feed, 0), batches(feed, 0), batches(feed, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert set(torch.cat(first).unique().tolist()) == {0.0, 1.0}


def test_bits_have_the_grey_levels_as_their_mean_and_targets_are_the_inputs():
    feed = Minibatches(grey_data())
    mean = torch.cat([x for epoch in range(40) for x in batches(feed, epoch)]).mean(0)
    assert (mean - torch.arange(256) / 255).abs().max() < 5 * 0.5 / (40 * 50) ** 0.5
    batch = next(feed.epoch(10, 0, 0, ("levels",)))
    assert torch.equal(batch.inputs, batch.targets["levels"])


def test_black_and_white_stay():
    x = torch.cat(batches(Minibatches(grey_data()), 0))
    assert (x[:, 0] == 0).all()
    assert (x[:, 255] == 1).all()


def test_without_a_stream_the_draw_is_fixed_and_the_global_one_untouched():
    feed = Minibatches(grey_data())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(feed.batch(slice(0, 5)).inputs, feed.batch(slice(0, 5)).inputs)
    assert torch.equal(state, torch.get_rng_state())


def test_taking_and_moving_points_keeps_grey():
    split = grey_data().train
    assert split.take(slice(0, 3)).grey == split.to("cpu").grey == 256


@pytest.mark.skipif(not (FOLDER / "mnist").is_dir(), reason=f"no MNIST in {FOLDER}")
def test_mnist_dynamic():
    data, grey = load("mnist_dynamic", FOLDER), load("mnist", FOLDER)
    assert (data.support, data.levels, data.train.grey, data.test.grey) == ("binary", 2, 256, 0)
    assert torch.equal(data.train.x, grey.train.x)
    assert set(data.test.x.unique().tolist()) == {0, 1}
    assert torch.equal(data.test.x, load("mnist_dynamic", FOLDER).test.x)
    assert abs(float(data.test.x.float().mean()) - float(grey.test.x.float().mean()) / 255) < 1e-3
    assert data.digest != grey.digest


@pytest.mark.skipif(not (FOLDER / "mnist").is_dir(), reason=f"no MNIST in {FOLDER}")
def test_mnist_long_tailed_thins_the_training_classes_alone():
    data, whole = load("mnist_long_tailed", FOLDER), load("mnist", FOLDER)
    counts = torch.bincount(data.train.y)
    assert counts[0] == 4500
    assert counts[9] == 45
    ratios = counts[1:].double() / counts[:-1]
    assert torch.allclose(ratios, torch.full_like(ratios, 100 ** (-1 / 9)), rtol=0.02)
    assert torch.equal(data.test.x, whole.test.x)
    assert torch.equal(data.validation.y, whole.validation.y)

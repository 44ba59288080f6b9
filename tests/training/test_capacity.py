"""Memory is predicted before it is taken."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autovae.data.datasets import Data, load
from autovae.data.minibatches import Minibatches
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.capacity import footprint, in_a_step, members_that_fit
from autovae.training.population import Population
from autovae.training.precision import fast_products
from autovae.training.train_state import TrainState

M_MMAP_THRESHOLD = -3  # of glibc's mallopt
STATUS = Path("/proc/self/status")


def resident(key: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(key))


@pytest.fixture(scope="module")
def images() -> Data:
    return load(np.random.default_rng(0).integers(0, 256, (1500, 28, 28)).astype(np.uint8))


def group_of(spec: VAESpec, data: Data, count: int) -> list[TrainState]:
    return [TrainState(build(spec.replace(seed=seed), data.domain)) for seed in range(count)]


def predicted_and_taken(count: int, settings: dict[str, Any]) -> tuple[int, int]:
    """The predicted footprint of a population, and what this process takes for it at its highest."""
    data = load(np.random.default_rng(0).integers(0, 256, (1500, 28, 28)).astype(np.uint8))
    feed = Minibatches(data)
    group = group_of(VAESpec(epochs=2, **settings), data, count)  # to go on, so that moments are handed back too
    Population(group_of(VAESpec(hidden=(8,), batch_size=50), data, 1), feed).train_epoch()  # what is paid once
    predicted = footprint(group[0], feed, several_rates=False).total(count, in_a_step(group[0], count, feed.device))
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 17)  # what is freed is given back, so that what is resident is what is used
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark so far
    before = resident("VmRSS")
    population = Population(group, feed)
    population.train_epoch()
    population.collect()
    return predicted, resident("VmHWM") - before


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (6, {"batch_size": 1000, "hidden": [400, 400]}),
        (8, {"batch_size": 100, "hidden": [400, 400]}),
        (3, {"batch_size": 100, "hidden": [200], "samples": 30, "alpha": 0.0}),
    ],
)
@pytest.mark.parametrize("products", ["fast", "float32"])
def test_a_footprint_is_predicted_within_a_fifth(count: int, settings: dict[str, Any], products: str) -> None:
    """In a process of its own: an allocator in long use keeps what was freed."""
    command = [sys.executable, __file__, json.dumps([count, settings, products])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    predicted, taken = json.loads(done.stdout)
    assert predicted == pytest.approx(taken, rel=0.2)


def test_as_many_members_as_the_limit_allows(images: Data) -> None:
    feed = Minibatches(images)
    group = group_of(VAESpec(hidden=(50,), batch_size=100), images, 12)
    need = footprint(group[0], feed, several_rates=False)

    def total(count: int) -> int:
        return need.total(count, in_a_step(group[0], count, feed.device))

    for count in (1, 5, 12):
        assert members_that_fit(group, feed, total(count) + 1) == count
    with pytest.raises(ValueError, match="one member of batch size 100 needs"):
        members_that_fit(group, feed, int(0.9 * total(1)))


def test_small_populations_need_no_measurement(images: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autovae.training.capacity.footprint", lambda *_: 1 / 0)
    group = group_of(VAESpec(hidden=(50,), batch_size=100), images, 3)
    assert members_that_fit(group, Minibatches(images)) == 3


def test_measuring_leaves_the_member_as_it_was(images: Data) -> None:
    (member,) = group_of(VAESpec(hidden=(50,)), images, 1)
    before = [p.clone() for p in member.vae.parameters()]
    footprint(member, Minibatches(images))
    assert all(torch.equal(a, b) for a, b in zip(before, member.vae.parameters(), strict=True))
    assert (member.epoch, member.steps, member.history) == (0, 0, [])


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = json.loads(sys.argv[1])
    with fast_products(arguments.pop()):
        print(json.dumps(predicted_and_taken(*arguments)))

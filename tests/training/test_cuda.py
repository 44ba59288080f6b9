"""On a GPU: the captured step is the eager step, members do not feel their companions, and nothing waits for the host.

Marked gpu: skipped, with the reason, where there is none. The same steps run on the CPU in test_population.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import autovae
from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.data.datasets import Data, load
from autovae.data.minibatches import Minibatches
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.capacity import footprint, members_that_fit
from autovae.training.cuda import CUDABackend
from autovae.training.population import Population
from autovae.training.train_state import TrainState
from autovae.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
DOUBLE = torch.float64


@pytest.fixture(scope="module")
def images() -> Data:
    return load(np.random.default_rng(0).integers(0, 256, (600, 8, 8)).astype(np.uint8))


def specs() -> list[VAESpec]:
    base = VAESpec(latent_dim=3, hidden=(16, 12), batch_size=40, epochs=3, likelihood="continuous_bernoulli")
    return [
        base.replace(seed=1),
        base.replace(seed=2, learning_rate=3e-3),
        base.replace(seed=3, posterior="logistic", prior="normal"),
        base.replace(seed=4, posterior="laplace", prior="gumbel", likelihood="normal"),
    ]


def clean() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def members(chosen: list[VAESpec], data: Data) -> list[TrainState]:
    return [TrainState(build(spec, data.domain).to(DOUBLE)) for spec in chosen]


def losses(group: list[TrainState], feed: Minibatches, epochs: int = 3) -> dict[int, list[float]]:
    population = Population(group, feed)
    for _ in range(epochs):
        population.train_epoch()
    population.collect()
    return {member.spec.seed: [row["loss"] for row in member.history] for member in group}


def test_a_captured_epoch_is_the_eager_epoch(images: Data) -> None:
    """Epochs long enough that most steps are replays."""
    feed = Minibatches(images, device=torch.device("cuda"), dtype=DOUBLE)
    captured = losses(members(specs(), images), feed)
    trainer = Trainer(members(specs(), images), feed, CUDABackend())
    spec = trainer.specs[0]
    for epoch in range(3):
        dequantiser = feed.dequantiser()
        feed.start(dequantiser, spec.data_seed, epoch)
        trainer.start_epoch()
        for index in feed.order(spec.batch_size, spec.data_seed, epoch):
            trainer.step(feed.batch(index, trainer.kinds, trainer.edges, dequantiser))
        trainer.finish_epoch()
    for member in trainer.collect():
        assert captured[member.spec.seed] == pytest.approx([row["loss"] for row in member.history], rel=1e-9)


def test_a_member_gets_the_same_in_any_company(images: Data) -> None:
    feed = Minibatches(images, device=torch.device("cuda"), dtype=DOUBLE)
    together = losses(members(specs(), images), feed)
    for spec in specs():
        assert losses(members([spec], images), feed)[spec.seed] == pytest.approx(together[spec.seed], rel=1e-9)


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
@pytest.mark.parametrize("objective", ["density", "mass"])
def test_every_head_is_captured(images: Data, likelihood: str, objective: str) -> None:
    spec = VAESpec(latent_dim=2, hidden=(8,), batch_size=40, epochs=1, likelihood=likelihood, objective=objective)
    (fit,) = autovae.fit_population([spec], images, device="cuda")
    assert len(fit.history) == 1


def test_an_epoch_of_replays_asks_the_host_nothing(images: Data) -> None:
    feed = Minibatches(images, device=torch.device("cuda"), dtype=DOUBLE)
    population = Population(members(specs(), images), feed)
    population.train_epoch()  # captures
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        population._backend.train_epoch(population.trainers)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_population_fits_the_memory_that_is_given(images: Data) -> None:
    feed = Minibatches(images, device=torch.device("cuda"))
    group = [
        TrainState(build(VAESpec(hidden=(256,), batch_size=40, epochs=1, seed=seed), images.domain))
        for seed in range(128)
    ]
    limit = 160 << 20
    count = members_that_fit(group, feed, limit)
    assert 1 <= count < 128
    clean()
    before = torch.cuda.memory_allocated()
    population = Population(group[:count], feed)
    population.train_epoch()
    assert torch.cuda.max_memory_allocated() - before <= limit


@pytest.mark.parametrize("narrow", [None, torch.bfloat16])
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_the_footprint_is_what_is_taken(narrow: torch.dtype | None, likelihood: str) -> None:
    """Within a fifth, beside the workspaces, whose size is the library's choice."""
    data = load(np.random.default_rng(0).integers(0, 256, (3000, 28, 28)).astype(np.uint8))
    feed = Minibatches(data, device=torch.device("cuda"))
    spec = VAESpec(hidden=(400, 400), batch_size=500, epochs=1, likelihood=likelihood)
    group = [TrainState(build(spec.replace(seed=seed), data.domain)) for seed in range(48)]
    predicted = footprint(group[0], feed, several_rates=False)
    clean()
    before = torch.cuda.memory_allocated()
    population = Population(group, feed, narrow)
    population.train_epoch()
    taken = torch.cuda.max_memory_allocated() - before
    most = predicted.total(len(group), len(group))
    if narrow is None:
        assert taken == pytest.approx(most, rel=0.2, abs=predicted.fixed)
    else:
        assert taken <= most * 1.2


def test_out_of_memory_halves_the_population_and_goes_on(images: Data) -> None:
    """The device is told that it has little; the fit still ends, with every member trained."""
    spec = VAESpec(hidden=(512, 512), batch_size=200, epochs=1)
    clean()
    total = torch.cuda.get_device_properties(0).total_memory
    room = torch.cuda.memory_reserved() + (320 << 20)
    torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
    try:
        many = [spec.replace(seed=seed) for seed in range(64)]
        fits = autovae.fit_population(many, images, device="cuda", memory=1 << 40)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert all(len(fit.history) == 1 and not fit.diverged for fit in fits)


def test_cuda_and_cpu_train_to_the_same_loss(images: Data) -> None:
    """Other random numbers, the same law: mean losses over seeds agree."""
    many = [VAESpec(latent_dim=3, hidden=(16,), batch_size=40, epochs=5, seed=seed) for seed in range(24)]
    means = {}
    for device in ("cpu", "cuda"):
        last = [fit.history[-1]["loss"] for fit in autovae.fit_population(many, images, device=device)]
        means[device] = (np.mean(last), np.std(last, ddof=1) / len(last) ** 0.5)
    gap = abs(means["cpu"][0] - means["cuda"][0])
    assert gap < 4 * np.hypot(means["cpu"][1], means["cuda"][1])


@pytest.mark.parametrize("products", ["float32", "tf32", "bfloat16"])
def test_narrow_products_train_as_well(images: Data, products: str) -> None:
    spec = VAESpec(latent_dim=3, hidden=(64, 64), batch_size=40, epochs=5)
    many = [spec.replace(seed=seed) for seed in range(8)]
    last = [fit.history[-1]["loss"] for fit in autovae.fit_population(many, images, device="cuda", products=products)]
    best = [fit.history[-1]["loss"] for fit in autovae.fit_population(many, images, device="cuda", products="float32")]
    assert np.mean(last) == pytest.approx(np.mean(best), rel=0.02)

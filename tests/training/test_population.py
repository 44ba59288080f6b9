"""Laws of populations: what a member gets does not depend on its companions, its place or how it was stacked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autovae.data.datasets import Data, load
from autovae.data.minibatches import Minibatches
from autovae.model.stacked import ModuleStack
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.backend import CPUBackend, stack_sizes
from autovae.training.population import Population, shape_key
from autovae.training.precision import fast_products
from autovae.training.train_state import TrainState
from autovae.training.trainer import Trainer

DOUBLE = torch.float64


def members(specs: list[VAESpec], data: Data, dtype: torch.dtype = DOUBLE) -> list[TrainState]:
    return [TrainState(build(spec, data.domain).to(dtype)) for spec in specs]


def losses(group: list[TrainState], feed: Minibatches, epochs: int = 2, **settings: int) -> dict[int, list[float]]:
    """The loss of every epoch by the member's place in `group`."""
    place = {id(member): number for number, member in enumerate(group)}
    population = Population(group, feed, **settings)
    for _ in range(epochs):
        population.train_epoch()
    population.collect()
    return {place[id(m)]: [row["loss"] for row in m.history] for m in population.members}


def weights(member: TrainState) -> list[torch.Tensor]:
    return [p.detach().clone() for p in member.vae.parameters()]


def various(spec: VAESpec) -> list[VAESpec]:
    return [
        spec.replace(seed=1),
        spec.replace(seed=2, learning_rate=3e-3),
        spec.replace(seed=3, posterior="logistic", prior="normal"),
        spec.replace(seed=4, likelihood="normal"),
        spec.replace(seed=5, beta=0.5),
        spec.replace(
            seed=6, posterior={"laplace": 2, "normal": 1}, prior="logistic", likelihood="continuous_bernoulli"
        ),
    ]


@pytest.mark.parametrize("stack_size", [1, 3, 6])
def test_a_member_gets_the_same_in_any_company(digits: Data, spec: VAESpec, stack_size: int) -> None:
    feed = Minibatches(digits, dtype=DOUBLE)
    specs = various(spec)
    together = losses(members(specs, digits), feed, stack_size=stack_size)
    for place, own in enumerate(specs):
        alone = losses(members([own], digits), feed)[0]
        assert together[place] == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_and_so_with_other_orders(digits: Data, spec: VAESpec, alpha: float) -> None:
    feed = Minibatches(digits, dtype=DOUBLE)
    specs = [spec.replace(seed=1, alpha=alpha, samples=3), spec.replace(seed=2, alpha=0.25, samples=3, prior="laplace")]
    together = losses(members(specs, digits), feed, stack_size=2)
    assert together[0] == pytest.approx(losses(members(specs[:1], digits), feed)[0], rel=1e-12)


def per_step(group: list[TrainState], feed: Minibatches, steps: int) -> torch.Tensor:
    """Losses (members, steps) of one stack, in the order of its members."""
    trainer, rows = Trainer(group, feed, CPUBackend()), []
    while len(rows) < steps:
        trainer.start_epoch()
        for batch in feed.epoch(trainer.specs[0].batch_size, 0, trainer.epoch, trainer.kinds):
            trainer._totals.zero_()
            trainer.step(batch)
            rows.append(trainer._totals[0] / len(batch))
        trainer.finish_epoch()
    return torch.stack(rows[:steps], 1)


@pytest.mark.slow
@pytest.mark.parametrize("products", ["fast", "float32"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_hundred_steps_of_a_real_shape(dtype: torch.dtype, tolerance: float, products: str) -> None:
    rng = np.random.default_rng(0)
    data = load(rng.integers(0, 256, (1500, 28, 28)).astype(np.uint8))
    feed = Minibatches(data, dtype=dtype)
    spec = VAESpec(hidden=(100, 100), latent_dim=20, batch_size=100)
    others = [
        spec.replace(seed=2, learning_rate=1e-2, posterior="logistic"),
        spec.replace(seed=3, learning_rate=3e-4, prior="student_t5"),
        spec.replace(seed=4, posterior="laplace", prior="laplace", beta=2.0),
    ]
    with fast_products(products):
        alone = per_step(members([spec], data, dtype), feed, 100)[0]
        first = per_step(members([spec, *others], data, dtype), feed, 100)[0]
        last = per_step(members([*others, spec], data, dtype), feed, 100)[-1]
    for found in (first, last):
        assert ((found - alone).abs() / alone.abs()).max() < tolerance


def test_the_float32_law_in_short(digits: Data, spec: VAESpec) -> None:
    feed = Minibatches(digits)
    specs = various(spec)
    together = losses(members(specs, digits, torch.float32), feed, epochs=5, stack_size=6)
    alone = losses(members(specs[:1], digits, torch.float32), feed, epochs=5)[0]
    assert together[0] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("stack_size", [1, 3])
def test_a_diverging_member_leaves_the_others_untouched(digits: Data, spec: VAESpec, stack_size: int) -> None:
    feed = Minibatches(digits)

    def run(poisoned: bool) -> list[TrainState]:
        group = members([spec.replace(seed=seed) for seed in range(3)], digits, torch.float32)
        if poisoned:
            with torch.no_grad():
                next(group[1].vae.encoder.parameters()).fill_(float("nan"))
        losses(group, feed, stack_size=stack_size)
        return group

    sick, healthy = run(poisoned=True), run(poisoned=False)
    assert sick[1].diverged
    assert not healthy[1].diverged
    for place in (0, 2):
        assert sick[place].history == healthy[place].history
        for a, b in zip(weights(sick[place]), weights(healthy[place]), strict=True):
            assert torch.equal(a, b)


def test_learning_rates_are_the_members_own(digits: Data, spec: VAESpec) -> None:
    feed = Minibatches(digits, dtype=DOUBLE)
    group = members([spec.replace(learning_rate=rate) for rate in (1e-3, 1e-2, 1e-12)], digits)
    before = [weights(member) for member in group]
    losses(group, feed, epochs=1, stack_size=3)
    moved = [
        max(float((a - b).abs().max()) for a, b in zip(old, weights(m), strict=True))
        for old, m in zip(before, group, strict=True)
    ]
    assert moved[2] < 1e-10
    assert moved[1] > 3 * moved[0] > 0


def test_a_step_is_adams(digits: Data, spec: VAESpec) -> None:
    """A step of members with rates of their own against the formula."""
    feed = Minibatches(digits, dtype=DOUBLE)
    specs = [spec, spec.replace(seed=1, learning_rate=1e-3)]
    own, plain = (Trainer(members(specs, digits), feed, CPUBackend()) for _ in range(2))
    parameters = [p for p in plain.stack.parameters() if p.requires_grad]
    means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    rates = torch.tensor([s.learning_rate for s in plain.specs], dtype=DOUBLE)
    for run in (own, plain):
        run.start_epoch()
    for number, batch in enumerate(feed.epoch(spec.batch_size, 0, 0, own.kinds), 1):
        own.step(batch)
        for p in parameters:
            p.grad = None
        terms = plain.bound.terms(plain.stack, batch, plain.noise()[:, :, : len(batch)], plain._alpha, plain._beta)
        (-terms.surrogate.mean(-1).sum()).backward()
        with torch.no_grad():
            for p, m, v in zip(parameters, means, squares, strict=True):
                g = torch.zeros_like(p) if p.grad is None else p.grad
                m.lerp_(g, 0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                step = m / (1 - 0.9**number) / ((v / (1 - 0.999**number)).sqrt() + 1e-8)
                p -= rates.view(-1, *(1,) * (p.dim() - 1)) * step
    for a, b in zip(own.stack.parameters(), plain.stack.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-13)


class Conv(nn.Sequential):
    """A user's own encoder, with parts that only `vmap` can stack."""

    def __init__(self, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(1, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48, outputs),
        )


def own(spec: VAESpec, data: Data) -> TrainState:
    torch.manual_seed(spec.seed)
    return TrainState(build(spec, data.domain, encoder=Conv(2 * spec.latent_dim)).to(DOUBLE))


def test_own_modules_in_company_and_alone(digits: Data, spec: VAESpec) -> None:
    feed = Minibatches(digits, dtype=DOUBLE)
    specs = [spec.replace(seed=1), spec.replace(seed=2, learning_rate=1e-3), spec.replace(seed=3, prior="laplace")]
    group = [own(s, digits) for s in specs]
    together = losses(group, feed, stack_size=3)
    for place, s in enumerate(specs):
        single = own(s, digits)
        assert isinstance(Trainer([single], feed, CPUBackend()).stack.encoder, ModuleStack)
        assert together[place] == pytest.approx(losses([single], feed)[0], rel=1e-9)
        for a, b in zip(single.vae.buffers(), group[place].vae.buffers(), strict=True):
            assert torch.allclose(a.double(), b.double(), rtol=1e-9)  # running means came back, too
        assert int(next(b for n, b in single.vae.named_buffers() if "num_batches" in n)) == 10


def test_members_change_company_half_way(digits: Data, spec: VAESpec) -> None:
    feed = Minibatches(digits, dtype=DOUBLE)
    specs = various(spec)
    whole = members(specs, digits)
    losses(whole, feed, epochs=4, stack_size=6)
    group = members(specs, digits)
    losses(group, feed, epochs=2, stack_size=3)
    losses([group[5], group[0]], feed, epochs=2, stack_size=2)
    for place in (0, 5):
        assert [r["loss"] for r in group[place].history] == pytest.approx([r["loss"] for r in whole[place].history])
        for a, b in zip(weights(group[place]), weights(whole[place]), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_threads_give_what_one_thread_gives(digits: Data, spec: VAESpec) -> None:
    feed = Minibatches(digits)
    specs = [spec.replace(seed=seed) for seed in range(4)]
    one, two = (members(specs, digits, torch.float32) for _ in range(2))
    assert losses(one, feed, threads=1, stack_size=1) == losses(two, feed, threads=2, stack_size=1)
    assert torch.get_num_threads() == 1  # restored


def test_an_error_on_a_thread_is_raised(digits: Data, spec: VAESpec, monkeypatch: pytest.MonkeyPatch) -> None:
    population = Population(members([spec, spec.replace(seed=1)], digits), Minibatches(digits, dtype=DOUBLE), threads=2)
    monkeypatch.setattr(population.trainers[1], "advance", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        population.train_epoch()


@pytest.mark.parametrize(
    ("members_", "threads", "work"), [(1, 2, 1e9), (5, 2, 1e8), (64, 2, 6e8), (7, 16, 1e6), (40, 3, 1)]
)
def test_stacks_hold_all_members_and_leave_no_thread_idle(members_: int, threads: int, work: float) -> None:
    sizes = stack_sizes(work, members_, threads)
    assert sum(sizes) == members_
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) >= min(members_, threads)


@pytest.mark.parametrize(("hidden", "expected"), [((8,), 1), ((1500, 1500), 2)])
def test_only_large_steps_are_shared_between_threads(
    digits: Data, spec: VAESpec, hidden: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = members([spec.replace(hidden=hidden, batch_size=120)], digits, torch.float32)
    population, seen = Population(group, Minibatches(digits), threads=2), []
    monkeypatch.setattr(population.trainers[0], "advance", lambda *_: seen.append(torch.get_num_threads()))
    population.train_epoch()
    assert set(seen) == {expected}


def test_other_shapes_and_other_data_are_refused(digits: Data, spec: VAESpec) -> None:
    feed = Minibatches(digits)
    wide = spec.replace(hidden=(20,))
    with pytest.raises(ValueError, match="same shape"):
        Population(members([spec, wide], digits), feed)
    other = load(np.zeros((40, 5, 5), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None])
    with pytest.raises(ValueError, match="one data set"):
        Population(members([spec], other), feed)


def test_ages_are_not_mixed(digits: Data, spec: VAESpec) -> None:
    group = members([spec, spec.replace(seed=1)], digits)
    losses(group[:1], Minibatches(digits, dtype=DOUBLE), epochs=1)
    assert shape_key(group[0]) != shape_key(group[1])

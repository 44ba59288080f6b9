"""A step by several threads is the step by one: the same losses and weights, whatever the bound, on every run."""

from __future__ import annotations

import pytest
import torch

from autovae.data.datasets import Data
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training import split
from autovae.training.feed import Feed
from autovae.training.member import Member
from autovae.training.population import Population
from autovae.training.split import SplitStep, can_split
from autovae.training.trainer import Trainer

DOUBLE = torch.float64
SPEC = VAESpec(hidden=(12, 10), latent_dim=3, batch_size=100, epochs=3, learning_rate=1e-2)
SPECS = {
    "plain": SPEC,
    "a learned scale": SPEC.replace(likelihood="normal"),
    "a scale a pixel": SPEC.replace(likelihood="logistic", scale="pixel"),
    "many samples": SPEC.replace(alpha=0.5, samples=4, posterior="logistic", prior="cauchy"),
    "masses": SPEC.replace(likelihood="continuous_bernoulli", objective="mass"),
    "a last batch that is small": SPEC.replace(batch_size=90),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be taken whole for speed is split here."""
    monkeypatch.setattr(split, "FEWEST", 25)


def trained(spec: VAESpec, data: Data, threads: int, members: int = 1) -> list[Member]:
    group = [Member(build(spec.replace(seed=seed), data.domain).to(DOUBLE)) for seed in range(members)]
    population = Population(group, Feed(data, dtype=DOUBLE), threads=threads, stack_size=members)
    for _ in range(spec.epochs):
        population.train_epoch()
    return population.collect()


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("name", SPECS)
def test_parts_of_a_minibatch_add_up(digits: Data, name: str, threads: int) -> None:
    (whole,), (parts,) = trained(SPECS[name], digits, 1), trained(SPECS[name], digits, threads)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-10)
    for one, other in zip(whole.vae.parameters(), parts.vae.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-7, atol=1e-10)


def test_a_stack_of_several_is_split_as_one(digits: Data) -> None:
    for whole, parts in zip(trained(SPEC, digits, 1, members=2), trained(SPEC, digits, 2, members=2), strict=True):
        assert parts.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=1e-10)


def test_a_run_is_repeated_to_the_bit(digits: Data) -> None:
    first, second = (trained(SPECS["a learned scale"], digits, 3)[0].history for _ in range(2))
    assert first == second


def test_what_cannot_be_split(digits: Data) -> None:
    def ready(spec: VAESpec) -> Trainer:
        return Trainer([Member(build(spec, digits.domain))], Feed(digits))

    assert can_split(ready(SPEC), 2)
    assert not can_split(ready(SPEC.replace(batch_size=40)), 2)
    assert not can_split(ready(SPEC.replace(rival="mixture")), 2)


def test_an_error_in_a_part_is_raised(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer([Member(build(SPEC, digits.domain))], Feed(digits))
    step = SplitStep(trainer, 2)
    whole = trainer.differentiate

    def fails(batch, xi, stack, share):
        if stack is not trainer.stack:
            raise MemoryError("no more")
        return whole(batch, xi, stack, share)

    monkeypatch.setattr(trainer, "differentiate", fails)
    trainer.start_epoch()
    with pytest.raises(MemoryError, match="no more"):
        step.step(trainer.feed.batch(slice(0, 100), trainer.kinds))

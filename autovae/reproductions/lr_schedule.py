"""Fit a population through stages of learning rate, with checkpoints.

Stage i trains for e_i epochs at rate r_i; Adam's moments and the minibatch order continue across stages. A killed fit
resumes from its last saved epoch with the same result. Not here: a single rate (`training.loop.fit_population`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from autovae.data.datasets import Data
from autovae.data.minibatches import Minibatches
from autovae.model.vae import VAE, build
from autovae.spec import VAESpec
from autovae.training.loop import DivergedError, advance
from autovae.training.precision import fast_products
from autovae.training.train_state import CheckpointError, TrainState, load_state, save_state

__all__ = ["Stages", "fit_stages"]

Stages = Sequence[tuple[int, float]]  # (epochs, learning rate)
SAVE_EVERY, SPEAK_EVERY = 15.0, 5.0  # seconds
CHANGES = ("learning_rate", "epochs")  # settings that change between stages


def fit_stages(
    specs: Sequence[VAESpec],
    stages: Stages,
    data: Data,
    device: torch.device,
    folder: Path,
    say: Callable[[str], None],
    label: str,
) -> list[VAE]:
    """The fitted models of `specs`, trained as one population; `folder` holds their checkpoints.

    Raises `DivergedError` if a loss becomes NaN, `CheckpointError` if the folder holds other members.
    """
    total = sum(epochs for epochs, _ in stages)
    members = [_member(spec, data, folder / f"member-{place:04d}.safetensors") for place, spec in enumerate(specs)]
    place_of = {id(member): place for place, member in enumerate(members)}
    feed = Minibatches(data, device=device)
    spoken = saved = time.monotonic()

    def save(group: Sequence[TrainState]) -> None:
        for member in group:
            save_state(member, folder / f"member-{place_of[id(member)]:04d}.safetensors", data.digest)

    def on_epoch(population: Any, rows: Sequence[dict[str, float]], seconds: float) -> None:
        nonlocal spoken, saved
        if time.monotonic() - saved > SAVE_EVERY:
            save(population.collect())
            saved = time.monotonic()
        if time.monotonic() - spoken > SPEAK_EVERY or population.epoch == total:
            spoken = time.monotonic()
            mean = sum(row["loss"] for row in rows) / len(rows)
            say(f"{label}: epoch {population.epoch}/{total}, loss {mean:.2f} nats, {seconds:.1f} s an epoch")

    stop = 0
    with fast_products():
        for epochs, rate in stages:
            stop += epochs
            for member in members:
                member.vae.spec = member.spec.replace(learning_rate=rate, epochs=total)
            advance(members, feed, stop, on_epoch)
            save(members)
    for member in members:
        member.vae.to("cpu").eval()
        if member.diverged:
            raise DivergedError(
                f"{label}: the loss is NaN ({member.spec.belief}); lower the learning rates of the stages"
            )
    return [member.vae for member in members]


def _member(spec: VAESpec, data: Data, path: Path) -> TrainState:
    if not path.is_file():
        return TrainState(build(spec, data.domain))
    member = load_state(path, digest=data.digest)
    same = {name: getattr(spec, name) for name in CHANGES}
    if member.spec.replace(**same) != spec:
        raise CheckpointError(f"{path} holds another fit ({member.spec.belief}); delete it to start again")
    return member

"""Fit one VAE or many: epochs, rungs, history, checkpoints, events. A single fit is a population of one.

    trained = autovae.fit(VAESpec(), "mnist")
    many = autovae.fit_population([spec.replace(seed=s) for s in range(20)], data)

`on_event` is called with an `Event` after every epoch of a population, at every rung and at the end. What it returns at
a rung may be a collection of member numbers to stop there. Not here: the step itself (`population`), how good a fit is
(`metrics`), which spec to fit next (`search`).
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autovae.data.datasets import load
from autovae.data.minibatches import Minibatches
from autovae.model.own_modules import OwnModule, OwnPair, own_modules
from autovae.model.vae import VAE, build
from autovae.registry import lookup
from autovae.seeds import stream_seed
from autovae.spec import Domain, VAESpec
from autovae.training.capacity import members_that_fit
from autovae.training.checkpoints import Checkpoints
from autovae.training.population import Population, shape_key
from autovae.training.precision import PRODUCTS, fast_products
from autovae.training.train_state import TrainState
from autovae.training.trained import DivergedError, Trained

__all__ = ["DivergedError", "Event", "Trained", "advance", "choose_device", "fit", "fit_population"]

OnEvent = Callable[["Event"], Any]
OnEpoch = Callable[[Population, Sequence[dict[str, float]], float], None]


@dataclass(frozen=True)
class Event:
    """What a run tells while it trains. `members` are positions in the list of specs; `rows` their latest history."""

    kind: str  # "epoch", "rung", "end"
    epoch: int
    members: tuple[int, ...]
    rows: tuple[dict[str, float], ...]
    seconds: float  # of this epoch, rung or run
    models: tuple[VAE, ...] = ()  # at a rung and at the end, as they are now


def choose_device(device: str | torch.device | None) -> torch.device:
    """The named device, or the first CUDA device if there is one and else the CPU; an absent one is an error."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no CUDA device here; use device='cpu'")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} was asked for; training runs on cpu, cuda or cuda:N")
    return chosen


def advance(
    members: Sequence[TrainState],
    feed: Minibatches,
    until: int,
    on_epoch: OnEpoch | None = None,
    max_members: int | None = None,
    memory: int | None = None,
    narrow: torch.dtype | None = None,
    moments: bool = True,
) -> None:
    """Train every member, in place, until it is `until` epochs old, as few populations as shapes and memory allow.

    Without `moments` members come back with their weights alone, not to be trained further.

    Members wait their turn in the order given. A population that runs out of the device's memory is halved and goes on
    from where its members were last whole.
    """
    groups: dict[Any, list[TrainState]] = {}
    for member in members:
        if member.epoch < min(until, member.spec.epochs):
            groups.setdefault((shape_key(member), min(until, member.spec.epochs)), []).append(member)
    for (_, last), group in groups.items():
        size = members_that_fit(group, feed, memory)
        size = min(size, max_members or size)
        waiting = group
        while waiting:
            part = waiting[:size]
            try:
                _train(part, feed, last, on_epoch, narrow, moments)
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise MemoryError(
                        f"one member of batch size {part[0].spec.batch_size} does not fit into the memory of "
                        f"{feed.device}; lower batch_size, samples or hidden ({str(error).splitlines()[0]})"
                    ) from None
                size = len(part) // 2
                gc.collect()  # what failed is held by cycles of modules and graphs
                torch.cuda.empty_cache()
            else:
                waiting = waiting[size:]


def _train(
    members: Sequence[TrainState],
    feed: Minibatches,
    last: int,
    on_epoch: OnEpoch | None,
    narrow: torch.dtype | None,
    moments: bool,
) -> None:
    population = Population(members, feed, narrow)
    while population.epoch < last:
        began = time.perf_counter()
        rows = population.train_epoch()
        if on_epoch:
            on_epoch(population, rows, time.perf_counter() - began)
    population.collect(moments)


def fit_population(
    specs: Sequence[VAESpec],
    data: Any,
    *,
    encoder: OwnModule = None,
    decoder: OwnModule = None,
    rungs: Sequence[int] = (),
    on_event: OnEvent | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    device: str | torch.device | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    max_members: int | None = None,
    memory: int | None = None,
    products: str = "fast",
    dtype: torch.dtype = torch.float32,
) -> list[Trained]:
    """Fit several VAEs as one program, or as few programs as their shapes allow.

    data            an array, tensor, torch Dataset, the name of a data set, a path, or a `Data`
    encoder, decoder  your own: a module for one spec, or one per spec: a list, or a function from a spec to a module
    rungs           epochs at which `on_event` hears of a rung and may return members to stop; those that go on are
                    put together anew, so that no place stays empty
    checkpoint      a folder for one file a member, written at rungs and at the end, and every `checkpoint_every` epochs
                    (without rungs: every epoch); a run with the same specs goes on from what it finds there
    max_members, memory   how many train at once, and within how many bytes (default: what the device has free)
    products        "fast" (checked float32 products), "float32" (torch's own setting), "tf32" (CUDA), "bfloat16"

    A member whose loss is no longer a number is returned with `diverged` set; the others do not notice.
    """
    if not specs:
        raise ValueError("fit_population needs at least one spec")
    lookup(PRODUCTS, products, "setting of products")
    where = choose_device(device)
    source = load(data, data_dir=None if data_dir is None else Path(data_dir))
    feed = Minibatches(source, device=where, dtype=dtype)
    kept = Checkpoints(checkpoint, source.digest)
    vaes = _build_all(specs, source.domain, own_modules(specs, encoder, decoder))
    members = [_member(vae, place, kept, feed, decoder is None) for place, vae in enumerate(vaes)]
    place_of = {id(member): place for place, member in enumerate(members)}
    began = time.perf_counter()
    every = checkpoint_every or (None if rungs else 1)

    def tell(
        kind: str, epoch: int, group: Sequence[TrainState], rows: Sequence[dict[str, float]], seconds: float
    ) -> Any:
        places = tuple(place_of[id(member)] for member in group)
        models = () if kind == "epoch" else tuple(member.vae for member in group)
        return on_event(Event(kind, epoch, places, tuple(rows), seconds, models)) if on_event else None

    def on_epoch(population: Population, rows: Sequence[dict[str, float]], seconds: float) -> None:
        epoch = population.epoch
        if checkpoint is not None and (epoch in stops or (every and epoch % every == 0)):
            for member in population.collect():
                kept.save(place_of[id(member)], member)
        tell("epoch", epoch, population.members, rows, seconds)

    alive = list(members)
    stops = sorted({rung for rung in rungs if rung < max(s.epochs for s in specs)} | {s.epochs for s in specs})
    narrow = torch.bfloat16 if products == "bfloat16" else None
    with fast_products(products, where):
        for stop in stops:
            needed = checkpoint is not None or stop < stops[-1]
            advance(alive, feed, stop, on_epoch, max_members, memory, narrow, moments=needed)
            here = [member for member in alive if member.epoch >= stop and stop in rungs]
            if here:
                dropped = kept.decided(stop)
                if dropped is None:
                    latest = [member.history[stop - 1] for member in here]
                    answer = tell("rung", stop, here, latest, time.perf_counter() - began)
                    dropped = [int(place) for place in answer] if isinstance(answer, Collection) else []
                    kept.decide(stop, dropped)
                gone = {id(members[place]) for place in dropped}
                alive = [member for member in alive if id(member) not in gone]
    for member in members:
        member.vae.to("cpu").eval()
    oldest = max(member.epoch for member in members)
    tell("end", oldest, members, [m.history[-1] for m in members if m.history], time.perf_counter() - began)
    return [Trained(member.vae, member.history, member.spec, source) for member in members]


def _build_all(specs: Sequence[VAESpec], domain: Domain, own: Sequence[OwnPair]) -> list[VAE]:
    """A VAE for every spec; weights of named networks are drawn on all processors."""
    if any(module is not None for pair in own for module in pair):
        return [build(spec, domain, *pair) for spec, pair in zip(specs, own, strict=True)]
    with ThreadPoolExecutor(min(len(specs), os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda spec: build(spec, domain), specs))


def _member(vae: VAE, place: int, kept: Checkpoints, feed: Minibatches, named_decoder: bool) -> TrainState:
    """The member as it was kept, or new: its scale and a learned prior then start at the data."""
    member = kept.load(place, vae)
    if not member.epoch and named_decoder:
        vae.start_scale(feed.residual_scale)
    if vae.learned_prior is not None and not member.epoch:
        generator = torch.Generator().manual_seed(stream_seed(vae.spec.seed, "rival start"))
        points = torch.randperm(feed.points, generator=generator)[: vae.spec.components]
        vae.learned_prior.start(feed.batch(points.to(feed.device)).inputs.cpu(), generator)
    return member


def fit(
    spec: VAESpec,
    data: Any,
    encoder: OwnModule = None,
    decoder: OwnModule = None,
    **settings: Any,
) -> Trained:
    """Fit one VAE; `settings` are those of `fit_population`, of which this is the case of one member.

    Your own `encoder` may be any module giving 2 x latent_dim numbers a point, your own `decoder` any module giving
    numbers in the shape of a point; they are trained in place. Raises `DivergedError` when the loss becomes NaN.
    """
    (trained,) = fit_population([spec], data, encoder=encoder, decoder=decoder, **settings)
    if trained.diverged:
        epoch = next(int(row["epoch"]) for row in trained.history if row["loss"] != row["loss"])
        raise DivergedError(
            f"training diverged: the loss is NaN from epoch {epoch} ({spec.belief}, learning_rate "
            f"{spec.learning_rate:g}); lower learning_rate, or choose a posterior with lighter tails"
        )
    return trained

"""Fit one VAE or many: epochs, rungs, history, checkpoints, events. A single fit is a population of one.

    trained = autovae.fit(VAESpec(), "mnist")
    many = autovae.fit_population([spec.replace(seed=s) for s in range(20)], data)

`on_event` is called with an `Event` after every epoch of a population, at every rung and at the end. What it returns at
a rung may be a collection of member numbers to stop there. Not here: the step itself (`population`), how good a fit is
(`metrics`), which spec to fit next (`search`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autovae.data.batches import network_input
from autovae.data.datasets import Data, load
from autovae.model.vae import VAE, build
from autovae.spec import VAESpec
from autovae.streams import stream_seed
from autovae.training.feed import Feed
from autovae.training.member import Member, load_member, save_member
from autovae.training.population import Population, shape_key
from autovae.training.precision import fast_products

__all__ = ["DivergedError", "Event", "Trained", "advance", "choose_device", "fit", "fit_population"]

OnEvent = Callable[["Event"], Any]


class DivergedError(ArithmeticError):
    """The training loss is no longer a number."""


@dataclass(frozen=True)
class Event:
    """What a run tells while it trains. `members` are positions in the list of specs; `rows` their latest history."""

    kind: str  # "epoch", "rung", "end"
    epoch: int
    members: tuple[int, ...]
    rows: tuple[dict[str, float], ...]
    seconds: float  # of this epoch, rung or run
    models: tuple[VAE, ...] = ()  # at a rung and at the end, as they are now


@dataclass(frozen=True, repr=False)
class Trained:
    """A fitted VAE: the model (plain torch modules), its history (a row an epoch), its spec and its data."""

    model: VAE
    history: list[dict[str, float]]
    spec: VAESpec
    data: Data = field(compare=False)

    @property
    def diverged(self) -> bool:
        """Whether training ended with a loss that is not a number."""
        return bool(self.history) and self.history[-1]["loss"] != self.history[-1]["loss"]

    def __repr__(self) -> str:
        loss = f", loss {self.history[-1]['loss']:.4f} nats" if self.history else ""
        return f"Trained({self.spec.belief}, {self.data.name}, {len(self.history)} epochs{loss})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = [
            ("belief", self.spec.belief),
            ("data", f"{self.data.name}, {self.data.domain.shape}"),
            ("latents", str(self.spec.latent_dim)),
            ("epochs", str(len(self.history))),
        ]
        if self.history:
            rows += [(name, f"{value:.4f}") for name, value in self.history[-1].items() if name != "epoch"]
        cells = "".join(f"<tr><th style='text-align:left'>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
        return f"<table>{cells}</table>"

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x | z] at the posterior's location, for points x (N, *shape) as the data set holds them."""
        stack = self.model.stacked.eval()
        z = stack.centre(*stack.encode(network_input(x.flatten(1), self.data)))
        return stack.mean(stack.decode(z))[0, 0].view(len(x), *self.data.domain.shape)


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
    return chosen


def advance(
    members: Sequence[Member],
    feed: Feed,
    until: int,
    on_epoch: Callable[[Population, list[dict[str, float]], float], None] | None = None,
    max_members: int | None = None,
) -> None:
    """Train every member, in place, until it is `until` epochs old, as few populations as their shapes allow."""
    groups: dict[Any, list[Member]] = {}
    for member in members:
        if member.epoch < min(until, member.spec.epochs):
            groups.setdefault((shape_key(member), min(until, member.spec.epochs)), []).append(member)
    for (_, last), group in groups.items():
        size = max_members or len(group)
        for start in range(0, len(group), size):
            population = Population(group[start : start + size], feed)
            while population.epoch < last:
                began = time.perf_counter()
                rows = population.train_epoch()
                if on_epoch:
                    on_epoch(population, rows, time.perf_counter() - began)
            population.collect()


def fit_population(
    specs: Sequence[VAESpec],
    data: Any,
    *,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    rungs: Sequence[int] = (),
    on_event: OnEvent | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
    device: str | torch.device | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    max_members: int | None = None,
    products: str = "fast",
) -> list[Trained]:
    """Fit several VAEs as one program, or as few programs as their shapes allow.

    data            an array, tensor, torch Dataset, the name of a data set, a path, or a `Data`
    rungs           epochs at which `on_event` hears of a rung and may return members to stop
    checkpoint      a folder for one file a member; a run with the same specs goes on from what it finds there
    products        "fast" (checked float32 products), "float32" (torch's own setting), "tf32" (CUDA)

    A member whose loss is no longer a number is returned with `diverged` set; the others do not notice.
    """
    if not specs:
        raise ValueError("fit_population needs at least one spec")
    where = choose_device(device)
    source = load(data, data_dir=None if data_dir is None else Path(data_dir))
    feed = Feed(source, device=where)
    if (encoder is not None or decoder is not None) and len(specs) > 1:
        raise ValueError("one encoder and decoder serve one spec; pass a single spec, or name a network in NETWORKS")
    members = [
        _member(spec, source, encoder, decoder, _file(checkpoint, position)) for position, spec in enumerate(specs)
    ]
    place_of = {id(member): place for place, member in enumerate(members)}
    began = time.perf_counter()

    def tell(kind: str, epoch: int, group: Sequence[Member], rows: Sequence[dict[str, float]], seconds: float) -> Any:
        places = tuple(place_of[id(member)] for member in group)
        models = () if kind == "epoch" else tuple(member.vae for member in group)
        return on_event(Event(kind, epoch, places, tuple(rows), seconds, models)) if on_event else None

    def on_epoch(population: Population, rows: list[dict[str, float]], seconds: float) -> None:
        last = population.epoch >= min(member.spec.epochs for member in population.members)
        if checkpoint is not None and (last or population.epoch % checkpoint_every == 0):
            for member in population.collect():
                save_member(member, _file(checkpoint, place_of[id(member)]), source.digest)
        tell("epoch", population.epoch, population.members, rows, seconds)

    alive = list(members)
    stops = sorted({rung for rung in rungs if rung < max(s.epochs for s in specs)} | {s.epochs for s in specs})
    with fast_products(products == "fast", tf32=products == "tf32" and where.type == "cuda"):
        for stop in stops:
            advance(alive, feed, stop, on_epoch, max_members)
            here = [member for member in alive if member.epoch == stop and stop in rungs]
            if here:
                latest = [member.history[-1] for member in here]
                dropped = tell("rung", stop, here, latest, time.perf_counter() - began)
                gone = {id(members[place]) for place in dropped} if isinstance(dropped, Collection) else set()
                alive = [member for member in alive if id(member) not in gone]
    for member in members:
        member.vae.to("cpu").eval()
    oldest = max(member.epoch for member in members)
    tell("end", oldest, members, [m.history[-1] for m in members if m.history], time.perf_counter() - began)
    return [Trained(member.vae, member.history, member.spec, source) for member in members]


def _file(checkpoint: str | os.PathLike[str] | None, position: int) -> Path:
    return Path(checkpoint or ".") / f"member-{position:04d}.safetensors"


def _member(spec: VAESpec, data: Data, encoder: nn.Module | None, decoder: nn.Module | None, path: Path) -> Member:
    vae = build(spec, data.domain, encoder, decoder)
    if path.is_file():
        return load_member(path, vae, data.digest)
    if vae.rival is not None:
        generator = torch.Generator().manual_seed(stream_seed(spec.seed, "rival start"))
        points = torch.randperm(len(data.train), generator=generator)[: spec.components]
        mask = None if data.train.mask is None else data.train.mask[points].flatten(1)
        vae.rival.start(network_input(data.train.x[points].flatten(1), data, mask), generator)
    return Member(vae)


def fit(
    spec: VAESpec,
    data: Any,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
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

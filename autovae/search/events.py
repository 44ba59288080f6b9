"""Reports of a running search: progress for a display, events for experiment trackers.

    Run(study, on_event=lambda event: print(event.kind, event.values))
    autovae run quickstart --log tensorboard

A listener is any function of an `Event`; it is called after every finished trial and at the end. LOGGERS maps the name of
a tracker to a function of (results folder, study name) that returns a listener; its package is an extra, imported on use.
A listener that fails stops the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from autovae.registry import lookup

__all__ = ["LOGGERS", "Event", "OnEvent", "OnProgress", "Progress", "logger"]

CHOICES = ("posterior", "prior", "likelihood", "alpha", "latent_dim", "hidden", "learning_rate", "seed")
NUMBERS = ("score", "score_se", "seconds")


@dataclass(frozen=True)
class Event:
    """Kind "trial": `values` is the trial's row of trials.csv; kind "end": `values` is summary.json."""

    kind: str
    values: Mapping[str, Any]
    losses: Sequence[float] = field(default=())  # of the trial, by epoch


OnEvent = Callable[[Event], Any]


@dataclass(frozen=True)
class Progress:
    """The phase of a run, its progress, and the best belief so far."""

    phase: str  # "search", "finals", "scores"
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    best: float = math.nan
    belief: str = ""
    failed: int = 0
    pruned: int = 0
    rate: float = math.nan  # VAE epochs per second of the population in training


OnProgress = Callable[[Progress], Any]


def _needs(package: str, extra: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(f"--log {extra} needs {package}: pip install 'autovae[{extra}]' ({error})") from None


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """(settings, numbers) of a trial's row."""
    numbers = {name: float(values[name]) for name in NUMBERS if values.get(name) not in (None, "")}
    return {name: str(values[name]) for name in CHOICES if values.get(name) is not None}, numbers


def _tensorboard(folder: Path, name: str) -> OnEvent:
    _needs("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writers: list[Any] = []  # opened by the first event: before, the results folder may be another study's

    def listen(event: Event) -> None:
        writer = writers[0] if writers else SummaryWriter(str(folder / "tensorboard"))
        writers[:] = [writer]
        if event.kind == "end":
            writer.add_text("verdict", str(event.values.get("sentence", "")))
            writer.close()
            return
        number = int(event.values["number"])
        chosen, numbers = _split(event.values)
        for key, value in numbers.items():
            writer.add_scalar(f"trials/{key}", value, number)
        for epoch, loss in enumerate(event.losses, 1):
            writer.add_scalar(f"loss/trial {number}", loss, epoch)
        writer.add_text("trials", ", ".join(f"{key} = {value}" for key, value in chosen.items()), number)
        writer.flush()

    return listen


def _mlflow(folder: Path, name: str) -> OnEvent:
    mlflow = _needs("mlflow", "mlflow")
    mlflow.set_experiment(name)

    def listen(event: Event) -> None:
        if event.kind == "end":
            with mlflow.start_run(run_name="verdict"):
                mlflow.set_tag("verdict", event.values.get("sentence", ""))
            return
        chosen, numbers = _split(event.values)
        with mlflow.start_run(run_name=f"trial {event.values['number']}"):
            mlflow.log_params(chosen)
            mlflow.log_metrics(numbers)
            mlflow.set_tag("state", event.values.get("state", ""))
            for epoch, loss in enumerate(event.losses, 1):
                mlflow.log_metric("loss", loss, step=epoch)

    return listen


def _wandb(folder: Path, name: str) -> OnEvent:
    wandb = _needs("wandb", "wandb")

    def listen(event: Event) -> None:
        label = "verdict" if event.kind == "end" else f"trial {event.values['number']}"
        chosen, numbers = _split(event.values)
        run = wandb.init(project=name, name=label, config=chosen, dir=str(folder), reinit="finish_previous")
        for epoch, loss in enumerate(event.losses, 1):
            run.log({"loss": loss}, step=epoch)
        run.summary.update({**numbers, "sentence": event.values.get("sentence", "")})
        run.finish()

    return listen


LOGGERS: dict[str, Callable[[Path, str], OnEvent]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}


def logger(kind: str, folder: Path, name: str) -> OnEvent:
    """The listener of a tracker. Raises `ValueError` naming the package to install if it is missing."""
    return lookup(LOGGERS, kind, "tracker")(folder, name)

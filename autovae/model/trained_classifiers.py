"""A classifier of a data set by name: `classifier(data, "label")` trains it once and reads it from then on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autovae.data.batches import network_input
from autovae.data.datasets import Data, Split, load
from autovae.model.classifiers import JUDGES, Classifier, ClassifierSettings, train_classifier

__all__ = ["classifier", "judges"]


def classifier(
    data: Data | str | Any,
    task: str = "label",
    *,
    settings: ClassifierSettings | None = None,
    data_dir: str | Path | None = None,
    cache: Path | None = None,
    say: Callable[[str], None] | None = None,
    device: torch.device | str = "cpu",
    **changes: Any,
) -> Classifier:
    """The network that answers `task` (a name of TASKS) for points of this data set (all that `load` takes), in its units.

    Where it has to be trained, that is on `device`; it comes back on the processor. `changes` are those of
    `ClassifierSettings`. Raises `ValueError` where the data have no labels.
    """
    data = load(data, data_dir=data_dir)
    settings = replace(settings or ClassifierSettings(), **changes)

    def inputs(split: Split) -> torch.Tensor:
        return data.original_units(network_input(split.x, data)).flatten(1)

    if data.train.y is None or data.test.y is None:
        raise ValueError(f"{data.name} has no labels; a classifier needs them: give data with a column of labels")
    return train_classifier(
        inputs(data.train), data.train.y, data.digest, shape=data.shape, test=(inputs(data.test), data.test.y),
        task=task, settings=settings, cache=cache, say=say, device=device,
    )  # fmt: skip


def judges(data: Data | str | Any, task: str = "label", **settings: Any) -> list[Classifier]:
    """Independent networks for the same task: other architectures and seeds, and the second half of the training points."""
    return [classifier(data, task, settings=judge, **settings) for judge in JUDGES]

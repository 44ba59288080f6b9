"""The cost of a study besides training: sampler, storage, search scores and report, relative to training.

    overhead     (seconds of the search and its report - seconds of training) / seconds of training

on a 64-trial MNIST study of 5 epochs with the network and space of `mnist_pairing_v1`, without rungs, which would
shorten the training, and without finals. Training is the time of the populations' epochs; the rest is overhead.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autovae.report.html import build_report
from autovae.search.run import Run
from autovae.search.study import load_study
from autovae.training.loop import Event

__all__ = ["bench_overhead"]

EPOCHS = 5


class _Timed(Run):
    """A run that adds up the seconds of its epochs."""

    training = 0.0

    def on_epoch(self, event: Event) -> None:
        if event.kind == "epoch":
            self.training += event.seconds
        super().on_epoch(event)


def bench_overhead(rounds: int = 1, trials: int = 64, dataset: str | None = None) -> dict[str, Any]:
    """The overhead of one study (`rounds` is ignored: one study averages enough)."""
    study = load_study("mnist_pairing_v1")
    settings = study.file.model_copy(
        update={
            "training": {**study.file.training, "epochs": EPOCHS},
            "pruning": study.file.pruning.model_copy(update={"rungs": []}),
            "trials": trials,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        job = _Timed(replace(study, file=settings), Path(folder), dataset, trials=trials)
        began = time.perf_counter()
        with job.joined() as driver:
            driver.run()
        searched = time.perf_counter() - began
        build_report(job.folder.path, job.data)
        whole = time.perf_counter() - began
    return {
        "overhead": (whole - job.training) / job.training,
        "overhead_of_search": (searched - job.training) / job.training,
        "training_seconds": job.training,
        "trials": trials,
        "epochs": EPOCHS,
        "threads": torch.get_num_threads(),
    }

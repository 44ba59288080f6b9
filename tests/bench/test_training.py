"""The bench's arithmetic: ratios of one round each, a missing peer is null with a line on how to install it."""

from __future__ import annotations

import csv

import pytest
import torch

from autovae.bench import contenders
from autovae.bench import training as bench
from autovae.bench.training import _ratios, bench_training
from autovae.training.precision import fast_products

OURS = {
    (batch, name): [1.0, 2.0, 4.0] for batch in (1000, 100) for name in ("population", "bfloat16", "single", "floor")
}


def test_ratios_are_medians_of_rounds_and_a_missing_peer_is_null() -> None:
    values = _ratios(OURS)
    assert values["vs_pythae_batch1000"] is None
    assert "pip install pythae==0.1.2" in values["note"]
    assert values["peak_fraction_batch1000"] == 1.0
    values = _ratios(OURS | {(1000, "pythae"): [3.0, 8.0, 8.0]})
    assert values["vs_pythae_batch1000"] == 3.0
    assert "note" not in values


def test_the_processors_clock_is_for_one_thread() -> None:
    with pytest.raises(ValueError, match="threads = 1"):
        bench_training(clock="processor")


@pytest.mark.slow
def test_everybody_is_measured(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(bench, "STEPS", {100: 1})
    monkeypatch.setattr(contenders, "IMAGES", 1000)
    monkeypatch.setattr(bench, "_ratios", lambda seconds: {"contenders": len(seconds)})
    bench_training(rounds=2, members=2, threads=1, products="float32", results=tmp_path)
    with (tmp_path / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"population", "mismatched", "single", "fused", "vmap", "floor"} <= {row["contender"] for row in rows}
    assert all(float(row["seconds_median"]) > 0 for row in rows)
    assert all(row["over_pythae"] == "" or float(row["over_pythae"]) > 0 for row in rows)


def test_as_many_steps_are_taken_as_are_counted(monkeypatch) -> None:
    """Also where they are more than the images: some epochs of these, or an error."""
    monkeypatch.setattr(contenders, "IMAGES", 1000)
    _, data = contenders.pictures()
    ours = contenders.Ours(1, data, torch.device("cpu"), "fast")
    ours.train(500, 6)
    (trained,) = ours._populations[500].collect()
    assert trained.steps == 6
    with pytest.raises(ValueError, match="no whole epochs"):
        contenders.Ours(1, data, torch.device("cpu"), "fast").train(500, 5)


def test_the_fused_loop_has_the_fastest_exact_setting() -> None:
    with fast_products("fast") as fast:
        pass
    with contenders.example(torch.rand(10, 784)).settled() as setting:
        assert setting == fast

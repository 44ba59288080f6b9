"""The bench's arithmetic: ratios of one round each, a missing peer is null with a line on how to install it."""

from __future__ import annotations

import pytest

from autovae.reproductions.bench_training import _ratios, bench_training

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

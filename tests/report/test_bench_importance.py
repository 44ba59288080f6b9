from __future__ import annotations

from autovae.bench.importance import bench_importance


def test_main_effects_agree_with_optunas_and_come_sooner():
    result = bench_importance(rounds=1, trials=60, parameters=4, large=80)
    assert result["max_abs_difference"] < 1e-9
    assert {"vs_optuna", "large_seconds_with_pairs"} < result.keys()

"""The HMC benchmark without peers: ratios to them are null, with how to install them."""

import csv
import json
import sys

import pytest
import torch

from autovae.bench.hmc import COLUMNS, _rows, bench_hmc, question


@pytest.mark.slow
def test_missing_peers_are_null_and_say_how_to_install_them(monkeypatch):
    for module in ("pyro", "pyro.infer", "blackjax"):
        monkeypatch.setitem(sys.modules, module, None)
    result = bench_hmc(rounds=2, draws=16, chains=2, warmup=30)
    assert result["vs_pyro"] is result["vs_pyro_ess"] is result["vs_blackjax"] is None
    assert "pip install" in result["install"]
    assert result["chains64_vs_8"] > 0
    assert result["chees_vs_plain_ess"] > 0
    json.dumps(result)
    assert not any(isinstance(value, (list, dict)) for value in result.values())


def test_the_question_is_the_same_for_every_peer():
    one, two = question(), question()
    xi = torch.randn(3, one.latent_dim)
    torch.testing.assert_close(one.log_prob(xi), two.log_prob(xi))
    assert one.latent_dim == 128
    assert one.decode(xi).shape == (3, 784)


def test_the_processors_clock_is_for_one_thread():
    with pytest.raises(ValueError, match="threads = 1"):
        bench_hmc(threads=2, clock="processor")
    with pytest.raises(ValueError, match="'wall'"):
        bench_hmc(clock="wal")


def test_a_table_has_a_row_a_contender():
    values = {
        "threads": 1, "clock": "wall", "draws": 8, "rounds": 2, "step_size": 0.05, "load": "1.0 to 2.0", "chains64_vs_8": 4.0,
        "leapfrogs_per_second_autovae": 100.0, "leapfrogs_per_second_pyro": 10.0, "vs_pyro": 9.5, "vs_blackjax": None,
        "ess_per_second_autovae": 50.0, "ess_per_second_pyro": 4.0, "ess_per_second_chees": 200.0,
    }  # fmt: skip
    assert _rows(values) == [
        '1,wall,"autovae",100,1,50,1,8,2,0.05000,1.0 to 2.0',
        '1,wall,"pyro",10,9.5,4,12.5,8,2,0.05000,1.0 to 2.0',
        '1,wall,"autovae, ChEES",,,200,0.25,8,2,0.05000,1.0 to 2.0',
        '1,wall,"autovae, 64 chains",25,4,,,8,2,0.05000,1.0 to 2.0',
    ]
    assert all(len(next(csv.reader([row]))) == len(COLUMNS) for row in _rows(values))

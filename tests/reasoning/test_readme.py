"""The README's question runs as it stands there, with fewer draws."""

import re
from pathlib import Path

import pytest
import torch

from autovae.data.datasets import load
from autovae.export.card import save_vae
from autovae.model.vae import build
from autovae.spec import VAESpec

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_worked_question_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    text = README.read_text(encoding="utf-8")
    part = text[text.index("## Latent reasoning") :]
    code = re.search(r"```python\n(.*?)```", part[: part.index("\n## ", 5)], re.S).group(1)
    fewer = code.replace("warmup=500, draws=1000", "warmup=60, draws=20")
    assert fewer != code
    data = load("digits")
    save_vae(build(VAESpec(latent_dim=3, hidden=(16,)), data.domain), data, tmp_path / "my_prior")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(fewer, str(README), "exec"), names)
    assert names["x"].shape == (8, 20, 8, 8)
    assert torch.isfinite(names["x"]).all()
    if pytest.importorskip("arviz_stats", reason="arviz-stats is not installed"):
        assert "rhat_energy" in capsys.readouterr().out

"""Steps done on a borrowed machine: without optuna, pydantic and typer, and found finished at home."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

from autovae.reproductions import conditional_digits, riddle
from autovae.reproductions.borrowed import jobs_of, main
from autovae.reproductions.digit_answers import HMCPlan
from autovae.reproductions.digit_modules import GANPlan
from autovae.reproductions.notebook import Notebook

GAN = GANPlan(steps=6, latent_dim=4, width=2)
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"optuna", "pydantic", "typer", "tomli_w", "pooch", "zuko", "matplotlib"}:
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import autovae.reproductions.borrowed
"""


def test_a_borrowed_machine_needs_little_more_than_torch() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], check=True)


def test_every_step_of_a_study_has_a_job() -> None:
    digits = conditional_digits.Settings(priors=("wgan", "winner"), digits=(0, 7), methods=("hmc", "mgvi"))
    networks, answers = jobs_of(digits.model_dump())
    assert set(networks) == {"digit", "judge", "generator", "conditional"}
    expected = {"scores"} | {f"{prior}_{what}" for prior in digits.priors for what in ("hmc", "mgvi_0", "mgvi_7")}
    assert set(answers) == expected
    networks, answers = jobs_of(riddle.Settings(experiments=[{"name": "a"}, {"name": "b"}]).model_dump())
    assert set(networks) == {"digit", "odd", "closed_circle", "judge", "generator"}
    assert set(answers) == {"riddle0", "riddle1"}


def resolved(folder, name: str, settings) -> Notebook:
    notebook = Notebook(folder)
    notebook.open({"name": name, "settings": settings.model_dump()})
    return notebook


@pytest.mark.slow
def test_what_was_done_elsewhere_is_found_done_at_home(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("autovae.model.classifiers._epochs", lambda settings, points: 1)
    digits = conditional_digits.Settings(
        data="digits", gan=GAN, conditional=GAN, priors=("wgan",), methods=("hmc", "mgvi"), digits=(1, 3), samples=120,
        power=2, mgvi_rounds=1, hmc=HMCPlan(chains=2, burn_in=5, warmup=90, draws=60),
    )  # fmt: skip
    three = riddle.Settings(
        data="digits", gan=GAN, seeds=3, pairs=2, draws=4, experiments=[{"name": "a b", "iterations": 2}]
    )
    away = tmp_path / "away"
    homes = {
        "conditional_digits": (resolved(tmp_path / "one", "conditional_digits", digits), digits, conditional_digits),
        "riddle": (resolved(tmp_path / "two", "riddle", three), three, riddle),
    }
    for notebook, settings, _ in homes.values():
        for table in jobs_of(settings.model_dump()):
            for job in table:
                if job != "scores":  # fewer test images of a digit than features on this small set
                    main([str(notebook.path / "study.toml"), "--to", str(away), "--job", job])
    names = {path.stem for path in (away / "steps").iterdir()}
    assert names == {"wgan_hmc", "wgan_mgvi_1", "wgan_mgvi_3", "a_b"}
    shutil.copytree(away / "networks", tmp_path / "cache" / "autovae" / "networks")
    monkeypatch.setattr("autovae.reproductions.digit_answers.features", lambda judge, images: images[:, 2:4, 2].cpu())
    for notebook, settings, module in homes.values():
        shutil.copytree(away / "steps", notebook.place("steps"), dirs_exist_ok=True)
        found = module.run(settings, notebook, None, torch.device("cpu"))
        assert found["rows"]
    step = json.loads((away / "steps" / "wgan_hmc.json").read_text())
    table = (tmp_path / "one" / "diagnostics.csv").read_text()
    assert str(round(step["rows"]["3"]["rhat_mean"], 4)) in table
    assert step["machine"]

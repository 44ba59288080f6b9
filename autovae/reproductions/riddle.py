"""The riddle of three handwritten digits as a study: which experiments are made, with what effort; tables and page.

What is asked and how it is solved is in `riddle_solving`; the pages and figures are in `riddle_report`.
Reference: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.2, figures 3 to 5.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from autovae.reproductions.digit_modules import DigitModules, GANPlan
from autovae.reproductions.notebook import Notebook, StrictModel
from autovae.reproductions.riddle_solving import Experiment, ask_riddle, step_name

__all__ = ["Settings", "run"]


class Settings(StrictModel):
    """What `[short]` and `[full]` of the study file may say."""

    data: str = "mnist"
    gan: GANPlan = GANPlan()
    seeds: int = Field(100, ge=2)
    pairs: int = Field(5, ge=1)
    draws: int = Field(40, ge=2)
    experiments: list[Experiment] = Field(min_length=1)

    @property
    def plans(self) -> list[Experiment]:
        """The experiments with the study's numbers where they have none of their own."""
        return [
            replace(
                plan, seeds=plan.seeds or self.seeds, pairs=plan.pairs or self.pairs, draws=plan.draws or self.draws
            )
            for plan in self.experiments
        ]


def run(settings: Settings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Train what is missing, solve the riddle in every way, write tables, figures and README; the summary."""
    from autovae.reproductions.riddle_report import write_report

    modules = DigitModules.of(settings.data, settings.gan, data_dir, notebook.say, device=device)
    names = [plan.name for plan in settings.experiments]
    if len(set(names)) < len(names):
        raise ValueError(f"got experiments {names}; expected different names")
    found = {
        plan.name: notebook.once(step_name(plan.name), ask_riddle, plan, modules, device) for plan in settings.plans
    }
    return write_report(settings, found, modules, notebook)

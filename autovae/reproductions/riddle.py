"""The riddle of three handwritten digits: how often do trained networks together find 1-3-4?

Not here: the constraints and their solution (`riddle_solving`), tables, figures and page (`riddle_report`).
Reference: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.2, figures 3 to 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from autovae.reproductions.digit_modules import DigitModules
from autovae.reproductions.notebook import Notebook
from autovae.reproductions.riddle_solving import ask_riddle, step_name
from autovae.reproductions.settings import RiddleSettings

__all__ = ["run"]


def run(settings: RiddleSettings, notebook: Notebook, data_dir: Path | None, device: torch.device) -> dict[str, Any]:
    """Train what is missing, solve the riddle in every way, write tables, figures and README; the summary."""
    from autovae.reproductions.riddle_report import write_report

    modules = DigitModules.of(settings.data, settings.gan, data_dir, notebook.say, device=device)
    found = {
        plan.name: notebook.once(step_name(plan.name), ask_riddle, plan, modules, device) for plan in settings.plans
    }
    return write_report(settings, found, modules, notebook)

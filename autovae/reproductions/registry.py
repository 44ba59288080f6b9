"""The published experiments that can be run again, by name.

To add one: write `reproductions/NAME.py` with a `Settings` (the keys of the study file) and

    run(settings, notebook, data_dir, device) -> summary as plain values

that computes in steps through the notebook (so that a killed run loses one step), writes `table.csv`, figures and
`README.md` there, and enter it here and as studies/NAME.toml. Being in the table is being tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from autovae.reproductions import (
    binarized_mnist,
    conditional_digits,
    continuous_bernoulli,
    iwae_mnist,
    riddle,
    sampler_regret,
    vr_alpha,
)

__all__ = ["REPRODUCTIONS", "Reproduction"]


@dataclass(frozen=True)
class Reproduction:
    """One published experiment: its settings and the function that runs it."""

    name: str
    settings: type[BaseModel]
    run: Callable[..., dict[str, Any]]


REPRODUCTIONS: dict[str, Reproduction] = {
    "binarized_mnist": Reproduction("binarized_mnist", binarized_mnist.Settings, binarized_mnist.run),
    "iwae_mnist": Reproduction("iwae_mnist", iwae_mnist.Settings, iwae_mnist.run),
    "vr_alpha": Reproduction("vr_alpha", vr_alpha.Settings, vr_alpha.run),
    "continuous_bernoulli": Reproduction(
        "continuous_bernoulli", continuous_bernoulli.Settings, continuous_bernoulli.run
    ),
    "conditional_digits": Reproduction("conditional_digits", conditional_digits.Settings, conditional_digits.run),
    "sampler_regret": Reproduction("sampler_regret", sampler_regret.Settings, sampler_regret.run),
    "riddle": Reproduction("riddle", riddle.Settings, riddle.run),
}

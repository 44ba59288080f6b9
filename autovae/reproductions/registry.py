"""The table of reproductions. A row names its module, which is imported when it runs: planning needs no torch.

To add one, write `reproductions/NAME.py` with

    run(settings, notebook, data_dir, device) -> summary as plain values, with `rows` and `sentence`

whose docstring names the paper. It computes in steps through the notebook, so that a killed run loses one step, and writes
`table.csv`, figures and `README.md`. Then add its settings to `settings`, its row here and studies/NAME.toml. The contract
tests are parametrised over this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from autovae.registry import Row
from autovae.reproductions import settings

__all__ = ["REPRODUCTIONS", "Reproduction"]


@dataclass(frozen=True)
class Reproduction(Row):
    """One published experiment: `target` is its "module:function"; `paper`, the authors its docstring names."""

    settings: type[BaseModel]
    paper: str


def _row(name: str, kind: type[BaseModel], paper: str) -> Reproduction:
    return Reproduction(f"autovae.reproductions.{name}:run", kind, paper)


REPRODUCTIONS: dict[str, Reproduction] = {
    "binarized_mnist": _row("binarized_mnist", settings.BinarizedSettings, "Chadebec, Vincent and"),
    "iwae_mnist": _row("iwae_mnist", settings.IWAESettings, "Burda, Grosse and Salakhutdinov"),
    "vr_alpha": _row("vr_alpha", settings.RenyiSettings, "Li and Turner"),
    "continuous_bernoulli": _row("continuous_bernoulli", settings.CoinSettings, "Loaiza-Ganem and Cunningham"),
    "conditional_digits": _row("conditional_digits", settings.ConditionalSettings, "Knollmueller, Ensslin"),
    "riddle": _row("riddle", settings.RiddleSettings, "Knollmueller, Ensslin"),
    "sampler_regret": _row("sampler_regret", settings.RegretSettings, "Hutter, Hoos and Leyton-Brown"),
}

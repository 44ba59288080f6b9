"""AutoVAE: search the beliefs of a variational autoencoder.

The public names are imported on first use, so that `autovae --help` loads neither torch nor optuna.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "VAESpec": "autovae.spec",
    "kl": "autovae.beliefs.divergences",
    "kl_kind": "autovae.beliefs.divergences",
    "renyi": "autovae.beliefs.renyi",
    "fit": "autovae.training.loop",
    "fit_population": "autovae.training.loop",
    "Trained": "autovae.training.loop",
    "load_prior": "autovae.export.card",
    "to_prior": "autovae.export.card",
    "PriorModule": "autovae.export.prior",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from autovae.beliefs.divergences import kl, kl_kind
    from autovae.beliefs.renyi import renyi
    from autovae.export.card import load_prior, to_prior
    from autovae.export.prior import PriorModule
    from autovae.spec import VAESpec
    from autovae.training.loop import Trained, fit, fit_population


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in {"model", "reasoning", "search", "report", "data", "beliefs", "metrics", "training", "export"}:
        return importlib.import_module(f"autovae.{name}")
    raise AttributeError(f"module 'autovae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

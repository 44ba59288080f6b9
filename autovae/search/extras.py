"""Further objectives by name: a study with `score.also` searches for a Pareto front.

parameters   number of weights of encoder and decoder
kid          kernel inception distance of samples from the prior, on features of a classifier of the data (`fidelity`)

Each takes trained models and their data and returns one number per model; lower is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from autovae.data.datasets import Data
from autovae.model.vae import VAE

__all__ = ["EXTRAS", "NEEDS"]


def _parameters(models: Sequence[VAE], data: Data) -> list[float]:
    return [float(sum(p.numel() for p in model.parameters())) for model in models]


def _kid(models: Sequence[VAE], data: Data) -> list[float]:
    from autovae.export.fidelity import kid_of_models
    from autovae.metrics.fidelity import domain

    return kid_of_models(models, data, domain(data))


def _kid_reason(data: Data) -> str:
    if data.train.y is None:
        return f"score.also = ['kid'] needs labels for the classifier whose features it compares, {data.name} has none"
    return (
        ""
        if find_spec("torch_fidelity")
        else "score.also = ['kid'] needs torch-fidelity: pip install 'autovae[fidelity]'"
    )


# why an objective is not available for these data; "" if it is
NEEDS: dict[str, Callable[[Data], str]] = {"kid": _kid_reason}

EXTRAS: dict[str, Callable[[Sequence[VAE], Data], list[float]]] = {
    "parameters": _parameters,
    "kid": _kid,
}

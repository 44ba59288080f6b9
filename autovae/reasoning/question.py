r"""Common questions to a prior module in one call: a label, a damaged image, or both.

    ask(prior, label=3, classifier=net)                        draws that the classifier labels 3
    ask(prior, image=y, noise=.3)                              denoising: y was measured with that noise
    ask(prior, image=y, mask=m, noise=.1)                      in-painting: y was measured where m is 1
    ask(prior, label=3, classifier=net, image=y, mask=m)       both at once

For relations, several objects or measurements of features use constraints and `LatentPosterior`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Categorical, Constraint, Feature, Gaussian, Masked
from autovae.reasoning.draws import Draws
from autovae.reasoning.method import Method
from autovae.reasoning.posterior import LatentPosterior
from autovae.reasoning.tables import METHODS
from autovae.registry import lookup

__all__ = ["ask", "evidence"]


def evidence(
    prior: PriorModule,
    *,
    label: int | None = None,
    classifier: Feature | None = None,
    power: float = 100.0,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    noise: float = 0.1,
) -> list[Constraint]:
    """The constraints of a question; `power` applies to the label, `noise` is the standard deviation of the image."""
    found: list[Constraint] = []
    if label is not None:
        if classifier is None:
            raise ValueError("got a label and no classifier; expected a network that returns logits of the classes")
        found.append(Categorical(classifier, label, power=power))
    if mask is not None and image is None:
        raise ValueError("got a mask and no image; expected the image that was measured where the mask is 1")
    if image is not None:
        values = torch.as_tensor(image, dtype=prior.dtype, device=prior.device)
        if prior.shape is not None and values.numel() == torch.Size(prior.shape).numel():
            values = values.reshape(prior.shape)
        if mask is None:
            found.append(Gaussian(None, values, noise))
        else:
            found.append(Masked(values, torch.as_tensor(mask, device=prior.device).reshape(values.shape), noise))
    if not found:
        raise ValueError("got no evidence; expected a label with a classifier, an image, or both")
    return found


def ask(
    prior: PriorModule,
    *,
    label: int | None = None,
    classifier: Feature | None = None,
    power: float = 100.0,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    noise: float = 0.1,
    method: str | Method = "hmc",
    settings: Mapping[str, Any] | None = None,
    draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Draws:
    """Draws that answer a question. `settings` go to the named method, for example `{"chains": 4}`.

    Raises `ValueError` if evidence is missing, does not fit the generated x, or is impossible.
    """
    constraints = evidence(prior, label=label, classifier=classifier, power=power, image=image, mask=mask, noise=noise)
    posterior = LatentPosterior(prior, constraints)
    if isinstance(method, str):
        kind = lookup(METHODS, method, "method")
        try:
            method = kind(**dict(settings or {}))
        except TypeError as error:
            raise ValueError(f"{kind.__name__} does not take these settings {dict(settings or {})}: {error}") from None
    elif settings:
        raise ValueError("got settings together with a method object; pass the name of a method with them")
    return method.run(posterior, draws, seed=seed, progress=progress)

"""Samples, reconstructions and interpolations of the winner, next to those of the baseline."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from autovae.report.content import Content
from autovae.report.latents import Model, interpolate
from autovae.report.page import Drawing, words
from autovae.report.pictures import lines_figure, mosaic
from autovae.report.record import belief_of
from autovae.report.theme import COLOURS, SERIES

__all__ = ["Samples", "drawings_part", "samples_of"]

SAMPLES, COLUMNS, SHOWN = 64, 8, 8
PANELS = 12  # samples drawn as lines


class Samples(NamedTuple):
    """Drawn samples of a model, and its belief in words."""

    drawing: Drawing
    belief: str
    total: int


def drawings_part(content: Content) -> dict[str, Any]:
    found = {}
    for place, (title, model) in enumerate(
        {**content.models, **content.learned_priors}.items() if content.models else ()
    ):
        name, colour = f"samples_{title.lower().replace(' ', '_')}", SERIES[place % len(SERIES)]
        make = partial(samples_of, content, model, name, colour)
        found[title] = content.attempt(f"Samples of the {title.lower()}", make, None)
    return {
        "models": len(content.models),
        "samples": {title: samples for title, samples in found.items() if samples is not None},
        "baseline_won": content.baseline_won,
        "reconstructions": content.attempt("Reconstructions", lambda: _reconstructions(content), None),
        "interpolation": content.attempt("Interpolation", lambda: _interpolation(content), None),
    }


@torch.no_grad()
def samples_of(content: Content, model: Model, name: str, colour: str = SERIES[0]) -> Samples:
    """E[x|z] of draws from a model's prior. Every model starts from the same standard normal numbers."""
    xi = model.prior.sample_normal(SAMPLES, generator=torch.Generator().manual_seed(0))
    x = model.prior.decode(model.prior.from_normal(xi)).double().numpy()
    spec = model.vae.spec
    belief = words(belief_of({**spec.to_dict(), "posterior": spec.posterior, "prior": spec.prior}))
    pixels = mosaic(x, COLUMNS)
    if pixels is not None:
        return Samples(content.picture(pixels, name), belief, SAMPLES)
    figure = lines_figure([[(line.ravel(), colour)] for line in x[:PANELS]])
    return Samples(content.drawing(figure, name), belief, SAMPLES)


def _reconstructions(content: Content) -> dict[str, Any] | None:
    if content.examples is None or not content.latents:
        return None
    prior = next(iter(content.models.values())).prior
    data = content.examples.astype(float) * prior.unit.numpy() + prior.offset.numpy()
    rows = {"data": data[:SHOWN]}
    errors = {}
    for title, seen in content.latents.items():
        rows[title.lower()] = seen.reconstructions[:SHOWN]
        errors[title.lower()] = float(np.sqrt(np.mean((seen.reconstructions - data) ** 2)))
    return {"drawing": _side_by_side(content, list(rows.values())), "rows": list(rows), "errors": errors,
            "shown": len(rows["data"]), "points": len(data)}  # fmt: skip


def _side_by_side(content: Content, rows: list[NDArray[Any]]) -> Drawing:
    pixels = mosaic(np.concatenate(rows), len(rows[0]))
    if pixels is not None:
        return content.picture(pixels, "reconstructions")
    colours = [COLOURS["muted"], *SERIES]
    panels = [
        [(line.ravel(), colour) for line, colour in zip(point, colours, strict=False)]
        for point in zip(*rows, strict=True)
    ]
    return content.drawing(lines_figure(panels), "reconstructions")


def _interpolation(content: Content) -> dict[str, Any] | None:
    if "Winner" not in content.models:
        return None
    x = interpolate(content.models["Winner"].prior)
    pixels = mosaic(x.reshape(-1, *x.shape[2:]), x.shape[1])
    if pixels is None:
        return None
    return {"drawing": content.picture(pixels, "interpolation"), "rows": x.shape[0], "steps": x.shape[1]}

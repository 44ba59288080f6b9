"""What the winner draws, beside the baseline: samples, reconstructions, the way between two samples."""

from __future__ import annotations

from functools import partial

import numpy as np

from autovae.report.content import Content
from autovae.report.latents import Model, interpolate
from autovae.report.page import esc, png_of, section
from autovae.report.pictures import lines_figure, mosaic
from autovae.report.record import belief_of
from autovae.report.theme import COLOURS, SERIES

__all__ = ["drawings_part", "sample_figure"]

SAMPLES, COLUMNS, SHOWN = 64, 8, 8


def drawings_part(content: Content) -> str:
    if not content.models:
        return section(
            "drawings", "What they draw", content.warning("There is no saved winner or baseline to draw from.")
        )
    samples = [
        content.attempt(
            f"Samples of the {title.lower()}",
            partial(sample_figure, content, title, title, f"samples_{title.lower().replace(' ', '_')}"),
            "",
        )
        for title in [*content.models, *content.learned_priors]
    ]
    note = (
        "<p class='note'>The mean picture E[x|z] of latents z drawn from each prior, not picked. Both start from the same "
        "standard normal numbers, so that places correspond where the latents do."
        + (" The winner is the matched normal itself, so there is no second picture." if content.baseline_won else "")
        + "</p>"
    )
    rest = [
        content.attempt("Reconstructions", lambda: _reconstructions(content), ""),
        content.attempt("Interpolation", lambda: _interpolation(content), ""),
    ]
    return section("drawings", "What they draw", note, _grid(*samples), _grid(*rest))


def _grid(*figures: str) -> str:
    return f'<div class="figures">{"".join(figures)}</div>' if any(figures) else ""


def sample_figure(content: Content, which: str, title: str, name: str) -> str:
    """Samples of a model of the study ("Winner", "Baseline")."""
    import torch

    model = {**content.models, **content.learned_priors}[which]
    with torch.no_grad():
        xi = model.prior.sample_normal(SAMPLES, generator=torch.Generator().manual_seed(0))
        x = model.prior.decode(model.prior.from_normal(xi)).double().numpy()
    belief = esc(belief_of_model(model))
    label = f"{SAMPLES} samples of the {title.lower()}, {belief_of_model(model)}"
    pixels = mosaic(x, COLUMNS)
    if pixels is not None:
        return content.picture(png_of(pixels), name, title, label, belief)
    colour = SERIES[[*content.models, *content.learned_priors].index(which) % len(SERIES)]
    figure = lines_figure([[(row, colour)] for row in x[:12].reshape(min(12, len(x)), -1)])
    return content.chart(figure, name, title, label, f"{belief}. Each panel is one point, in the data's units.")


def belief_of_model(model: Model) -> str:
    """The belief of a saved model in words."""
    spec = model.vae.spec
    return belief_of({**spec.to_dict(), "posterior": spec.posterior, "prior": spec.prior}).replace("_", " ")


def _reconstructions(content: Content) -> str:
    if content.examples is None or not content.latents:
        return ""
    prior = next(iter(content.models.values())).prior
    original = content.examples[:SHOWN].astype(float) * prior.unit.numpy() + prior.offset.numpy()
    rows = {"data": original, **{title: seen.reconstructions[:SHOWN] for title, seen in content.latents.items()}}
    stacked = np.concatenate(list(rows.values()))
    words = ", ".join(title.lower() for title in rows)
    errors = "; ".join(
        f"{title.lower()} {np.sqrt(np.mean((seen.reconstructions - _in_units(content)) ** 2)):.4f}"
        for title, seen in content.latents.items()
    )
    caption = f"Root mean squared error over {len(content.examples)} validation points: {esc(errors)}."
    pixels = mosaic(stacked, len(original))
    label = f"{len(original)} validation points and their reconstructions; rows: {words}"
    if pixels is not None:
        return content.picture(png_of(pixels), "reconstructions", "Reconstructions", label, f"Rows: {words}. {caption}")
    colours = [COLOURS["muted"], *SERIES]
    panels = [
        [(row[place].ravel(), colour) for row, colour in zip(rows.values(), colours, strict=False)]
        for place in range(len(original))
    ]
    figure = lines_figure(panels)
    return content.chart(
        figure,
        "reconstructions",
        "Reconstructions",
        label,
        f"Grey the data, blue the winner, orange the baseline. {caption}",
    )


def _in_units(content: Content) -> np.ndarray:
    prior = next(iter(content.models.values())).prior
    assert content.examples is not None  # asked only after that
    return content.examples.astype(float) * prior.unit.numpy() + prior.offset.numpy()


def _interpolation(content: Content) -> str:
    if "Winner" not in content.models:
        return ""
    x = interpolate(content.models["Winner"].prior)
    pixels = mosaic(x.reshape(-1, *x.shape[2:]), x.shape[1])
    if pixels is None:
        return ""
    return content.picture(
        png_of(pixels),
        "interpolation",
        "From one sample to another",
        f"{x.shape[0]} rows of {x.shape[1]} pictures, each from one sample of the winner's prior to another",
        "Each row goes from one draw of the winner's prior to another, along a great circle of its standard normal source.",
    )

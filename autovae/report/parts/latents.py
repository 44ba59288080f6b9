"""What each latent carries, what it draws, and where the encoder places it on the divergence."""

from __future__ import annotations

from typing import Any

from autovae.report.content import Content
from autovae.report.figures.latents import information_figure, shares_figure
from autovae.report.landscape import landscape_figure
from autovae.report.latents import by_effect, traverse
from autovae.report.page import Drawing
from autovae.report.pictures import lines_figure, mosaic

__all__ = ["latents_part"]

MOST = 8  # latents that are traversed
LANDSCAPES = 4


def latents_part(content: Content) -> dict[str, Any]:
    return {
        "models": len(content.models),
        "shares": content.attempt("Shares of the latents", lambda: _shares(content), None),
        "information": content.attempt("Information of each latent", lambda: _information(content), None),
        "traversal": content.attempt("Traversal", lambda: _traversal(content), None),
        "landscapes": content.attempt("Divergence landscapes", lambda: _landscapes(content), []),
    }


def _shares(content: Content) -> Drawing | None:
    """Only for heterogeneous pairings."""
    pairs = {title: model.vae.spec.pairs for title, model in content.models.items()}
    if all(len(set(own)) == 1 for own in pairs.values()):
        return None
    return content.drawing(shares_figure(pairs), "shares")


def _information(content: Content) -> dict[str, Any] | None:
    if not content.latents:
        return None
    return {
        "drawing": content.drawing(information_figure(content.latents), "information"),
        "active": {title: (int(seen.active.sum()), len(seen.pairs)) for title, seen in content.latents.items()},
        "points": len(next(iter(content.latents.values())).loc),
    }


def _traversal(content: Content) -> dict[str, Any] | None:
    if "Winner" not in content.models:
        return None
    prior, seen = content.models["Winner"].prior, content.latents.get("Winner")
    order = (seen.order if seen is not None else by_effect(prior))[:MOST]
    x = traverse(prior, order)
    steps = x.shape[1]
    pixels = mosaic(x.reshape(-1, *x.shape[2:]), steps)
    if pixels is not None:
        drawing = content.picture(pixels, "traversal")
    else:
        panels = [[(line.ravel(), (step + 1) / steps) for step, line in enumerate(row)] for row in x]
        drawing = content.drawing(lines_figure(panels), "traversal")
    return {"drawing": drawing, "latents": len(order), "steps": steps, "by_information": seen is not None}


def _landscapes(content: Content) -> list[dict[str, Any]]:
    """The divergence of each pair in use, with the encoder's points if there are examples."""
    owners = {pair: title for title, model in reversed(content.models.items()) for pair in model.vae.spec.pairs}
    pairs = dict.fromkeys(pair for model in content.models.values() for pair in model.vae.spec.pairs)
    found = []
    for pair in list(pairs)[:LANDSCAPES]:
        title = owners[pair]
        seen = content.latents.get(title)
        at = [place for place, other in enumerate(content.models[title].vae.spec.pairs) if other == pair]
        points = (seen.loc[:, at], seen.scale[:, at]) if seen is not None else (None, None)
        drawing = content.drawing(landscape_figure(*pair, *points), f"landscape_{'_'.join(pair)}")
        found.append({"drawing": drawing, "pair": pair, "encoder": title.lower() if seen is not None else ""})
    return found

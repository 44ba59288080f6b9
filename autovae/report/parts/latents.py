"""What the latents do: what each carries, where the encoder puts them on the divergence, what each draws."""

from __future__ import annotations

from autovae.report import latent_figures as own
from autovae.report.content import Content
from autovae.report.latents import by_effect, traverse
from autovae.report.page import png_of, section
from autovae.report.pictures import lines_figure, mosaic

__all__ = ["latents_part"]

MOST = 8  # latents that are traversed
LANDSCAPES = 4


def latents_part(content: Content) -> str:
    if not content.models:
        return section(
            "latents", "What the latents do", content.warning("There is no saved winner or baseline to look into.")
        )
    charts = [
        content.attempt("Shares of the latents", lambda: _shares(content), ""),
        content.attempt("What each latent carries", lambda: _information(content), ""),
        content.attempt("Traversal", lambda: _traversal(content), ""),
        *(content.attempt("Divergence landscapes", lambda: _landscapes(content), None) or []),
    ]
    return section("latents", "What the latents do", f'<div class="figures">{"".join(charts)}</div>')


def _shares(content: Content) -> str:
    pairs = {title: model.vae.spec.pairs for title, model in content.models.items()}
    if all(len(set(own_pairs)) == 1 for own_pairs in pairs.values()):
        return ""
    return content.chart(
        own.shares_figure(pairs), "shares", "Which latents believe what", "Latents by pair of posterior and prior",
        "Posterior|prior of the latents.",
    )  # fmt: skip


def _information(content: Content) -> str:
    if not content.latents:
        return ""
    active = "; ".join(
        f"{title}: {int(seen.active.sum())} of {len(seen.pairs)} active" for title, seen in content.latents.items()
    )
    count = len(next(iter(content.latents.values())).loc)
    return content.chart(
        own.information_figure(content.latents),
        "information",
        "What each latent carries",
        f"Mean divergence of each latent in nats, sorted. {active}",
        f"Mean over {count} validation points. Hollow: the latent does not move with the data (the variance of its centre, in "
        "the prior's standard normal source, is below 0.01), so it is not in use.",
    )


def _traversal(content: Content) -> str:
    if "Winner" not in content.models:
        return ""
    prior, seen = content.models["Winner"].prior, content.latents.get("Winner")
    order = (seen.order if seen is not None else by_effect(prior))[:MOST]
    x = traverse(prior, order)
    pixels = mosaic(x.reshape(-1, *x.shape[2:]), x.shape[1])
    why = "the most informative first" if seen is not None else "those that change the picture most first"
    caption = f"A latent a row, {why}, from the 1st to the 99th percentile of its prior, the others at their median."
    label = f"Traversal of {len(order)} latents of the winner, {x.shape[1]} steps each"
    if pixels is not None:
        return content.picture(png_of(pixels), "traversal", "Along each latent of the winner", label, caption)
    shades = [(place + 1) / x.shape[1] for place in range(x.shape[1])]
    panels = [[(line.ravel(), shade) for line, shade in zip(row, shades, strict=True)] for row in x]
    return content.chart(
        lines_figure(panels), "traversal", "Along each latent of the winner", label, f"Dark to bright. {caption}"
    )


def _landscapes(content: Content) -> list[str]:
    charts: list[str] = []
    drawn: set[tuple[str, str]] = set()
    for title, model in content.models.items():
        for pair in dict.fromkeys(model.vae.spec.pairs):
            if pair in drawn or len(drawn) >= LANDSCAPES:
                continue
            drawn.add(pair)
            seen = content.latents.get(title)
            at = [place for place, other in enumerate(model.vae.spec.pairs) if other == pair]
            loc, scale = (seen.loc[:, at], seen.scale[:, at]) if seen is not None else (None, None)
            where = f" Dots: where the {title.lower()}'s encoder puts validation points." if seen is not None else ""
            charts.append(
                content.chart(
                    own.landscape_figure(*pair, loc, scale),
                    f"landscape_{'_'.join(pair)}",
                    f"KL of {pair[0]} | {pair[1]}",
                    f"Divergence of a {pair[0]} posterior from a standard {pair[1]} prior over its location and scale",
                    f"What a belief of this location and scale costs.{where} Hatched: infinite.",
                )
            )
    return charts

"""The table of beliefs: every posterior and prior family, and how the divergence of each pair is computed."""

from __future__ import annotations

from pathlib import Path

from autovae.beliefs.divergences import kl_kind
from autovae.finiteness import TAILS, finiteness, why_infinite
from autovae.registry import lookup

__all__ = ["belief_lines", "belief_rows", "draw_landscape"]

LETTERS = {"elementary": "e", "special": "s", "quadrature": "q", "infinite": "."}


def belief_rows() -> list[dict[str, str]]:
    """One row per pair: posterior, prior, kind, where it is finite, and the reason if nowhere."""
    rows = []
    for posterior in TAILS:
        for prior in TAILS:
            where = finiteness(posterior, prior)
            note = why_infinite(posterior, prior) if where == "infinite" else ""
            kind = kl_kind(posterior, prior)
            rows.append({"posterior": posterior, "prior": prior, "kind": kind, "finite": where, "note": note})
    return rows


def belief_lines() -> list[str]:
    """The table as text, posteriors down, priors across."""
    width = max(len(name) for name in TAILS) + 2
    lines = ["KL(posterior || prior): posterior down, prior across", ""]
    lines.append(" " * width + "".join(name.rjust(width) for name in TAILS))
    for posterior in TAILS:
        cells = []
        for prior in TAILS:
            letter = LETTERS[kl_kind(posterior, prior)]
            cells.append(letter + ("*" if finiteness(posterior, prior) == "conditional" else ""))
        lines.append(posterior.ljust(width) + "".join(cell.rjust(width) for cell in cells))
    lines += [
        "",
        "e elementary closed form    s special functions    q quadrature    . infinite",
        "* finite in a region of loc and scale, which training cannot leave",
    ]
    return lines


def draw_landscape(posterior: str, prior: str, to: str | Path) -> Path:
    """Draw KL(posterior || prior) over location and log scale. Raises `ValueError` for an infinite pair."""
    from autovae.report.landscape import landscape_figure
    from autovae.report.samples import PICTURES
    from autovae.report.theme import save_figure

    for name in (posterior, prior):
        lookup(TAILS, name, "family")
    if finiteness(posterior, prior) == "infinite":
        raise ValueError(why_infinite(posterior, prior))
    path = Path(to)
    if path.suffix not in PICTURES:
        raise ValueError(f"cannot draw {path.name!r}: expected a name ending in {', '.join(PICTURES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(landscape_figure(posterior, prior), path)
    return path

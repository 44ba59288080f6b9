r"""One look for figures and page: colours, and SVG that follows the reader's light or dark theme.

Figures are drawn in the light colours, and files keep them. Within a page every colour of COLOURS becomes the CSS variable of
the same name, which page.css sets for light and dark, and text takes the page's font. `tip(artist, text)` gives an artist a
tooltip: a <title> in the SVG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autovae.files import write_bytes

__all__ = ["COLOURS", "SERIES", "label_rows", "legend_above", "new_figure", "panel", "save_figure", "style", "svg_of",
           "themed_svg", "tip"]  # fmt: skip

COLOURS = {
    "ink": "#1d2126",
    "muted": "#656b73",
    "rule": "#dcdad4",
    "wash": "#efeee9",
    "paper": "#fdfcfa",
    "first": "#1f6feb",  # the winner, the subject
    "second": "#c4561a",  # the baseline
    "third": "#2f8f5b",
    "fourth": "#8a5cc7",
    "fifth": "#b8860b",
}
SERIES = [COLOURS[name] for name in ("first", "second", "third", "fourth", "fifth")]
WIDTH = 3.8  # inches; at 96 dots per inch a figure fits a phone, and is enlarged on a desktop
FONT = 8.5

STYLE: dict[str, Any] = {
    "font.size": FONT,
    "font.family": "DejaVu Sans",
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": FONT + 0.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": COLOURS["ink"],
    "axes.axisbelow": True,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.7,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelsize": FONT - 0.5,
    "ytick.labelsize": FONT - 0.5,
    "legend.frameon": False,
    "legend.fontsize": FONT - 0.5,
    "legend.labelcolor": COLOURS["ink"],
    "hatch.linewidth": 0.6,
    "hatch.color": COLOURS["muted"],
    "svg.fonttype": "none",
    "svg.hashsalt": "autovae",
}
TIP = "tip:"


def style() -> Any:
    """The style as a context: figures read their settings when drawn and when saved."""
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


@contextmanager
def panel(height: float) -> Iterator[tuple[Figure, Axes]]:
    """A new figure in the house style, and its axes."""
    with style():
        figure = new_figure(height)
        yield figure, figure.subplots()


def label_rows(axes: Axes, names: Sequence[str], x: str) -> None:
    """A chart of horizontal rows, the first on top; `x` labels the other axis."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel(x, loc="left")


def legend_above(axes: Axes, columns: int = 3, **entries: Any) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, handletextpad=0.3, **entries)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches, without a window system."""
    return Figure(figsize=(width, height), layout="constrained")


def tip(artist: Artist, text: str) -> None:
    """Give the artist a tooltip."""
    artist.set_gid(TIP + text.replace('"', "”").replace("\n", " "))


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a .png, .svg or .pdf file, whole or not at all."""
    target = Path(path)
    kind = target.suffix.lstrip(".") or "png"
    if kind == "svg":
        return write_bytes(target, svg_of(figure).encode("utf-8"))
    content = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None} if kind == "png" else None
    with style():
        figure.savefig(content, format=kind, dpi=200, facecolor="white", metadata=metadata)
    return write_bytes(target, content.getvalue())


def svg_of(figure: Figure) -> str:
    """The figure as SVG text with <title>s, the same bytes every time."""
    content = io.BytesIO()
    with style():
        figure.savefig(content, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    text = content.getvalue().decode("utf-8")
    text = re.sub(rf'<g id="{TIP}([^"]*)">', r'<g class="tip"><title>\1</title>', text)
    return re.sub(r'<g id="[^"]*">', "<g>", text)


def _font(shorthand: str) -> str:
    """`font: bold 8px 'DejaVu Sans'` without the family, which the page sets."""
    size = re.search(r"[\d.]+px", shorthand)
    weight = "; font-weight: bold" if re.search(r"bold|700", shorthand) else ""
    return f"font-size: {size[0] if size else FONT}{weight}"


def themed_svg(text: str, name: str, label: str) -> str:
    """The text of `svg_of` as an <svg> element for the page: themed, described by `label`, its ids prefixed by `name`."""
    text = text[text.index("<svg") :]
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    width, height = (float(number) for number in size.groups()) if size else (300.0, 200.0)
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.S)  # would apply to the whole page
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'href="#{name}-\2"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    body = re.sub(r"font: ([^;\"]*?) ?'DejaVu Sans'[^;\"]*", lambda found: _font(found[1]), body)
    for variable, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    box = f'viewBox="0 0 {width:g} {height:g}" style="--width:{width / 72 * 96:.0f}px"'
    return f'<svg class="figure" role="img" aria-label="{label}" {box} xmlns="http://www.w3.org/2000/svg">{body}'

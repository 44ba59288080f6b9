"""Parts of a self-contained HTML page: figures, tables, lists, and the shell around them. Text in, HTML text out.

Everything a page needs is inside it: style and script from page.css and page.js, figures as SVG, pictures as data URLs.
Whatever comes from files goes through `esc`. Not here: what a report says (`html`, `compare`).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autovae.report.theme import themed_svg

__all__ = ["Column", "chart", "esc", "letters", "page", "picture", "png_of", "section", "table", "tiles"]

HERE = Path(__file__).parent
SHORT = 20  # rows that a table shows without scrolling in itself


def esc(value: Any) -> str:
    return escape(str(value), quote=True)


def number(value: Any, digits: int = 4) -> str:
    """A number for people; a dash where there is none."""
    if not isinstance(value, (int, float)) or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"


def chart(svg: str, name: str, title: str, label: str, caption: str = "") -> str:
    """A figure's SVG with a heading; `label` says to those who cannot see it what it shows. The caption is HTML."""
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{esc(title)}</h3>{themed_svg(svg, name, esc(label))}{words}</figure>"


def png_of(pixels: NDArray[Any]) -> bytes:
    """PNG of a picture (H, W) or (H, W, 3) in [0, 1], pixel by pixel."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.uint8(np.round(255 * np.clip(pixels, 0, 1)))).save(content, "png", optimize=True)
    return content.getvalue()


def picture(png: bytes, title: str, label: str, caption: str = "") -> str:
    """A picture made of pixels, as <img> with its bytes inside."""
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    source = base64.b64encode(png).decode("ascii")
    image = f'<img class="picture" alt="{esc(label)}" src="data:image/png;base64,{source}">'
    return f"<figure><h3>{esc(title)}</h3>{image}{words}</figure>"


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, the key of its cells, and how a cell is written."""

    title: str
    key: str
    numeric: bool = False
    digits: int = 4
    html: bool = False  # the cell is HTML already


def table(
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    caption: str,
    name: str = "",
    sortable: bool = False,
) -> str:
    """A table that scrolls in itself; sortable ones have buttons in their headings. Rows may have a "class"."""
    heads = []
    for column in columns:
        title = f"<button type='button'>{esc(column.title)}</button>" if sortable else esc(column.title)
        heads.append(f'<th scope="col"{_numeric(column)}>{title}</th>')
    lines = []
    for row in rows:
        cells = "".join(_cell(column, row.get(column.key)) for column in columns)
        kind = f' class="{esc(row["class"])}"' if row.get("class") else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    attributes = f' id="{name}"' if name else ""
    sort = ' data-sortable=""' if sortable else ""
    kind = "scroll tall" if sortable and len(rows) > SHORT else "scroll"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{esc(caption)}"><table{attributes}{sort}>'
        f"<caption><span>{esc(caption)}</span></caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _numeric(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _cell(column: Column, value: Any) -> str:
    if column.numeric:
        plain = "" if value is None or (isinstance(value, float) and math.isnan(value)) else f' data-value="{value}"'
        return f'<td class="number"{plain}>{number(value, column.digits)}</td>'
    return f"<td>{value if column.html else esc('' if value is None else value)}</td>"


def tiles(values: Sequence[tuple[str, str, str]]) -> str:
    """Key numbers: (what, value, small print)."""
    cells = (f"<div><dt>{esc(a)}</dt><dd>{esc(b)}<small>{esc(c)}</small></dd></div>" for a, b, c in values)
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def letters(rows: Sequence[tuple[str, str]]) -> str:
    """What the letters of a formula are."""
    return '<dl class="letters">' + "".join(f"<dt>{esc(a)}</dt><dd>{esc(b)}</dd>" for a, b in rows) + "</dl>"


def section(name: str, title: str, *parts: str) -> str:
    heading = f'<h2 id="{name}-title">{esc(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{"".join(parts)}</section>'


def page(title: str, header: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """The whole page from (name, short title, HTML) sections; nothing in it is fetched from anywhere."""
    links = "".join(f'<li><a href="#{name}">{esc(short)}</a></li>' for name, short, _ in sections)
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{esc(title)}</title><style>{style}</style></head><body>"
        f'<a class="skip" href="#main">Skip to the results</a><header>{header}</header>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'<main id="main">{"".join(html for _, _, html in sections)}</main>'
        f"<footer>{footer}</footer><script>{script}</script></body></html>\n"
    )

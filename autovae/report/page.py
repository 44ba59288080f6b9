"""What pages are made of (drawings, tables), and the Jinja2 templates that lay them out as HTML or Markdown.

    render("compare", title=..., ...)      templates/compare.html.j2, every value HTML-escaped
    render_markdown("readme", ...)         templates/readme.md.j2, every value Markdown-escaped

A page is self-contained: style and script from page.css and page.js, figures as SVG, pictures as data URLs. An undefined
name in a template is an error. Not here: what a page says (`parts`, `compare`, `readme`).
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from autovae.report.theme import themed_svg

__all__ = ["Column", "Drawing", "Table", "number", "png_of", "render", "render_markdown", "words"]

HERE = Path(__file__).parent
SHORT = 20  # rows of a table without a scroll bar


@dataclass(frozen=True)
class Drawing:
    """A figure as SVG, or a picture made of pixels as PNG. Its name is its file's, and the prefix of its ids."""

    name: str
    svg: str = ""
    png: bytes = b""

    @property
    def url(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"

    def element(self, label: str) -> Markup:
        """The <svg> element; `label` describes it to screen readers."""
        return Markup(themed_svg(self.svg, self.name, str(Markup.escape(label))))


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, the key of its cells, and how numbers are written."""

    title: str
    key: str
    numeric: bool = False
    digits: int = 4


@dataclass(frozen=True)
class Table:
    """A table that scrolls within its frame. A row may have a "class"; headings of a sortable table are buttons."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    caption: str
    name: str = ""
    sortable: bool = False

    @property
    def tall(self) -> bool:
        return self.sortable and len(self.rows) > SHORT


def png_of(pixels: NDArray[Any]) -> bytes:
    """PNG of a picture (H, W) or (H, W, 3) in [0, 1], pixel by pixel."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.uint8(np.round(255 * np.clip(pixels, 0, 1)))).save(content, "png", optimize=True)
    return content.getvalue()


def number(value: Any, digits: int = 4) -> str:
    """A number in text; a dash for anything else, NaN included."""
    if not isinstance(value, (int, float)) or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"


def words(value: Any) -> str:
    """A name or a number as text reads it: ``learning_rate`` is "learning rate"."""
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def render(template: str, **values: Any) -> Markup:
    """HTML of templates/<template>.html.j2."""
    return Markup(_html().get_template(f"{template}.html.j2").render(values))


def render_markdown(template: str, **values: Any) -> str:
    """Markdown of templates/<template>.md.j2."""
    return _markdown().get_template(f"{template}.md.j2").render(values)


@cache
def _html() -> jinja2.Environment:
    environment = _environment(autoescape=True)
    for name in ("page.css", "page.js"):
        environment.globals[name.replace(".", "_")] = Markup((HERE / name).read_text(encoding="utf-8"))
    return environment


@cache
def _markdown() -> jinja2.Environment:
    environment = _environment(autoescape=False, finalize=_escape_markdown, keep_trailing_newline=True)
    environment.filters["cell"] = lambda value: Markup(_plain_markdown(value).replace("|", "\\|"))
    environment.filters["code"] = lambda value: Markup(" ".join(str(value).replace("`", "").split()))
    return environment


def _environment(**settings: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("autovae.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **settings,
    )
    environment.filters.update(number=number, words=words)
    return environment


def _plain_markdown(value: Any) -> str:
    """Text that Markdown shows as it is: no HTML, emphasis, code or links, on one line. Pipes only matter in cells."""
    text = " ".join(str(value).split())
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    return re.sub(r"([\\`*\[\]])", r"\\\1", text)


def _escape_markdown(value: Any) -> str:
    """Every value of a Markdown template: plain text that starts neither a heading nor a list."""
    return value if isinstance(value, Markup) else re.sub(r"^([#+-]+)(?=\s|$)", r"\\\1", _plain_markdown(value))

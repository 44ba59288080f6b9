"""Docstrings as Markdown: aligned lines, which Markdown would join into a paragraph, become lists.

A paragraph of lines such as

    pairs     pairs of draws, each with its mirror image
    rounds    of drawing and moving; at most so many,
              fewer where nothing moves

becomes a definition list; lines such as "Not here: ..." and "References: ..." become paragraphs; a name with a star,
`(K, *batch)`, does not start an emphasis.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

ROW = re.compile(r"^(\S.*?) {2,}(\S.*)$")
STAR = re.compile(r"(?<!\*)\*(?=\w+[,)])")
APART = re.compile(r"(?<=\S)\n(?=(?:Not here|References?|To add (?:one|an? \w+)|Shapes|Raises)\b)")
ESCAPED = r"\\*"


def listed(text: str) -> str:
    """The docstring with its definition paragraphs as lists."""
    return "\n\n".join(_paragraph(paragraph) for paragraph in APART.sub("\n\n", text).split("\n\n"))


def _paragraph(paragraph: str) -> str:
    lines = paragraph.split("\n")
    if lines[0].startswith((" ", "|")):  # a formula, a table
        return paragraph
    rows: list[list[str]] = []
    for line in lines:
        row = ROW.match(line)
        if row:
            rows.append([row[1], row[2]])
        elif rows and line.startswith("  "):
            rows[-1].append(line.strip())
        else:
            return STAR.sub(ESCAPED, paragraph)
    return "\n\n".join(f"`{term}`\n:   {STAR.sub(ESCAPED, ' '.join(words))}" for term, *words in rows)


class Docstrings(Extension):
    """Rewrites docstrings while they are read; the source is not touched."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)

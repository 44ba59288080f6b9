"""Look a name up in a table: what the user may write is what the table lists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

__all__ = ["lookup", "unknown"]


def unknown(name: object, known: Iterable[str], what: str = "name") -> str:
    """The message for an unknown name: what was got, the nearest known name, all known names."""
    names = [str(entry) for entry in known]
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}: {hint}known: {', '.join(names)}"


def lookup(table: Mapping[str, T], name: str, what: str = "name") -> T:
    """The entry of `table` called `name`.

    Raises `ValueError` with the nearest and all known names where there is none.
    """
    try:
        return table[name]
    except (KeyError, TypeError):
        raise ValueError(unknown(name, table, what)) from None

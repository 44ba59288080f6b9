"""Names that published files still carry: one table, old to new, applied wherever a file is read.

Covers keys of cards, summaries, study and space files, trials.csv, the trial log, checkpoints and weights (a tensor's name
is renamed by the part before its first dot), and folders of saved models. Files are written under the new names only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RENAMED", "folder_named", "renamed"]

RENAMED = {
    "rival": "learned_prior",
    "rivals": "learned_priors",
    "gain_over_rivals": "gain_over_learned_priors",
}


def renamed(values: Any) -> Any:
    """Nested plain values with the keys of every mapping under their present names."""
    if isinstance(values, Mapping):
        return {_key(key): renamed(value) for key, value in values.items()}
    return [renamed(value) for value in values] if isinstance(values, list) else values


def _key(key: Any) -> Any:
    if not isinstance(key, str):
        return key
    first, dot, rest = key.partition(".")
    return RENAMED.get(first, first) + dot + rest


def folder_named(parent: Path, name: str) -> Path:
    """The folder `name` of a results folder, under its old name if only that exists."""
    old = [parent / before for before, now in RENAMED.items() if now == name and (parent / before).is_dir()]
    return old[0] if old and not (parent / name).is_dir() else parent / name

"""The material of one page: a study's record, importances, models and examples, and the figures drawn so far.

What cannot be loaded becomes a line of `missing` instead of an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autovae.data.datasets import Data
from autovae.export.folders import CARD, WEIGHTS
from autovae.renames import folder_named
from autovae.report.examples import examples_of
from autovae.report.importance import Importance, importance_of
from autovae.report.latents import Latents, Model, load_model, look
from autovae.report.page import Drawing, png_of
from autovae.report.record import Record
from autovae.report.theme import svg_of

__all__ = ["Content"]

T = TypeVar("T")
U = TypeVar("U")
MODELS = {"Winner": "winners/1", "Baseline": "baseline"}


class Content:
    """One study's material; `files` are its figures by file name, `missing` what cannot be shown, and why."""

    def __init__(self, record: Record, data: Data | None = None) -> None:
        self.record = record
        self.files: dict[str, bytes] = {}
        self.missing: list[str] = []
        self._data = data

    def drawing(self, figure: Figure, name: str) -> Drawing:
        """A figure for the page, also kept as a file."""
        svg = svg_of(figure)
        self.files[f"{name}.svg"] = svg.encode("utf-8")
        return Drawing(name, svg=svg)

    def picture(self, pixels: NDArray[Any], name: str) -> Drawing:
        """A picture (H, W) or (H, W, 3) in [0, 1] for the page, also kept as a file."""
        self.files[f"{name}.png"] = png = png_of(pixels)
        return Drawing(name, png=png)

    def attempt(self, what: str, make: Callable[[], T], otherwise: U) -> T | U:
        """The result of `make`; on failure, `otherwise`, and the reason is noted. A report never fails as a whole."""
        try:
            return make()
        except (ValueError, KeyError, TypeError, IndexError, OSError, RuntimeError, ArithmeticError) as error:
            self.missing.append(f"{what}: {' '.join(str(error).split())[:300] or type(error).__name__}")
            return otherwise

    @cached_property
    def importance(self) -> Importance:
        failed = Importance(reason="The importances could not be computed.")
        space = self.record.study.get("space")
        return self.attempt("Importance", lambda: importance_of(self.record.complete, space), failed)

    @cached_property
    def models(self) -> dict[str, Model]:
        """Winner and baseline, if they load; only one of them if they are the same."""
        found: dict[str, Model] = {}
        for title, place in MODELS.items() if self.record.complete else ():
            folder = self.record.folder / place
            if (folder / CARD).is_file() and not (folder / WEIGHTS).is_file():
                restore = f"autovae restore results/{self.record.title}"
                self.missing.append(f"{title}: published results carry no weights; {restore} trains it again.")
            else:
                self._load(title, folder, found)
        if len(found) == 2 and len({model.card.get("weights_sha256") for model in found.values()}) == 1:
            del found["Baseline"]
        return found

    @cached_property
    def learned_priors(self) -> dict[str, Model]:
        """The learned priors among the baselines, by name."""
        found: dict[str, Model] = {}
        folder = folder_named(self.record.folder, "learned_priors")
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (path / WEIGHTS).is_file():  # missing weights are reported once, for the winner
                self._load(f"Learned {path.name} prior", path, found)
        return found

    def _load(self, title: str, folder: Path, found: dict[str, Model]) -> None:
        model = self.attempt(title, partial(load_model, folder), None)
        if model is not None:
            found[title] = model

    @cached_property
    def examples(self) -> NDArray[np.float32] | None:
        """Data points for the encoders."""
        if not self.models:
            return None
        nothing: tuple[NDArray[np.float32] | None, str] = (None, "")
        inputs, reason = self.attempt("Examples", lambda: examples_of(self.record, self._data), nothing)
        if reason:
            self.missing.append(f"Reconstructions and active units: {reason}")
        return inputs

    @cached_property
    def latents(self) -> dict[str, Latents]:
        """The encodings of the examples by each model."""
        found: dict[str, Latents] = {}
        inputs = self.examples
        for title, model in self.models.items() if inputs is not None else ():
            seen = self.attempt(f"Latents of the {title.lower()}", partial(look, model, inputs), None)  # type: ignore[arg-type]
            if seen is not None:
                found[title] = seen
        return found

    @property
    def baseline_won(self) -> bool:
        """Whether the best finalist is the matched normal itself."""
        summary = self.record.summary or {}
        winner, baseline = summary.get("winner"), summary.get("baseline")
        if not isinstance(winner, dict) or not isinstance(baseline, dict):
            return False
        return {**winner, "seed": 0} == {**baseline, "seed": 0}

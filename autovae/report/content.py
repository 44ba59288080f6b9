"""What is known of one study while its page is made: the record, importances, models, examples, and what to write.

Parts ask it for data and hand it figures; what cannot be had is a reason in words instead of an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
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
from autovae.report.page import chart, esc, picture
from autovae.report.record import Record
from autovae.report.theme import svg_of

__all__ = ["Content"]

T = TypeVar("T")
U = TypeVar("U")
MODELS = {"Winner": "winners/1", "Baseline": "baseline"}


class Content:
    """One study's material; `files` are the figures by file name."""

    def __init__(self, record: Record, data: Data | None = None) -> None:
        self.record = record
        self.files: dict[str, bytes] = {}
        self.missing: list[str] = []  # what cannot be shown, and why
        self._data = data

    def chart(self, figure: Figure, name: str, title: str, label: str, caption: str = "") -> str:
        """A figure for the page that is also kept as a file. The caption is HTML."""
        svg = svg_of(figure)
        self.files[f"{name}.svg"] = svg.encode("utf-8")
        return chart(svg, name, title, label, caption)

    def picture(self, png: bytes, name: str, title: str, label: str, caption: str = "") -> str:
        self.files[f"{name}.png"] = png
        return picture(png, title, label, caption)

    def attempt(self, what: str, make: Callable[[], T], otherwise: U) -> T | U:
        """What `make` gives; if it cannot, the reason is noted and `otherwise` taken. A report never fails as a whole."""
        try:
            return make()
        except (ValueError, KeyError, TypeError, IndexError, OSError, RuntimeError, ArithmeticError) as error:
            self.missing.append(f"{what}: {' '.join(str(error).split())[:300] or type(error).__name__}")
            return otherwise

    @cached_property
    def importance(self) -> Importance:
        def found() -> Importance:
            return importance_of(self.record.complete, self.record.study.get("space"))

        return self.attempt("Importance", found, Importance(reason="The importances could not be computed."))

    @cached_property
    def models(self) -> dict[str, Model]:
        """Winner and baseline, where they load."""
        found: dict[str, Model] = {}
        if not self.record.complete:
            return found
        for title, folder in MODELS.items():
            place = self.record.folder / folder
            if (place / CARD).is_file() and not (place / WEIGHTS).is_file():
                self.missing.append(
                    f"{title}: its weights are not here, as in published results; autovae restore "
                    f"results/{self.record.title} trains it again."
                )
                continue
            model = self.attempt(title, partial(load_model, place), None)
            if model is not None and not any(_same(model, other) for other in found.values()):
                found[title] = model
        return found

    @cached_property
    def learned_priors(self) -> dict[str, Model]:
        """The learned priors among the baselines, by name."""
        found: dict[str, Model] = {}
        folder = folder_named(self.record.folder, "learned_priors")
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not (path / WEIGHTS).is_file():  # said of the winner
                continue
            model = self.attempt(f"Learned {path.name} prior", partial(load_model, path), None)
            if model is not None:
                found[f"Learned {path.name} prior"] = model
        return found

    @property
    def cards(self) -> dict[str, dict[str, Any]]:
        return {title: dict(model.card) for title, model in self.models.items()}

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
        """What the encoders do to the examples."""
        found: dict[str, Latents] = {}
        inputs = self.examples
        if inputs is None:
            return found
        for title, model in self.models.items():
            seen = self.attempt(f"Latents of the {title.lower()}", partial(look, model, inputs), None)
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

    def warning(self, text: str) -> str:
        return f'<p class="card warning">{esc(text)}</p>'


def _same(one: Model, other: Model) -> bool:
    return one.prior.card.get("weights_sha256") == other.prior.card.get("weights_sha256")

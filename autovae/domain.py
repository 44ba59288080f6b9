"""`Domain`: what a model needs to know about its data, as plain values without torch.

Not here: the data themselves (`data`), which likelihood fits which support (`registry.LIKELIHOODS`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from autovae.registry import SUPPORTS, unknown

__all__ = ["Domain"]


@dataclass(frozen=True)
class Domain:
    """What a model needs to know about its data: the shape of a point, its support, and the bins its levels own.

    Level v of `levels` owns the bin [low + v w, low + (v + 1) w] of width w = (high - low) / levels, in the units the
    model sees: low = 0 and high = 1 for binary and unit data, the training range for standardised real data.
    """

    shape: tuple[int, ...]
    support: str
    levels: int
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.support not in SUPPORTS:
            raise ValueError(unknown(self.support, SUPPORTS, "support"))
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 2:
            raise ValueError(f"levels must be a whole number >= 2, got {self.levels!r}")

    @property
    def features(self) -> int:
        """Numbers per point."""
        return math.prod(self.shape)

    @property
    def bin_width(self) -> float:
        return (self.high - self.low) / self.levels

    @property
    def scale_floor(self) -> float:
        """The smallest scale a likelihood may learn: a quarter of a bin, without which densities grow unbounded."""
        return self.bin_width / 4

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "shape": list(self.shape)}

r"""What the values of a data set mean: their support, their levels, and the stored form that the models see.

| found                                   | support | stored                                    | levels             |
|-----------------------------------------|---------|-------------------------------------------|--------------------|
| bool, or only 0 and 1                   | binary  | 0, 1                                      | 2                  |
| 8-bit unsigned integers                 | unit    | level 0..255                              | 256                |
| whole numbers with L levels given       | unit    | level 0..L-1                              | L                  |
| floats in [0, 1]                        | unit    | the level v with x in [v/L, (v+1)/L]      | L, or 256        |
| other floats                            | real    | (x - mean) / scale, float32               | 256 bins         |

Floats without levels are rounded to 256 and flagged `rounded`; the bins of real data span the training range.
Real data are standardised per feature, by mean and standard deviation over the training rows. A feature that is constant
there keeps scale 1. Unobserved entries are stored as 0 and never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autovae.data.errors import DataError
from autovae.registry import SUPPORTS, unknown

__all__ = ["Stored", "checked_mask", "checked_targets", "stored"]

MAX_LEVELS = 2**15  # level indices are kept as int16
BINS = 256
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Stored:
    """Values in stored form with their meaning; mean and scale have the shape of one point."""

    x: np.ndarray
    support: str
    levels: int
    rounded: bool = False
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    low: float = 0.0
    high: float = 1.0


def checked_mask(mask: Any, length: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """One boolean mask (True = observed) from a mask of 0 and 1 and from lengths along the first axis of a point."""
    observed = None
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != shape:
            raise DataError(f"got a mask of shape {mask.shape}, expected {shape} as x; 1 marks an observed entry")
        if mask.dtype.kind not in "buif" or not np.isin(mask, (0, 1)).all():
            raise DataError(f"got a mask of {mask.dtype} with values other than 0 and 1; 1 marks an observed entry")
        observed = mask.astype(bool)
    if length is not None:
        length = np.asarray(length)
        if length.shape != shape[:1] or length.dtype.kind not in "ui":
            raise DataError(
                f"got length of shape {length.shape} and {length.dtype}, expected {shape[:1]} integers, one per point"
            )
        if len(shape) < 2 or length.min() < 0 or length.max() > shape[1]:
            most = shape[1] if len(shape) > 1 else 1
            raise DataError(f"got lengths {length.min()}..{length.max()}, expected 0..{most}, the steps of one point")
        steps = np.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
        reached = np.broadcast_to(steps < length.reshape(-1, *[1] * (len(shape) - 1)), shape)
        observed = reached.copy() if observed is None else observed & reached
    if observed is not None and not observed.any():
        raise DataError("got a mask that hides every entry, expected observed ones; 1 marks an observed entry")
    return observed


def checked_targets(y: Any, count: int) -> np.ndarray | None:
    """Labels as int64, targets as float32, one per point."""
    if y is None:
        return None
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (count,):
        raise DataError(f"got y of shape {y.shape}, expected ({count},): one label or target for each row of x")
    if y.dtype.kind in "bui":
        return y.astype(np.int64)
    if y.dtype.kind != "f":
        raise DataError(
            f"got y of {y.dtype}, expected integers (labels) or floats (targets); encode the labels as 0, 1, ..."
        )
    if not np.isfinite(y).all():
        raise DataError("got y with NaN or infinite entries, expected finite targets; drop those rows")
    return y.astype(np.float32)


def _checked_levels(levels: Any) -> int | None:
    if levels is None:
        return None
    whole = isinstance(levels, int | float | np.integer | np.floating) and not isinstance(levels, bool)
    if not whole or not 2 <= levels <= MAX_LEVELS or int(levels) != levels:
        raise DataError(f"got levels = {levels}, expected a whole number from 2 to {MAX_LEVELS}; count the grey levels")
    return int(levels)


def _checked_finite(values: np.ndarray) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    missing, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    raise DataError(
        f"got {missing} NaN and {infinite} infinite entries in x, expected finite numbers; "
        "fill them in, drop those rows, or hide them with mask (1 = observed)"
    )


def _detected(values: np.ndarray, levels: int | None) -> str:
    """The support of observed values, detected if the user declares none."""
    if values.dtype.kind == "b" or levels == 2:
        return "binary"
    low, high = values.min(), values.max()
    if levels is None and low >= 0 and high <= 1 and np.isin(values, (0, 1)).all():
        return "binary"
    if levels is not None or values.dtype == np.uint8:
        return "unit"
    if values.dtype.kind in "ui":
        example = f" (for example {int(high) + 1})" if low >= 0 and high < MAX_LEVELS else ""
        raise DataError(
            f"got {values.dtype} values {low}..{high} without levels, expected their number; give levels{example} when "
            "they count grey levels, or convert x to float when they are measurements"
        )
    return "unit" if low >= 0 and high <= 1 else "real"


def _to_levels(x: np.ndarray, values: np.ndarray, levels: int, support: str) -> np.ndarray:
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and low >= 0 and high <= 1 and support == "unit":
        # Half open bins, the last one closed: k/(L-1) and (k + 1/2)/L both come back as k.
        x = np.minimum(np.floor(x.astype(np.float64) * levels), levels - 1)
    elif values.dtype.kind == "f" and not (np.floor(values) == values).all():
        expected = "0 and 1" if support == "binary" else f"floats in [0, 1] or whole numbers 0..{levels - 1}"
        raise DataError(f"got fractional values {low:g}..{high:g} in x, expected {expected}; check levels and support")
    elif low < 0 or high > levels - 1:
        raise DataError(
            f"got values {low:g}..{high:g} in x, expected 0..{levels - 1} for {levels} levels; check levels"
        )
    return x.astype(np.uint8 if levels <= 256 else np.int16)


def _standardised(x: np.ndarray, mask: np.ndarray | None, train: np.ndarray, levels: int) -> Stored:
    x = x.astype(np.float64)
    rows, seen = x[train], None if mask is None else mask[train]
    with np.errstate(over="ignore", invalid="ignore"):
        if seen is None:
            mean, scale = rows.mean(0), rows.std(0)
        else:
            count = np.maximum(seen.sum(0), 1)
            mean = (rows * seen).sum(0) / count
            scale = np.sqrt((((rows - mean) * seen) ** 2).sum(0) / count)
        constant = ~(scale > 1e-7 * np.abs(mean))  # also zero; float32 holds no more digits than that
        scale = np.where(constant, 1.0, scale)
        x = (x - mean) / scale
        x32 = (x if mask is None else np.where(mask, x, 0.0)).astype(np.float32)
    if not (np.isfinite(x32).all() and np.abs(mean).max() < FLOAT32_MAX and scale.max() < FLOAT32_MAX):
        raise DataError("got values in x too large to standardise in float32; divide x by a constant first")
    if constant.all():
        raise DataError("got the same values in every training row, expected data that vary; there is nothing to learn")
    observed = x32[train] if seen is None else x32[train][seen]
    return Stored(x32, "real", levels, False, mean, scale, float(observed.min()), float(observed.max()))


def stored(
    x: np.ndarray, mask: np.ndarray | None, train: np.ndarray, levels: Any = None, support: str | None = None
) -> Stored:
    """Check values against their (declared or detected) support and convert them to the stored form.

    `train` holds the indices of the training rows; only these decide mean, scale and bin range.
    """
    levels = _checked_levels(levels)
    if support is not None and support not in SUPPORTS:
        raise DataError(unknown(support, SUPPORTS, "support"))
    if x.dtype.kind not in "buif":
        what = "objects (ragged or mixed rows)" if x.dtype.kind == "O" else f"values of {x.dtype}"
        raise DataError(f"got {what} in x, expected a rectangular array of bool, integers or real floats; convert it")
    values = x if mask is None else x[mask]
    _checked_finite(values)
    if mask is not None:
        x = np.where(mask, x, np.zeros((), x.dtype))
    support = support or _detected(values, levels)
    if support == "real":
        return _standardised(x, mask, train, levels or BINS)
    if support == "binary" and levels not in (None, 2):
        raise DataError(f"got levels = {levels} with binary support, expected 2; leave levels out")
    is_float = values.dtype.kind == "f"
    if support == "unit" and levels is None and is_float and not (values.min() >= 0 and values.max() <= 1):
        raise DataError(
            f"got values {values.min():g}..{values.max():g} in x, expected [0, 1] for unit support; "
            "rescale them, give levels for whole numbers, or declare support real"
        )
    chosen = 2 if support == "binary" else levels or 256
    return Stored(
        _to_levels(x, values, chosen, support), support, chosen, support == "unit" and is_float and levels is None
    )

"""Data sets as the models see them: `load` turns names, files and arrays into checked tensors with fixed splits.

Likelihoods are checked against the *support* of a data set: `binary`, `unit` (L grey levels of [0, 1]; level v owns the
bin [v/L, (v+1)/L]) or `real` (standardised with the stored mean and scale). Named sets keep their published splits; the
user's own data are split 70/15/15 by a seeded permutation.

Shapes: x (N, *shape), mask as x (True = observed), y and length (N,).
Not here: what values mean (`supports`), readers of files (`sources`), the named sets (`catalogue`), minibatches
(`minibatches`). Data must fit in memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from autovae.data.catalogue import DATASETS, catalogue, read_named
from autovae.data.errors import DataError
from autovae.data.sources import Raw, read_array, read_dataset, read_file
from autovae.data.supports import checked_mask, checked_targets, stored
from autovae.registry import unknown
from autovae.seeds import stream_seed
from autovae.spec import Domain

__all__ = ["DATASETS", "Data", "DataError", "Split", "catalogue", "load", "names"]

MINIMUM_POINTS = 7  # the fewest of which 70/15/15 leaves no part empty
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: x as uint8 or int16 levels, or as float32 standardised values.

    Dynamic binarisation: if `grey` > 0, x holds that many grey levels, and every use draws new bits from them; level v
    gives a 1 with probability v / (grey - 1).
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    length: Tensor | None = None
    grey: int = 0

    def __len__(self) -> int:
        return len(self.x)

    @property
    def flat(self) -> Tensor:
        """x as (N, number of entries of one point)."""
        return self.x.flatten(1)

    @property
    def flat_mask(self) -> Tensor | None:
        return None if self.mask is None else self.mask.flatten(1)

    def to(self, device: torch.device | str) -> Split:
        return self._each(lambda tensor: tensor.to(device))

    def take(self, index: Tensor | slice) -> Split:
        """The points at `index`."""
        return self._each(lambda tensor: tensor[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Split:
        tensors = {name: getattr(self, name) for name in ("x", "y", "mask", "length")}
        changed: dict[str, Any] = {name: None if t is None else change(t) for name, t in tensors.items()}
        return replace(self, **changed)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in three splits, with the meaning of its values.

    `low` and `high` are the range of the scoring bins in model units; `mean` and `scale` (tensors of the event shape
    for real data, else 0 and 1) convert back to the user's units; `digest` is the SHA-256 of contents and split.
    """

    name: str
    support: Literal["binary", "unit", "real"]
    levels: int
    rounded: bool
    shape: tuple[int, ...]
    train: Split
    validation: Split
    test: Split
    mean: Tensor | float
    scale: Tensor | float
    low: float
    high: float
    digest: str
    source: str
    licence: str
    note: str

    @property
    def dim(self) -> int:
        """Number of entries of one point."""
        return math.prod(self.shape)

    @property
    def domain(self) -> Domain:
        """What a model needs to know about these data."""
        return Domain(self.shape, self.support, self.levels, self.low, self.high)

    @property
    def points(self) -> tuple[int, int, int]:
        return len(self.train), len(self.validation), len(self.test)

    def to(self, device: torch.device | str) -> Data:
        """The same data with every tensor on `device`."""
        moved: dict[str, Any] = {part: getattr(self, part).to(device) for part in PARTS}
        moved |= {n: t.to(device) for n, t in (("mean", self.mean), ("scale", self.scale)) if isinstance(t, Tensor)}
        return replace(self, **moved)

    def original_units(self, x: Tensor) -> Tensor:
        """Values in model units converted to the user's: undoes standardisation; data with levels stay in [0, 1]."""
        return x * self.scale + self.mean if self.support == "real" else x

    def describe(self) -> str:
        """One line: name, shape, points, support, levels, split."""
        if self.support == "real":
            meaning = f"real, standardised, {self.levels} scoring bins over {self.low:.3g}..{self.high:.3g}"
        elif self.support == "binary":
            meaning = "binary"
        else:
            meaning = f"unit, {self.levels} levels{' (floats rounded)' if self.rounded else ''}"
        shape = "x".join(map(str, self.shape))
        train, validation, test = (f"{count:,}" for count in self.points)
        return f"{self.name}: {shape}, {train} + {validation} + {test} points, {meaning}; {self.note}"

    def __repr__(self) -> str:
        return f"<Data {self.describe()}>"


def names() -> list[str]:
    """The names that `load` knows."""
    return list(DATASETS)


def load(
    source: Any,
    data_dir: str | Path | None = None,
    seed: int = 0,
    *,
    y: Any = None,
    mask: Any = None,
    length: Any = None,
    levels: int | None = None,
    support: str | None = None,
) -> Data:
    """Load a data set from a name, a path (.npz, .npy, a folder of images), an array, a tensor or a torch Dataset.

    `seed` splits the user's own data; named sets have a fixed split. `y`, `mask` (1 = observed), `length`, `levels` and
    `support` complete an array, and override the values in a file. A `Data` is returned unchanged.
    Raises `DataError`, with a message of one line, for unusable data.
    """
    told = {"y": y, "mask": mask, "length": length, "levels": levels, "support": support}
    told = {key: value for key, value in told.items() if value is not None}
    if isinstance(source, Data):
        if told:
            raise DataError(
                f"got {', '.join(told)} with a loaded Data, expected none; give them when it is first loaded"
            )
        return source
    if isinstance(source, str) and source in DATASETS:
        if told:
            raise DataError(f"got {', '.join(told)} with the named data set {source}, expected none; leave them out")
        entry = DATASETS[source]
        raw = read_named(entry, data_dir)
        where = "built in (scikit-learn)" if not entry.files else entry.origin
        data = _assemble(raw, 0, entry.name, where, entry.licence, entry.split)
        return _dynamic(data) if entry.dynamic else data
    raw, name, where = _read_own(source)
    return _assemble(replace(raw, **told), seed, name, where, "the user's own", "")


def _read_own(source: Any) -> tuple[Raw, str, str]:
    """The user's own data, with a name and their origin."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        try:
            exists = str(source) != "" and path.exists()
        except OSError as error:
            raise DataError(f"{source}: cannot be read ({error.strerror}); expected a name or a path") from None
        if not exists:
            if isinstance(source, str) and not path.suffix and len(path.parts) <= 1:
                raise DataError(
                    f"{unknown(source, DATASETS, 'data set')}; or give the path of an .npz file or a folder"
                )
            raise DataError(
                f"{path}: no such file or folder; expected an .npz, an .npy or a folder of images, or a name"
            )
        return read_file(path), path.stem or path.resolve().name, str(path)
    if isinstance(source, torch.utils.data.Dataset):
        return read_dataset(source), type(source).__name__, f"torch Dataset {type(source).__name__}"
    if isinstance(source, Tensor):
        return Raw(read_array(source)), "tensor", "tensor in memory"
    if isinstance(source, np.ma.MaskedArray):  # numpy's masks mark missing entries, ours observed ones
        return Raw(source.data, mask=~np.ma.getmaskarray(source)), "array", "masked array in memory"
    if hasattr(source, "__array__") and not isinstance(source, type):
        return Raw(read_array(source)), "array", "array in memory"
    raise DataError(
        f"got {type(source).__name__} as data, expected a name ({', '.join(DATASETS)}), a path, a numpy array, a "
        "tensor, a torch Dataset or a Data; convert it with numpy.asarray"
    )


def _split_labels(raw: Raw, count: int, seed: int) -> tuple[np.ndarray, str]:
    """0, 1 or 2 for each row, and the split in words."""
    if raw.split is not None:
        split = np.asarray(raw.split)
        if split.shape != (count,) or split.dtype.kind not in "ui" or not np.isin(split, (0, 1, 2)).all():
            raise DataError(
                f"got split of shape {split.shape} and {split.dtype}, expected ({count},) integers 0 (training), "
                "1 (validation), 2 (test)"
            )
        if len(np.unique(split)) < 3:
            raise DataError("got a split without training, validation or test rows, expected some of each")
        return split, "split as given with the data"
    if not isinstance(seed, int | np.integer):
        raise DataError(f"got seed = {seed!r} for the split, expected a whole number; leave it out for 0")
    if count < MINIMUM_POINTS:
        raise DataError(f"got {count} points in x, expected at least {MINIMUM_POINTS} for three splits; add points")
    held_out = int(0.15 * count)
    # numpy guarantees that the streams of RandomState never change.
    order = np.random.RandomState(seed % 2**32).permutation(count)
    split = np.zeros(count, np.int8)
    split[order[count - 2 * held_out :]] = 1
    split[order[count - held_out :]] = 2
    return split, f"split 70/15/15 by a permutation of seed {seed}"


def _dynamic(data: Data) -> Data:
    """Grey images as binary data: training bits are drawn at every use, validation and test bits only once.

    Reference: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016; Salakhutdinov and Murray, On the
    quantitative analysis of deep belief networks, 2008.
    """
    fixed = {}
    for part in ("validation", "test"):
        split = getattr(data, part)
        generator = torch.Generator().manual_seed(stream_seed("binarise", part))
        bits = torch.rand(split.x.shape, generator=generator) < split.x.to(torch.float32) / (data.levels - 1)
        fixed[part] = replace(split, x=bits.to(torch.uint8))
    train = replace(data.train, grey=data.levels)
    digest = hashlib.sha256(f"{data.digest} dynamic".encode()).hexdigest()
    return replace(data, support="binary", levels=2, train=train, digest=digest, **fixed)


def _digest(facts: Mapping[str, Any], splits: Mapping[str, Split]) -> str:
    content = hashlib.sha256(repr(sorted(facts.items())).encode())
    for part, split in splits.items():
        for field in ("x", "y", "mask", "length"):
            tensor = getattr(split, field)
            if tensor is not None:
                content.update(f"{part}.{field} {tuple(tensor.shape)} {tensor.dtype}".encode())
                content.update(memoryview(tensor.contiguous().numpy()).cast("B"))
    return content.hexdigest()


def _assemble(raw: Raw, seed: int, name: str, source: str, licence: str, words: str) -> Data:
    x = np.asarray(raw.x)
    if x.ndim == 0:
        raise DataError(f"got a single value of {x.dtype} as x, expected an array (N, ...) of N points")
    if x.size == 0:
        raise DataError(f"got an empty x of shape {x.shape}, expected points; check how it was made")
    mask = checked_mask(raw.mask, raw.length, x.shape)
    if x.ndim == 1:  # N points of one number each
        x, mask = x[:, None], None if mask is None else mask[:, None]
    y = checked_targets(raw.y, len(x))
    split, split_words = _split_labels(raw, len(x), seed)
    rows = [np.flatnonzero(split == part) for part in range(3)]
    if mask is not None and not mask[rows[0]].any():
        raise DataError("got a mask that hides every training entry, expected observed ones; 1 marks an observed entry")
    values = stored(x, mask, rows[0], raw.levels, raw.support)
    length = None if raw.length is None else np.asarray(raw.length).astype(np.int64)
    splits = {
        part: Split(*(None if a is None else torch.from_numpy(a[index]) for a in (values.x, y, mask, length)))  # type: ignore[arg-type]
        for part, index in zip(PARTS, rows, strict=True)
    }
    mean: Tensor | float = 0.0 if values.mean is None else torch.from_numpy(values.mean.astype(np.float32))
    scale: Tensor | float = 1.0 if values.scale is None else torch.from_numpy(values.scale.astype(np.float32))
    facts = {"support": values.support, "levels": values.levels, "low": values.low, "high": values.high}
    if values.mean is not None and values.scale is not None:
        facts |= {"mean": values.mean.tobytes(), "scale": values.scale.tobytes()}
    return Data(
        name=name,
        support=values.support,  # type: ignore[arg-type]
        levels=values.levels,
        rounded=values.rounded,
        shape=tuple(x.shape[1:]),
        **splits,
        mean=mean,
        scale=scale,
        low=values.low,
        high=values.high,
        digest=_digest(facts, splits),
        source=source,
        licence=licence,
        note="; ".join(part for part in (words or split_words, raw.note) if part),
    )

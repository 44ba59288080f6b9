"""Examples: a few validation points as network inputs, kept with the results so that a report needs no data set.

    examples.npz    inputs (n, *shape) float32; digest of the data set

They are written by the first report built where the data set is available, and read by later ones. Nothing is downloaded.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autovae.data.batches import network_input
from autovae.data.datasets import DATASETS, Data, load
from autovae.files import write_bytes
from autovae.report.record import Record

__all__ = ["examples_of", "write_examples"]

FILE = "examples.npz"
COUNT = 256
LARGEST = 2_000_000  # numbers in the file


def write_examples(folder: Path, data: Data) -> Path:
    """The first validation points; unobserved entries are neutral."""
    count = min(COUNT, len(data.validation), max(8, LARGEST // data.dim))
    split = data.validation.take(slice(0, count))
    content = io.BytesIO()
    inputs = network_input(split.x, data, split.mask).to(torch.float32).numpy()
    np.savez_compressed(content, inputs=inputs, digest=np.array(data.digest))
    return write_bytes(folder / FILE, content.getvalue())


def examples_of(record: Record, data: Data | None = None) -> tuple[NDArray[np.float32] | None, str]:
    """The examples of a results folder (n, *shape), or None and the reason."""
    wanted = record.study.get("data", {}).get("digest")
    path = record.folder / FILE
    if not path.is_file():
        found = data if data is not None and data.digest == wanted else _available(record)
        if found is None:
            return None, f"{FILE} is missing and the data set is not available; build the report once where it is."
        write_examples(record.folder, found)
    try:
        with np.load(path, allow_pickle=False) as file:
            inputs, digest = file["inputs"], str(file["digest"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return None, f"{FILE} cannot be read ({error}); delete it and build the report again."
    if digest != wanted:
        return None, f"{FILE} belongs to other data than the study; delete it and build the report again."
    return inputs, ""


def _available(record: Record) -> Data | None:
    """The study's data set, if it needs no download and has not changed."""
    about: dict[str, Any] = record.study.get("data", {})
    name, path = str(about.get("name", "")), about.get("path")
    try:
        if path is not None:
            data = load(path, seed=record.study.get("seed", 0)) if Path(path).exists() else None
        else:
            data = load(name) if name in DATASETS and not DATASETS[name].files else None
    except (ValueError, OSError):
        return None
    return data if data is not None and data.digest == about.get("digest") else None

"""Readers of raw arrays: idx, npz, npy, amat and mat files, folders of images, arrays, torch Datasets.

Every reader returns a `Raw`: unchanged numpy arrays with labels, mask, lengths, levels and split where known. Nothing is
unpickled: npz and npy files are read with `allow_pickle=False`.
Not here: which values are allowed and what they mean (`supports`), the named data sets (`catalogue`).
"""

from __future__ import annotations

import gzip
import math
import pickle
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autovae.data.errors import DataError

__all__ = [
    "Raw",
    "official_split",
    "read_amat",
    "read_array",
    "read_dataset",
    "read_file",
    "read_folder",
    "read_idx",
    "read_idx_set",
    "read_mat",
    "read_npz",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm")
NPZ_NAMES = ("x", "y", "mask", "length", "levels", "split", "support")
# Everything numpy, zipfile and zlib raise on truncated, altered, renamed or pickled files.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    NotImplementedError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    pickle.UnpicklingError,
)


@dataclass(frozen=True)
class Raw:
    """Unchanged arrays: x (N, ...); split (N,) is 0 for training, 1 for validation, 2 for test rows."""

    x: np.ndarray
    y: np.ndarray | None = None
    mask: np.ndarray | None = None
    length: np.ndarray | None = None
    levels: int | None = None
    split: np.ndarray | None = None
    support: str | None = None
    note: str = ""


def official_split(train: int, validation: int, test: int) -> np.ndarray:
    """Split labels for rows stored as all training rows, then validation, then test."""
    return np.repeat(np.array([0, 1, 2], dtype=np.int8), [train, validation, test])


def _broken(path: Path, error: BaseException, expected: str, remedy: str = "replace it by an intact copy") -> DataError:
    return DataError(f"{path}: cannot be read ({type(error).__name__}: {error}); expected {expected}; {remedy}")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an idx file (big-endian header 0, 0, 8, number of dimensions, sizes), gzipped or not."""
    expected = f"an idx file of {dimensions} dimensions of bytes, gzipped when it ends in .gz"
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read()
        (magic,) = struct.unpack_from(">I", content)
        if magic != 0x800 + dimensions:
            raise ValueError(f"magic number {magic:#010x}, not {0x800 + dimensions:#010x}")
        sizes = struct.unpack_from(f">{dimensions}I", content, 4)
    except BROKEN as error:
        raise _broken(path, error, expected) from None
    size = len(content) - 4 * (1 + dimensions)
    if size != math.prod(sizes):
        shape = "x".join(map(str, sizes))
        raise DataError(
            f"{path}: got {size} bytes of values, expected {math.prod(sizes)} for the shape {shape} in its header; "
            "the file is truncated or altered: replace it by an intact copy"
        )
    return np.frombuffer(content, np.uint8, offset=4 * (1 + dimensions)).reshape(sizes).copy()


def read_idx_set(
    train_images: Path,
    train_labels: Path,
    test_images: Path,
    test_labels: Path,
    counts: tuple[int, int] | None = (60_000, 10_000),
    validation: int = 10_000,
) -> Raw:
    """The four idx files of an MNIST-like set; the last `validation` training images are the validation set.

    `counts` are the expected numbers of training and test images; None accepts any.
    """
    parts = []
    for images_path, labels_path, count in zip(
        (train_images, test_images), (train_labels, test_labels), counts or (None, None), strict=True
    ):
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        expected = count or len(images)
        if len(images) != expected or len(labels) != expected:
            raise DataError(
                f"{images_path.name} and {labels_path.name} in {images_path.parent}: got {len(images)} images and "
                f"{len(labels)} labels, expected {expected} of each; replace them by the official files"
            )
        parts.append((images, labels))
    (x_train, y_train), (x_test, y_test) = parts
    if not 0 < validation < len(x_train):
        raise DataError(f"{train_images}: got {len(x_train)} training images, expected more than {validation}")
    return Raw(
        np.concatenate([x_train, x_test]),
        np.concatenate([y_train, y_test]),
        split=official_split(len(x_train) - validation, validation, len(x_test)),
    )


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, by name."""
    expected = "an .npz file of plain arrays, as numpy.savez writes it"
    remedy = "write it again with numpy.savez(path, x=array), numbers only"
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except BROKEN as error:
        raise _broken(path, error, expected, remedy) from None
    raise DataError(f"{path}: got a single array, expected an .npz archive; rename the file to .npy")


def read_npz(path: Path) -> Raw:
    """The user's .npz: x (N, ...), optionally y (N,), mask (as x), length (N,), levels, split (N,), support."""
    arrays = arrays_of(path)
    if "x" not in arrays:
        raise DataError(
            f"{path}: got arrays named {', '.join(arrays) or 'nothing'}, expected one named x (N, ...); "
            "write it again with numpy.savez(path, x=array)"
        )
    for name in ("levels", "support"):
        if name in arrays and arrays[name].size != 1:
            raise DataError(f"{path}: got {name} of shape {arrays[name].shape}, expected a single value")
    levels = arrays["levels"].item() if "levels" in arrays else None
    ignored = [name for name in arrays if name not in NPZ_NAMES]
    return Raw(
        arrays["x"],
        arrays.get("y"),
        arrays.get("mask"),
        arrays.get("length"),
        levels,
        arrays.get("split"),
        str(arrays["support"].item()) if "support" in arrays else None,
        note=f"not used from the file: {', '.join(ignored)}" if ignored else "",
    )


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a MATLAB file (format 5), by name."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        return {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    except (*BROKEN, MatReadError, IndexError) as error:
        raise _broken(path, error, "a MATLAB file of format 5") from None


def read_amat(path: Path, columns: int) -> np.ndarray:
    """Rows of `columns` digits 0 or 1, each followed by one white space: the text format of binarised MNIST."""
    try:
        text = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise _broken(path, error, "a readable text file") from None
    if text.size == 0 or text.size % (2 * columns) or not np.isin(text[::2], (48, 49)).all():
        raise DataError(f"{path}: got {text.size} bytes, expected rows of {columns} digits 0 or 1 with spaces between")
    return (text[::2] - 48).reshape(-1, columns)


def _read_image(path: Path) -> np.ndarray:
    """(H, W) for grey, (3, H, W) for colour, bool for 1-bit images."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                if image.mode in ("1", "L"):
                    return np.asarray(image)
                if image.mode == "LA":
                    return np.asarray(image.convert("L"))
                if image.mode in ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"):
                    full = image.convert("RGBA") if image.mode in ("P", "PA") else image
                    return np.asarray(full.convert("RGB")).transpose(2, 0, 1)
                mode = image.mode
    except (*BROKEN, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _broken(path, error, "an image file that Pillow reads", "repair or remove it") from None
    raise DataError(f"{path}: got an image of mode {mode}, expected 8 bits per channel; convert it first")


def read_folder(folder: Path) -> Raw:
    """All images of a folder and its sub-folders (one level), sorted by name.

    If every image is in a sub-folder, the sub-folders are the labels. Grey images give (N, H, W), colour images
    (N, 3, H, W), a mixture of both (N, 3, H, W); transparency is dropped.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        inner = [path for entry in entries if entry.is_dir() for path in sorted(entry.iterdir())]
        paths = [path for path in [*entries, *inner] if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
        others = [entry.name for entry in entries]
    except OSError as error:
        raise _broken(folder, error, "a readable folder of images", "check its permissions") from None
    if not paths:
        found = f"{', '.join(others[:3])}, ..." if len(others) > 3 else ", ".join(others) or "nothing"
        raise DataError(f"{folder}: got a folder with {found}, expected images ({' '.join(IMAGE_SUFFIXES)})")
    images = [_read_image(paths[0])]
    first = images[0].shape[-2:]
    for path in paths[1:]:
        image = _read_image(path)
        if image.shape[-2:] != first:
            raise DataError(
                f"{path}: got an image of {image.shape[-1]} x {image.shape[-2]} pixels, expected "
                f"{first[1]} x {first[0]} as {paths[0].name}; resize all images to one size"
            )
        images.append(image)
    if len({image.dtype for image in images}) > 1:
        images = [image if image.dtype != bool else image.astype(np.uint8) * 255 for image in images]
    if len({image.ndim for image in images}) > 1:
        images = [image if image.ndim == 3 else np.repeat(image[None], 3, axis=0) for image in images]
    y = None
    if all(path.parent != folder for path in paths):
        y = np.unique([path.parent.name for path in paths], return_inverse=True)[1]
    return Raw(np.stack(images), y)


def read_file(path: Path) -> Raw:
    """A folder of images, an .npz or an .npy file."""
    if path.is_dir():
        return read_folder(path)
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".npy":
        try:
            return Raw(np.load(path, allow_pickle=False))
        except BROKEN as error:
            raise _broken(path, error, "an .npy file of numbers", "write it again with numpy.save") from None
    raise DataError(
        f"{path}: got a file ending in {path.suffix or 'nothing'}, expected .npz, .npy or a folder of images"
    )


def read_array(source: Any) -> np.ndarray:
    """The numpy array of a tensor, an array or any object with `__array__` (a data frame, a PIL image)."""
    if isinstance(source, torch.Tensor):
        dense = source.detach().cpu()
        if dense.layout != torch.strided or dense.is_quantized:
            raise DataError(f"got a tensor of layout {dense.layout}, expected a dense one; call to_dense() first")
        return (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
    return np.asarray(source)


def read_dataset(dataset: torch.utils.data.Dataset[Any]) -> Raw:
    """All points of a torch Dataset of x or (x, label) items; further elements of an item are ignored."""
    if isinstance(dataset, torch.utils.data.TensorDataset):
        tensors = dataset.tensors
        return Raw(read_array(tensors[0]), read_array(tensors[1]) if len(tensors) > 1 else None)
    if isinstance(dataset, torch.utils.data.IterableDataset):
        items = list(dataset)
    elif hasattr(dataset, "__len__"):
        items = [dataset[index] for index in range(len(dataset))]
    else:
        raise DataError(f"got a {type(dataset).__name__} without a length, expected a Dataset with __len__")
    if not items:
        raise DataError(f"got an empty {type(dataset).__name__}, expected points; check how it was built")
    pairs = [tuple(item) if isinstance(item, tuple | list) else (item,) for item in items]
    try:
        points = [read_array(pair[0]) for pair in pairs]
        labels = [read_array(pair[1]) for pair in pairs if len(pair) > 1]
    except (TypeError, IndexError, ValueError) as error:
        raise DataError(
            f"got a {type(dataset).__name__} of {type(items[0]).__name__} items ({error}), expected x or (x, label)"
        ) from None
    shapes = sorted({point.shape for point in points}, key=str)
    if len(shapes) > 1:
        raise DataError(
            f"got points of shapes {shapes[0]} and {shapes[1]}, expected one shape; crop, pad or resize them"
        )
    if labels and (len(labels) != len(points) or len({label.shape for label in labels}) > 1):
        raise DataError(f"got labels for {len(labels)} of {len(points)} points or of several shapes, expected one each")
    return Raw(np.stack(points), np.stack(labels) if labels else None)

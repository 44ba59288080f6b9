"""The named data sets: files, checksums, mirrors, licences, splits, and a reader for each.

To add one: write a reader from its paths to a `Raw` and add an entry to DATASETS.
Not here: where files are searched for (`downloads`), the meaning of values (`supports`), what models see (`datasets`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autovae.data.downloads import File, fetch, locate
from autovae.data.errors import DataError
from autovae.data.sources import Raw, arrays_of, official_split, read_amat, read_idx_set, read_mat

__all__ = ["DATASETS", "Named", "catalogue", "read_named"]


@dataclass(frozen=True)
class Named:
    """A named data set. `files` lists equivalent sets of files, the preferred one first."""

    name: str
    shape: tuple[int, ...]
    points: tuple[int, int, int]  # training, validation, test
    support: str
    levels: int
    licence: str
    origin: str
    split: str
    read: Callable[[list[Path]], Raw]
    files: tuple[tuple[File, ...], ...] = ()
    folder: str = ""  # the folder under --data, if it is not the name
    dynamic: bool = False  # dynamic binarisation: training bits are drawn from the grey levels at every use

    @property
    def place(self) -> str:
        return self.folder or self.name


def read_named(entry: Named, data_dir: str | Path | None = None) -> Raw:
    """The raw arrays of a named data set, from the first equivalent set of files that is present, else by download."""
    options = entry.files or ((),)
    present = [option for option in options if all(locate(file, entry.place, data_dir) for file in option)]
    offered = [option for option in options if all(file.urls for file in option)]
    chosen = next(iter([*present, *offered, *options]))
    return entry.read([fetch(file, entry.place, data_dir) for file in chosen])


def catalogue(data_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """One row per data set: name, shape, points, support, levels, licence, origin, split, present, where."""
    rows = []
    for entry in DATASETS.values():
        where = [[locate(file, entry.place, data_dir) for file in option] for option in entry.files]
        complete = next(([path for path in option if path] for option in where if all(option)), None)
        rows.append(
            {
                "name": entry.name,
                "shape": entry.shape,
                "points": entry.points,
                "support": entry.support,
                "levels": entry.levels,
                "licence": entry.licence,
                "origin": entry.origin,
                "split": entry.split,
                "present": not entry.files or complete is not None,
                "where": "built in" if not entry.files else str(complete[0].parent) if complete else "",
                "downloadable": any(all(file.urls for file in option) for option in entry.files),
            }
        )
    return rows


def _digits(_: list[Path]) -> Raw:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Raw(digits.images.astype(np.uint8), digits.target, levels=17)


def _member(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"{path}: got arrays named {', '.join(arrays)}, expected {name}; replace the file")
    return arrays[name]


def _idx(paths: list[Path]) -> Raw:
    train_images, train_labels, test_images, test_labels = paths
    return read_idx_set(train_images, train_labels, test_images, test_labels)


LONG_TAIL = tuple(int(4500 * 100 ** (-rank / 9)) for rank in range(10))  # 4,500 zeros down to 45 nines


def _idx_long_tailed(paths: list[Path]) -> Raw:
    """The first LONG_TAIL[c] of the 50,000 training images of each class c."""
    raw = _idx(paths)
    x, y, split = np.asarray(raw.x), np.asarray(raw.y), np.asarray(raw.split)
    held_out = np.flatnonzero(split > 0)
    kept = [np.flatnonzero((split == 0) & (y == digit))[:count] for digit, count in enumerate(LONG_TAIL)]
    rows = np.sort(np.concatenate([*kept, held_out]))
    return Raw(x[rows], y[rows], split=split[rows])


def _kmnist_partial(paths: list[Path]) -> Raw:
    arrays = arrays_of(paths[0])
    x_train, y_train, x_test, y_test = (
        _member(arrays, n, paths[0]) for n in ("x_train", "y_train", "x_test", "y_test")
    )
    return Raw(
        np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test]), split=official_split(6000, 1011, 10_000)
    )


def _binarized_mnist(paths: list[Path]) -> Raw:
    if paths[0].suffix == ".npz":
        arrays = arrays_of(paths[0])
        parts = [_member(arrays, name, paths[0]) for name in ("train", "valid", "test")]
    else:
        parts = [read_amat(path, 784) for path in paths]
    return Raw(np.concatenate(parts).reshape(-1, 28, 28), levels=2, split=official_split(*map(len, parts)))


def _caltech(paths: list[Path]) -> Raw:
    arrays = read_mat(paths[0])
    x = [_member(arrays, f"{part}_data", paths[0]) for part in ("train", "val", "test")]
    y = [_member(arrays, f"{part}_labels", paths[0]).reshape(-1) for part in ("train", "val", "test")]
    images = np.concatenate(x).reshape(-1, 28, 28).transpose(0, 2, 1)  # MATLAB stores columns first
    return Raw(images, np.concatenate(y), levels=2, split=official_split(*map(len, x)))


def _freyface(paths: list[Path]) -> Raw:
    return Raw(_member(arrays_of(paths[0]), "images", paths[0]), split=official_split(1565, 200, 200))


def _cifar10_partial(paths: list[Path]) -> Raw:
    train, test = arrays_of(paths[0]), arrays_of(paths[1])
    x = np.concatenate([_member(train, "images", paths[0]), _member(test, "images", paths[1])])
    y = np.concatenate([_member(train, "labels", paths[0]), _member(test, "labels", paths[1])])
    return Raw(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y, split=official_split(18_000, 2000, 1000))


IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx_files(mirrors: tuple[str, ...], *hashes: str) -> tuple[tuple[File, ...], ...]:
    return (
        tuple(
            File(name, sha256, tuple(mirror + name for mirror in mirrors))
            for name, sha256 in zip(IDX_NAMES, hashes, strict=True)
        ),
    )


MNIST_SPLIT = "official test set (10,000); validation = the last 10,000 of the 60,000 training images"
LAROCHELLE = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"

MNIST_FILES = _idx_files(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
)

_ENTRIES = (
    Named(
        "digits",
        (8, 8),
        (1259, 269, 269),
        "unit",
        17,
        "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        "scikit-learn",
        "70/15/15 by a fixed permutation (seed 0); scikit-learn states no official split",
        _digits,
    ),
    Named(
        "mnist",
        (28, 28),
        (50_000, 10_000, 10_000),
        "unit",
        256,
        "not stated by the authors; commonly CC BY-SA 3.0",
        "LeCun, Cortes, Burges",
        MNIST_SPLIT,
        _idx,
        MNIST_FILES,
    ),
    Named(
        "mnist_dynamic",
        (28, 28),
        (50_000, 10_000, 10_000),
        "binary",
        2,
        "not stated by the authors; commonly CC BY-SA 3.0",
        "LeCun, Cortes, Burges; binarised here",
        f"{MNIST_SPLIT}; training bits are redrawn from the grey levels at every use, validation and test bits once",
        _idx,
        MNIST_FILES,
        folder="mnist",
        dynamic=True,
    ),
    Named(
        "mnist_long_tailed",
        (28, 28),
        (sum(LONG_TAIL), 10_000, 10_000),
        "unit",
        256,
        "not stated by the authors; commonly CC BY-SA 3.0",
        "LeCun, Cortes, Burges; thinned here",
        f"training classes thinned from {LONG_TAIL[0]:,} zeros to {LONG_TAIL[-1]} nines (each class 100^(1/9) times "
        "rarer than the one before); validation and test as in mnist, all classes alike",
        _idx_long_tailed,
        MNIST_FILES,
        folder="mnist",
    ),
    Named(
        "fashion_mnist",
        (28, 28),
        (50_000, 10_000, 10_000),
        "unit",
        256,
        "MIT (Zalando SE)",
        "Xiao, Rasul, Vollgraf",
        MNIST_SPLIT,
        _idx,
        _idx_files(
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    Named(
        "kmnist",
        (28, 28),
        (50_000, 10_000, 10_000),
        "unit",
        256,
        "CC BY-SA 4.0 (CODH, doi:10.20676/00000341)",
        "Clanuwat et al.",
        MNIST_SPLIT,
        _idx,
        _idx_files(
            ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "https://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
    Named(
        "kmnist_partial",
        (28, 28),
        (6000, 1011, 10_000),
        "unit",
        256,
        "CC BY-SA 4.0 (CODH, doi:10.20676/00000341)",
        "the first 7,011 of the 60,000 training images, all test images",
        "PARTIAL training set: 7,011 of 60,000; official test set (10,000); validation = the last 1,011 training "
        "images",
        _kmnist_partial,
        ((File("kmnist_partial.npz", "7086ee228697e1ba92ee3f5853174091ef3c219f4b5bdd76a42a7d4d42d80cd8"),),),
        folder="kmnist",
    ),
    Named(
        "binarized_mnist",
        (28, 28),
        (50_000, 10_000, 10_000),
        "binary",
        2,
        "not stated; derived from MNIST",
        "Larochelle and Murray: one fixed binary draw of MNIST",
        "official training, validation and test sets (50,000, 10,000, 10,000)",
        _binarized_mnist,
        (
            (
                File(
                    "binarized_mnist_larochelle.npz", "7a049ae3a0d88e964af4b41bbdb14e4303595e1c5de65f8bd2455cdcebb3514b"
                ),
            ),
            tuple(
                File(f"binarized_mnist_{part}.amat", sha256, (f"{LAROCHELLE}binarized_mnist_{part}.amat",))
                for part, sha256 in (
                    ("train", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
                    ("valid", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
                    ("test", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
                )
            ),
        ),
    ),
    Named(
        "caltech101_silhouettes",
        (28, 28),
        (4100, 2264, 2307),
        "binary",
        2,
        "not stated",
        "Marlin et al.",
        "official training, validation and test sets of split 1 (4,100, 2,264, 2,307); as in the file, 0 is the object "
        "and 1 the background (some published code uses 1 - x)",
        _caltech,
        (
            (
                File(
                    "caltech101_silhouettes_28_split1.mat",
                    "eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
                    ("https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",),
                ),
            ),
        ),
    ),
    Named(
        "freyface",
        (28, 20),
        (1565, 200, 200),
        "unit",
        256,
        "not stated",
        "Roweis: 1,965 frames of one video",
        "in the order of the video, so that near-duplicate neighbours do not leak: the first 1,565 frames train, the "
        "next 200 validate, the last 200 test (published code shuffles first, which is easier)",
        _freyface,
        ((File("freyface.npz", "3c70375e0a9c4751ad49ad5f1f692bd094c46f133cf4aa8ea77d1cb14e1efcd1"),),),
    ),
    Named(
        "cifar10_partial",
        (3, 32, 32),
        (18_000, 2000, 1000),
        "unit",
        256,
        "none stated (Krizhevsky 2009)",
        "the first 20,000 training and the first 1,000 test images of CIFAR-10",
        "PARTIAL: a 20,000-image subset; validation = the last 2,000 of the first 20,000 training images, test = the "
        "first 1,000 test images",
        _cifar10_partial,
        (
            (
                File(
                    "cifar10_train_first20000.npz", "736bbd2509c4fcd0aa670e56f26c00c024cf027df65694db7b5097bba4fef9f4"
                ),
                File("cifar10_test_first1000.npz", "add2c12ac40f65c1e4e90bb47cdfdb2b25e69cdadc2218fe330b8319fba9f31f"),
            ),
        ),
        folder="cifar10",
    ),
)

DATASETS: dict[str, Named] = {entry.name: entry for entry in _ENTRIES}

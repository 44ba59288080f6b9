"""Readers of named sets on small files made here, for what the real files alone cannot show."""

import numpy as np
import pytest
from scipy.io import savemat

from autovae.data.catalogue import DATASETS, catalogue
from autovae.data.errors import DataError

RNG = np.random.default_rng(5)


def test_caltech_columns_become_rows(tmp_path):
    images = RNG.integers(0, 2, (9, 28, 28), dtype=np.uint8)
    rows = np.stack([image.flatten(order="F") for image in images])  # as MATLAB stores them
    labels = np.arange(9).reshape(-1, 1)
    parts = {"train": slice(0, 4), "val": slice(4, 6), "test": slice(6, 9)}
    data = {f"{part}_data": rows[where] for part, where in parts.items()}
    savemat(tmp_path / "a.mat", data | {f"{part}_labels": labels[where] for part, where in parts.items()})
    raw = DATASETS["caltech101_silhouettes"].read([tmp_path / "a.mat"])
    np.testing.assert_array_equal(raw.x, images)
    np.testing.assert_array_equal(raw.y, labels[:, 0])
    np.testing.assert_array_equal(raw.split, [0] * 4 + [1] * 2 + [2] * 3)


def test_binarised_mnist_is_the_same_from_either_form(tmp_path):
    parts = {
        part: RNG.integers(0, 2, (n, 784), dtype=np.uint8) for part, n in (("train", 4), ("valid", 2), ("test", 3))
    }
    np.savez(tmp_path / "a.npz", **parts)
    paths = [tmp_path / f"{part}.amat" for part in parts]
    for path, rows in zip(paths, parts.values(), strict=True):
        path.write_text("".join(" ".join(map(str, row)) + " \n"[1:] for row in rows))
    first, second = (DATASETS["binarized_mnist"].read(files) for files in ([tmp_path / "a.npz"], paths))
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.split, second.split)


def test_cifar_comes_channels_first(tmp_path):
    images = RNG.integers(0, 256, (21_000, 1, 2, 3), dtype=np.uint8)
    for name, where in (("a.npz", slice(0, 20_000)), ("b.npz", slice(20_000, None))):
        np.savez(tmp_path / name, images=images[where], labels=images[where, 0, 0, 0])
    raw = DATASETS["cifar10_partial"].read([tmp_path / "a.npz", tmp_path / "b.npz"])
    np.testing.assert_array_equal(raw.x, images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(raw.y, images[:, 0, 0, 0])


def test_a_named_file_without_its_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    for name in ("kmnist_partial", "binarized_mnist", "freyface"):
        with pytest.raises(DataError, match=r"a\.npz: got arrays named x, expected"):
            DATASETS[name].read([tmp_path / "a.npz"])


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_states_what_a_user_asks(name):
    entry = DATASETS[name]
    assert entry.support in ("binary", "unit")
    assert entry.licence
    assert entry.origin
    assert entry.split
    for option in entry.files:
        for file in option:
            assert len(file.sha256) == 64
            assert all(url.endswith(file.name) for url in file.urls)


def test_the_catalogue_finds_files_without_reading_them(tmp_path):
    (tmp_path / "freyface").mkdir()
    (tmp_path / "freyface" / "freyface.npz").write_bytes(b"anything")
    row = next(row for row in catalogue(tmp_path) if row["name"] == "freyface")
    assert (row["present"], row["where"], row["downloadable"]) == (True, str(tmp_path / "freyface"), False)

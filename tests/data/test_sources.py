"""Readers: what is in the file comes back; what is broken is refused in one line."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from autovae.data.datasets import load
from autovae.data.errors import DataError
from autovae.data.sources import read_amat, read_dataset, read_folder, read_idx, read_idx_set, read_mat, read_npz

RNG = np.random.default_rng(0)


def write_idx(path, array):
    content = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content))
    return path


@pytest.fixture
def idx_set(tmp_path):
    arrays = [RNG.integers(0, 256, shape) for shape in ((30, 4, 4), (30,), (8, 4, 4), (8,))]
    paths = [write_idx(tmp_path / f"{name}.gz", a) for name, a in zip("abcd", arrays, strict=True)]
    return paths, arrays


def test_small_idx_files_come_back_with_their_split(idx_set):
    paths, (x_train, y_train, x_test, y_test) = idx_set
    raw = read_idx_set(*paths, counts=(30, 8), validation=10)
    np.testing.assert_array_equal(raw.x, np.concatenate([x_train, x_test]))
    np.testing.assert_array_equal(raw.y, np.concatenate([y_train, y_test]))
    np.testing.assert_array_equal(raw.split, [0] * 20 + [1] * 10 + [2] * 8)


def test_official_counts_are_expected_unless_relaxed(idx_set):
    with pytest.raises(DataError, match="got 30 images and 30 labels, expected 60000"):
        read_idx_set(*idx_set[0])
    assert len(read_idx_set(*idx_set[0], counts=None, validation=10).x) == 38


def test_labels_of_another_count_are_refused(idx_set, tmp_path):
    paths, _ = idx_set
    paths[1] = write_idx(tmp_path / "short.gz", np.zeros(29))
    with pytest.raises(DataError, match="30 images and 29 labels"):
        read_idx_set(*paths, counts=None, validation=10)


def damaged(kind, path):
    whole = path.read_bytes()
    if kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "altered":
        path.write_bytes(whole[:40] + bytes(255 - b for b in whole[40:60]) + whole[60:])
    elif kind == "text":
        path.write_text("these are not numbers\n" * 5)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    return path


@pytest.mark.parametrize("kind", ["cut", "altered", "text", "empty", "gone"])
def test_damaged_idx_is_refused(kind, tmp_path):
    path = damaged(kind, write_idx(tmp_path / "x.gz", RNG.integers(0, 256, (20, 5, 5))))
    with pytest.raises(DataError, match=r"x\.gz") as caught:
        read_idx(path, 3)
    assert "\n" not in str(caught.value)


def test_idx_of_another_kind_or_size_is_refused(tmp_path):
    with pytest.raises(DataError, match="magic number"):
        read_idx(write_idx(tmp_path / "labels.gz", np.zeros(5)), 3)
    path = tmp_path / "lying"
    path.write_bytes(struct.pack(">4I", 0x803, 10, 2, 2) + bytes(39))
    with pytest.raises(DataError, match="got 39 bytes of values, expected 40"):
        read_idx(path, 3)


@pytest.mark.parametrize("kind", ["cut", "altered", "text", "empty"])
def test_damaged_npz_is_refused(kind, tmp_path):
    path = tmp_path / "my.npz"
    np.savez_compressed(path, x=RNG.normal(size=(20, 5)))
    damaged(kind, path)
    with pytest.raises(DataError, match=r"my\.npz: cannot be read .*expected an \.npz file") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}, [1, 2]] * 5, dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "objects.npz")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}, [1, 2]] * 5, dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "objects.npy")


def test_npz_without_x_names_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(DataError, match="got arrays named images, labels, expected one named x"):
        read_npz(tmp_path / "a.npz")


def test_npz_says_what_it_did_not_use(tmp_path):
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(20, 3)), classes=np.array(["a", "b"]))
    assert "not used from the file: classes" in load(tmp_path / "a.npz").note


def test_single_array_named_npz_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 2)))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"rename the file to \.npy"):
        load(tmp_path / "a.npz")


def test_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"ending in \.csv, expected \.npz"):
        load(tmp_path / "a.csv")


def test_amat_text(tmp_path):
    rows = RNG.integers(0, 2, (6, 9))
    path = tmp_path / "rows.amat"
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    np.testing.assert_array_equal(read_amat(path, 9), rows)
    path.write_text("0 1 2 ")
    with pytest.raises(DataError, match="digits 0 or 1"):
        read_amat(path, 3)
    with pytest.raises(DataError, match="rows of 7 digits"):
        read_amat(path, 7)


def test_broken_mat_is_refused(tmp_path):
    (tmp_path / "a.mat").write_text("no matlab file, only words that go on for a while" * 10)
    with pytest.raises(DataError, match="expected a MATLAB file"):
        read_mat(tmp_path / "a.mat")


def save_images(folder, arrays, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for k, array in enumerate(arrays):
        Image.fromarray(array).save(folder / (names[k] if names else f"{k:03}.png"))


def test_folder_of_grey_images_comes_back(tmp_path):
    images = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
    save_images(tmp_path / "grey", images)
    (tmp_path / "grey" / "notes.txt").write_text("not an image")
    np.testing.assert_array_equal(read_folder(tmp_path / "grey").x, images)
    data = load(tmp_path / "grey")
    assert (data.name, data.shape, data.support, data.levels) == ("grey", (6, 5), "unit", 256)


def test_colour_comes_channels_first_and_grey_joins_it(tmp_path):
    colour = RNG.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    save_images(tmp_path, [*colour, np.full((6, 5), 7, np.uint8)])
    x = read_folder(tmp_path).x
    np.testing.assert_array_equal(x[:2], colour.transpose(0, 3, 1, 2))
    assert x.shape == (3, 3, 6, 5)
    assert (x[2] == 7).all()


def test_subfolders_are_labels_and_one_bit_images_are_binary(tmp_path):
    save_images(tmp_path / "cat", RNG.integers(0, 2, (5, 4, 4)).astype(bool))
    save_images(tmp_path / "ant", RNG.integers(0, 2, (4, 4, 4)).astype(bool))
    raw = read_folder(tmp_path)
    np.testing.assert_array_equal(raw.y, [0] * 4 + [1] * 5)
    assert load(tmp_path).support == "binary"


def test_only_one_level_of_folders_is_read(tmp_path):
    save_images(tmp_path, RNG.integers(0, 256, (3, 4, 4), dtype=np.uint8))
    save_images(tmp_path / "more" / "deep", RNG.integers(0, 256, (2, 9, 9), dtype=np.uint8))
    save_images(tmp_path / ".hidden", RNG.integers(0, 256, (2, 9, 9), dtype=np.uint8))
    assert read_folder(tmp_path).x.shape == (3, 4, 4)


def test_palettes_and_transparency_become_colours(tmp_path):
    colour = RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    Image.fromarray(colour, "RGBA").save(tmp_path / "a.png")
    palette = Image.fromarray(colour[..., :3], "RGB").quantize(16)
    palette.save(tmp_path / "b.png", transparency=bytes(range(16)))
    x = read_folder(tmp_path).x
    np.testing.assert_array_equal(x[0], colour[..., :3].transpose(2, 0, 1))
    np.testing.assert_array_equal(x[1], np.asarray(palette.convert("RGB")).transpose(2, 0, 1))


def test_images_of_two_sizes_are_refused(tmp_path):
    save_images(tmp_path, [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)])
    with pytest.raises(DataError, match=r"001\.png: got an image of 5 x 4 pixels, expected 4 x 4 as 000\.png"):
        load(tmp_path)


def test_broken_empty_and_deep_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="got a folder with nothing, expected images"):
        load(tmp_path)
    save_images(tmp_path, [RNG.integers(0, 256, (40, 40), dtype=np.uint8)])
    path = tmp_path / "000.png"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match=r"000\.png: cannot be read"):
        load(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    with pytest.raises(DataError, match="expected 8 bits per channel"):
        load(tmp_path)


class Pairs(torch.utils.data.Dataset):
    def __init__(self, points, labels=None):
        self.points, self.labels = points, labels

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index] if self.labels is None else (self.points[index], self.labels[index])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(torch.arange(20.0).reshape(10, 2))


def test_datasets_give_points_and_labels():
    x, y = torch.randn(10, 3), torch.arange(10)
    for dataset in (Pairs(x, y), torch.utils.data.TensorDataset(x, y), torch.utils.data.Subset(Pairs(x, y), range(10))):
        raw = read_dataset(dataset)
        np.testing.assert_array_equal(raw.x, x)
        np.testing.assert_array_equal(raw.y, y)
    assert read_dataset(Pairs(x)).y is None
    assert read_dataset(Pairs(x, [3] * 10)).y.tolist() == [3] * 10
    assert read_dataset(Stream()).x.shape == (10, 2)


def test_unusable_datasets_are_refused():
    with pytest.raises(DataError, match="shapes"):
        read_dataset(Pairs([torch.zeros(2), torch.zeros(3)]))
    with pytest.raises(DataError, match="empty"):
        read_dataset(Pairs([]))
    with pytest.raises(DataError, match="of several shapes"):
        read_dataset(Pairs(torch.zeros(2, 2), [torch.zeros(1), torch.zeros(2)]))
    with pytest.raises(DataError, match="values of <U1 in x"):
        load(Pairs(["a"] * 10))

"""load: names, splits, digests; and the real files where they are at hand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autovae.data.catalogue import DATASETS, catalogue
from autovae.data.datasets import DataError, load

RNG = np.random.default_rng(2)
GREY = RNG.integers(0, 256, (100, 3, 2), dtype=np.uint8)
FOLDER = Path(os.environ.get("AUTOVAE_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data").resolve()
PRESENT = {row["name"] for row in catalogue(FOLDER) if row["present"]} if FOLDER.is_dir() else {"digits"}


def real(name):
    if name not in PRESENT:
        pytest.skip(f"the files of {name} are not in {FOLDER} (set AUTOVAE_DATA)")
    return load(name, data_dir=FOLDER)


@pytest.fixture
def no_mirrors(tmp_path, monkeypatch):
    """No cache, no variable, no network."""
    import autovae.data.downloads as downloads

    monkeypatch.delenv("AUTOVAE_DATA", raising=False)
    monkeypatch.setattr(downloads, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(downloads, "TIMEOUT", 1.0)


@pytest.mark.parametrize("name", DATASETS)
def test_named_sets_are_as_the_catalogue_says(name):
    data, entry = real(name), DATASETS[name]
    assert (data.name, data.shape, data.points, data.support, data.levels) == (
        *(entry.name, entry.shape, entry.points, entry.support, entry.levels),
    )
    assert data.note == entry.split
    for part in (data.train, data.validation, data.test):
        assert part.x.dtype == torch.uint8
        assert part.x.max() == (part.grey or data.levels) - 1 or data.name == "freyface"
        assert part.y is None or len(part.y) == len(part)


def test_mnist_validation_is_the_end_of_the_training_set():
    data = real("mnist")
    assert torch.bincount(data.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    both = torch.bincount(torch.cat([data.train.y, data.validation.y]))
    assert both.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert abs((data.train.x == 0).double().mean() - 0.81) < 0.01


def test_caltech_is_upright_with_dark_objects():
    x = real("caltech101_silhouettes").train.x.double()
    assert x[:, 10:18, 10:18].mean() < 0.2
    assert x[:, 0].mean() > 0.9


def test_digits_need_no_file(no_mirrors):
    data = load("digits")
    assert data.points == DATASETS["digits"].points
    assert (data.shape, data.levels, data.dim) == ((8, 8), 17, 64)
    assert data.digest == load("digits", seed=5).digest
    # Contents and split never change, on any machine: published results name this digest.
    assert data.digest == "af5013454ddb13e508d79afa72d78aab41f82948b900c3d6e980da59b607b815"


def test_a_named_file_that_is_cut_short_is_refused(no_mirrors, tmp_path):
    source = FOLDER / "mnist" / "t10k-labels-idx1-ubyte.gz"
    if "mnist" not in PRESENT:
        pytest.skip(f"the files of mnist are not in {FOLDER} (set AUTOVAE_DATA)")
    for file in DATASETS["mnist"].files[0]:
        (tmp_path / file.name).write_bytes(source.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: got sha256 .* of mnist; the file is truncated"):
        load("mnist", data_dir=tmp_path)


def test_split_is_a_partition_and_follows_the_seed():
    x = np.arange(200, dtype=np.int64)
    parts = [load(x, levels=200, seed=seed) for seed in (0, 0, 1)]
    rows = [torch.cat([p.train.x, p.validation.x, p.test.x]).flatten().tolist() for p in parts]
    assert sorted(rows[0]) == x.tolist()
    assert rows[0] == rows[1] != rows[2]
    assert parts[0].points == (140, 30, 30)
    assert [p.digest == parts[0].digest for p in parts] == [True, True, False]


@pytest.mark.parametrize("count", range(7, 60))
def test_no_split_is_empty(count):
    points = load(RNG.normal(size=(count, 2))).points
    assert min(points) >= 1
    assert sum(points) == count


def test_labels_stay_with_their_points():
    data = load(GREY, y=GREY[:, 0, 0].astype(int))
    for part in (data.train, data.validation, data.test):
        assert torch.equal(part.x[:, 0, 0].long(), part.y)
    assert load(GREY, y=np.linspace(0, 1, 100)).train.y.dtype == torch.float32


def test_one_array_however_handed_over_has_one_digest(tmp_path):
    np.savez(tmp_path / "my.npz", x=GREY)
    np.save(tmp_path / "my.npy", GREY)
    held = torch.utils.data.TensorDataset(torch.from_numpy(GREY))
    sources = [GREY, torch.from_numpy(GREY), held, tmp_path / "my.npz", str(tmp_path / "my.npy"), load(GREY)]
    assert len({load(source).digest for source in sources}) == 1


def test_digest_sees_every_change():
    y, mask = np.zeros(100), np.ones(GREY.shape)
    changed = GREY.copy()
    changed[50, 0, 0] ^= 1
    variants = [load(GREY), load(changed), load(GREY, y=y), load(GREY, mask=mask), load(GREY, seed=1)]
    variants += [load(GREY, levels=300), load(GREY, support="real"), load(GREY.reshape(100, 6))]
    assert len({data.digest for data in variants}) == len(variants)


def test_loading_does_not_touch_the_source():
    x = RNG.normal(size=(20, 3))
    before = x.copy()
    data = load(x)
    data.train.x.zero_()
    np.testing.assert_array_equal(x, before)
    levels = GREY.copy()
    load(levels).train.x.zero_()
    np.testing.assert_array_equal(levels, GREY)


def test_loaded_data_pass_through_unchanged():
    data = load(GREY)
    assert load(data) is data
    with pytest.raises(DataError, match="got levels with a loaded Data"):
        load(data, levels=4)


def test_npz_tells_all_it_knows(tmp_path):
    x = RNG.integers(0, 5, (30, 4, 2))
    length, y = RNG.integers(1, 5, 30), np.arange(30)
    np.savez(tmp_path / "all.npz", x=x, y=y, levels=5, length=length, mask=np.ones_like(x), support="unit")
    data = load(tmp_path / "all.npz")
    assert (data.name, data.levels, data.support) == ("all", 5, "unit")
    assert data.train.mask is not None
    assert torch.equal(data.train.length, torch.from_numpy(length)[data.train.y])


def test_describe_is_one_line_and_says_the_split():
    for data in (load(GREY), load(GREY / 255), load(RNG.normal(size=(20, 2))), load(GREY > 9)):
        assert "\n" not in data.describe()
        assert "split 70/15/15 by a permutation of seed 0" in data.describe()
    assert "floats rounded" in load(GREY / 255).describe()


def test_flat_take_and_to():
    data = load(GREY, mask=np.ones(GREY.shape)).to("cpu")
    assert data.train.flat.shape == (70, 6)
    assert data.train.flat_mask.shape == (70, 6)
    assert torch.equal(data.train.take(torch.tensor([3, 1])).x, data.train.x[[3, 1]])
    assert load(RNG.normal(size=30)).shape == (1,)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("minst", "unknown data set 'minst': did you mean 'mnist'"),
        ("", "no such file|unknown data set"),
        ("no/such/file.npz", "no/such/file.npz: no such file or folder"),
        ("x" * 5000, "cannot be read|unknown data set"),
        ("a\0b", "unknown data set|no such file"),
        (Path("nowhere"), "nowhere: no such file"),
    ],
)
def test_unknown_names_and_paths(source, message):
    with pytest.raises(DataError, match=message):
        load(source)


def test_settings_are_refused_for_named_sets():
    with pytest.raises(DataError, match="levels with the named data set digits"):
        load("digits", levels=5)


def test_missing_files_are_one_clear_line(no_mirrors, tmp_path):
    for name in ("freyface", "kmnist_partial", "cifar10_partial"):
        with pytest.raises(DataError, match=r"no download; pass .* with --data") as caught:
            load(name, data_dir=tmp_path)
        assert "\n" not in str(caught.value)


def test_data_modules_import_no_heavy_packages():
    heavy = "{'pandas', 'optuna', 'pydantic', 'sklearn', 'pooch', 'PIL', 'scipy'}"
    code = f"import sys, autovae.data.batches; print({heavy} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"

"""Values and their meaning: what is found, what is stored, what is refused."""

import numpy as np
import pytest
import torch

from autovae.data.datasets import DataError, load

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, (40, 6), dtype=np.uint8)
REAL = RNG.normal(3, 5, (40, 6))


@pytest.mark.parametrize(
    ("x", "told", "support", "levels", "rounded"),
    [
        (GREY > 99, {}, "binary", 2, False),
        ((GREY > 99).astype(np.int64), {}, "binary", 2, False),
        ((GREY > 99).astype(np.float32), {}, "binary", 2, False),
        (GREY, {}, "unit", 256, False),
        (GREY // 16, {"levels": 16}, "unit", 16, False),
        ((GREY // 15).astype(float), {"levels": 18}, "unit", 18, False),
        (GREY.astype(np.int64), {"levels": 1000}, "unit", 1000, False),
        (GREY / 255, {}, "unit", 256, True),
        (GREY / 255, {"levels": 16}, "unit", 16, False),
        (GREY / 255, {"support": "real"}, "real", 256, False),
        (GREY, {"support": "real"}, "real", 256, False),
        (GREY.astype(np.int32), {"support": "unit"}, "unit", 256, False),
        (REAL, {}, "real", 256, False),
        (torch.tensor(REAL, dtype=torch.bfloat16), {}, "real", 256, False),
        (torch.tensor(REAL, requires_grad=True), {}, "real", 256, False),
    ],
)
def test_support_and_levels(x, told, support, levels, rounded):
    data = load(x, **told)
    assert (data.support, data.levels, data.rounded) == (support, levels, rounded)
    expected = {"real": torch.float32}.get(support, torch.uint8 if levels <= 256 else torch.int16)
    assert data.train.x.dtype == expected
    assert (data.low, data.high) == (0, 1) or support == "real"


def everything(data):
    """All stored rows, sorted, so that the split does not matter."""
    rows = torch.cat([data.train.x, data.validation.x, data.test.x]).tolist()
    return sorted(rows)


@pytest.mark.parametrize("floats", [GREY / 255, (GREY + 0.5) / 256, GREY / 256, (GREY / 255).astype(np.float32)])
def test_floats_of_grey_images_come_back_as_their_levels(floats):
    assert everything(load(floats)) == sorted(GREY.tolist())


def test_levels_that_are_wrong_everywhere_are_refused():
    for levels in (1, 0, -3, 2.5, 10**6, float("nan"), True):
        with pytest.raises(DataError, match="got levels"):
            load(GREY, levels=levels)


def test_real_data_are_standardised_on_training_rows_and_undone():
    data = load(REAL, seed=3)
    x = data.train.x.double()
    torch.testing.assert_close(x.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(6, dtype=torch.float64), atol=1e-5, rtol=0)
    assert (data.low, data.high) == (data.train.x.min().item(), data.train.x.max().item())
    undone = torch.cat([data.original_units(part.x) for part in (data.train, data.validation, data.test)])
    np.testing.assert_allclose(np.sort(undone.numpy(), axis=0), np.sort(REAL, axis=0), atol=1e-5)


def test_held_out_rows_do_not_move_the_mean(tmp_path):
    split = np.array([0] * 30 + [1] * 5 + [2] * 5)
    x = REAL.copy()
    x[30:] += 1000
    np.savez(tmp_path / "given.npz", x=x, split=split)
    data = load(tmp_path / "given.npz")
    assert data.points == (30, 5, 5)
    np.testing.assert_allclose(data.mean.numpy(), REAL[:30].mean(0), rtol=1e-5)


def test_constant_features_keep_their_scale():
    x = REAL.copy()
    x[:, 2], x[:, 4] = 7.0, 1e8 + RNG.normal(0, 1e-3, 40)
    data = load(x)
    assert data.scale[2] == 1
    assert data.scale[4] == 1
    assert (data.train.x[:, 2] == 0).all()
    assert data.train.x.abs().max() < 10


def test_unobserved_entries_count_nowhere():
    mask = RNG.random(REAL.shape) < 0.7
    hidden = np.where(mask, REAL, np.nan)
    data = load(hidden, mask=mask)
    assert (data.train.x[~data.train.mask] == 0).all()
    seen = load(np.where(mask, REAL, 1e9), mask=mask.astype(int))
    assert torch.equal(data.train.x, seen.train.x)
    assert data.digest == seen.digest
    counts = data.train.mask.sum(0)
    torch.testing.assert_close((data.train.x * data.train.mask).sum(0) / counts, torch.zeros(6), atol=1e-6, rtol=0)
    levels = load(np.where(mask, GREY.astype(int), -1), mask=mask, levels=256)
    assert (levels.train.x[~levels.train.mask] == 0).all()


def test_numpy_masks_are_kept():
    mask = RNG.random(REAL.shape) < 0.7
    masked = np.ma.masked_array(np.where(mask, REAL, np.nan), mask=~mask)
    assert load(masked).digest == load(REAL, mask=mask).digest


def test_lengths_become_a_mask():
    x, length = RNG.normal(size=(20, 5, 2)), RNG.integers(1, 6, 20)
    data = load(x, length=length)
    assert torch.equal(data.train.mask.sum((1, 2)), 2 * data.train.length)
    assert data.train.mask[:, 0].all()
    both = load(x, length=length, mask=np.zeros_like(x).astype(bool) | (np.arange(2) == 0))
    assert torch.equal(both.train.mask.sum((1, 2)), both.train.length)


def altered(index, value, x=REAL):
    x = x.copy()
    x[index] = value
    return x


BAD = {
    "nan": (altered((3, 2), np.nan), {}, "got 1 NaN and 0 infinite entries in x.*mask"),
    "inf": (altered((3, 2), -np.inf), {}, "got 0 NaN and 1 infinite"),
    "nan in unit": (altered((0, 0), np.nan, GREY / 255), {}, "1 NaN"),
    "nan seen by the mask": (altered((3, 2), np.nan), {"mask": np.ones_like(REAL)}, "1 NaN"),
    "empty": (np.zeros((0, 5)), {}, "empty x of shape"),
    "no entries": (np.zeros((50, 0)), {}, "empty x"),
    "one row": (REAL[:1], {}, "got 1 points in x, expected at least 7"),
    "zero-dimensional": (np.array(3.0), {}, "single value"),
    "objects": (np.array([[1], [2, 3]] * 8, dtype=object), {}, "objects .ragged or mixed rows. in x"),
    "text": (np.array(["a"] * 20), {}, "values of <U1"),
    "dates": (np.arange(20).astype("datetime64[D]"), {}, "datetime64"),
    "complex": (REAL + 1j, {}, "complex128"),
    "integers without levels": (GREY.astype(int) * 3, {}, "without levels.*give levels"),
    "level too high": (GREY, {"levels": 17}, r"expected 0\.\.16 for 17 levels"),
    "level negative": (GREY.astype(int) - 3, {"levels": 256}, r"expected 0\.\.255"),
    "fractional levels": (REAL, {"levels": 17}, "fractional values"),
    "fractional binary": (GREY / 255, {"support": "binary"}, "fractional values .* expected 0 and 1"),
    "grey as binary": (GREY, {"support": "binary"}, r"expected 0\.\.1"),
    "binary with levels": (GREY > 9, {"levels": 5}, "expected 2"),
    "real as unit": (REAL, {"support": "unit"}, "for unit support"),
    "unknown support": (REAL, {"support": "reel"}, "did you mean 'real'"),
    "all the same": (np.full((30, 2), 5.0), {}, "same values in every training row"),
    "too large": (RNG.normal(size=(30, 2)) * 1e300, {}, "too large"),
    "labels too short": (REAL, {"y": np.zeros(39)}, r"got y of shape \(39,\), expected \(40,\)"),
    "labels as text": (REAL, {"y": np.array(["a"] * 40)}, "encode the labels"),
    "labels nan": (REAL, {"y": np.full(40, np.nan)}, "y with NaN"),
    "mask shape": (REAL, {"mask": np.ones(40)}, r"mask of shape \(40,\), expected \(40, 6\)"),
    "mask values": (REAL, {"mask": np.full(REAL.shape, 2)}, "values other than 0 and 1"),
    "mask hides all": (REAL, {"mask": np.zeros(REAL.shape)}, "hides every entry"),
    "length too long": (REAL, {"length": np.full(40, 7)}, r"expected 0\.\.6"),
    "length fractional": (REAL, {"length": np.full(40, 1.5)}, "integers, one per point"),
    "sparse": (torch.eye(9).to_sparse(), {}, "to_dense"),
    "seed": (REAL, {"seed": 1.5}, "got seed = 1.5"),
    "integers too large": (GREY.astype(int) * 10**9, {}, "give levels when they count"),
    "a list": ([[1.0, 2.0]] * 9, {}, "got list as data"),
    "none": (None, {}, "got NoneType as data"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused_in_one_line(case):
    x, told, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        load(x, **told)
    assert "\n" not in str(caught.value)

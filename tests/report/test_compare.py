from __future__ import annotations

import pytest

from autovae.report.compare import compare


def test_studies_side_by_side(results, tmp_path, trials):
    one, two = (
        results(trials.some(), name="one"),
        results([trials.one(0, score=2.0)], name="two", winners=False, finals=False),
    )
    path = compare([one, two])
    assert path == tmp_path / "compare.html"
    text = path.read_text(encoding="utf-8")
    assert "one" in text
    assert "did not vary" in text
    assert "may be compared" in text


def test_other_data_are_no_common_scale(results, tmp_path, trials):
    import numpy as np

    one = results(trials.some(), name="one")
    other = np.random.default_rng(5).integers(0, 17, (40, 8, 8)).astype(np.uint8)
    two = results(trials.some(), name="two", array=other, winners=False)
    text = compare([one, two], tmp_path / "there.html").read_text(encoding="utf-8")
    assert "must not be compared" in text


def test_one_is_not_enough(results):
    with pytest.raises(ValueError, match="at least two"):
        compare([results([], winners=False, finals=False)])

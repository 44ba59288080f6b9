from __future__ import annotations

import math

import pytest

from autovae.report.html import build_report
from autovae.report.record import belief_of, pair_of, pairing_text, read_record


def folder_with(tmp_path, **files):
    (tmp_path / "study.toml").write_text('name = "s"\n')
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text)
    return tmp_path


HEAD = "number,state,score,posterior,prior,likelihood,alpha,reason\n"


def test_cells_get_their_types(tmp_path):
    text = (
        HEAD
        + "3,COMPLETE,1.5,\"['normal', 'cauchy']\",normal,bernoulli,0.5,\n4,FAIL,,normal,normal,bernoulli,inf,too hot\n"
    )
    record = read_record(folder_with(tmp_path, trials_csv=text))
    first, second = record.trials
    assert (first["number"], first["score"], first["posterior"]) == (3, 1.5, ("normal", "cauchy"))
    assert math.isnan(second["score"])
    assert second["alpha"] == math.inf
    assert record.reasons == [("too hot", 1)]
    assert [row["number"] for row in record.complete] == [3]


def test_what_is_missing_is_said(tmp_path):
    record = read_record(folder_with(tmp_path))
    assert record.trials == []
    assert any("trials.csv is missing" in note for note in record.notes)
    assert any("summary.json" in note for note in record.notes)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_broken_summary_is_said(tmp_path, text):
    record = read_record(folder_with(tmp_path, summary_json=text))
    assert record.summary is None
    assert any("summary.json" in note for note in record.notes)


def test_broken_rows_are_left_out_and_counted(tmp_path):
    text = HEAD + "1,COMPLETE,1.0,normal,normal,bernoulli,1.0,\n2,COMP\n"
    record = read_record(folder_with(tmp_path, trials_csv=text))
    assert len(record.trials) == 1
    assert any("1 broken row" in note for note in record.notes)


def test_a_folder_without_a_study_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no study\.toml"):
        read_record(tmp_path)


def test_beliefs_in_words():
    row = {"posterior": "normal", "prior": "cauchy", "likelihood": "bernoulli", "alpha": 0.5}
    assert belief_of(row) == "normal|cauchy, bernoulli, α 0.5"
    assert pair_of(row) == ("normal", "cauchy")
    several = {"posterior": ("normal", "normal", "cauchy"), "prior": "cauchy"}
    assert pair_of(several) is None
    assert pairing_text(several) == "normal|cauchy ×2 + cauchy|cauchy ×1"


def test_a_reproduction_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "study.toml").write_text('name = "made"\nkind = "reproduction"\n')
    (tmp_path / "README.md").write_text("its own words")
    with pytest.raises(ValueError, match="a reproduction of a published experiment"):
        build_report(tmp_path)
    assert (tmp_path / "README.md").read_text() == "its own words"

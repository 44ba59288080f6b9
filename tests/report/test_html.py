"""The page is made from the folder alone, whatever is missing in it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tomllib
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest
import tomli_w

from autovae.report.content import Content
from autovae.report.html import PARTS, build_report
from autovae.report.page import render
from autovae.report.parts.computed import computed_part
from autovae.report.record import read_record

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """Headings, ids, links, images; raises where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.ids, self.links, self.images, self.text = [], [], [], [], [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        if tag == "img" or (tag == "svg" and "figure" in found.get("class", "")):
            self.images.append(found.get("alt") or found.get("aria-label"))

    def handle_startendtag(self, tag, attrs):
        self.ids += [dict(attrs)["id"]] if "id" in dict(attrs) else []

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def built(folder):
    return read(build_report(folder))


def read(path):
    page = Page(path.read_text(encoding="utf-8"))
    return page, " ".join(" ".join(page.text).split())


def test_a_whole_study_is_shown(whole):
    page, words = read(whole / "report.html")
    assert "The winner beats the matched normal by 0.1." in words
    sections = [name.removesuffix("-title") for name in page.ids if name.endswith("-title")]
    assert sections == ["result", "missing", *(name for name, _, _ in PARTS if name != "result")]
    missing = words[words.index("Not shown, and why") : words.rindex("What mattered")]
    assert "Learning curves: trials.journal" in missing  # the one thing that is not invented
    assert missing.count(": ") == 1
    assert page.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False)), "a heading level is skipped"
    assert len(page.ids) == len(set(page.ids))
    assert all(page.images), "a picture without words"
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))


def test_nothing_is_fetched_from_elsewhere(whole):
    text = (whole / "report.html").read_text(encoding="utf-8").replace("http://www.w3.org/", "")
    assert "http:" not in text
    assert "https:" not in text
    assert len(text) < 6_000_000


def test_text_of_files_is_escaped(whole):
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "Made &lt;by&gt; hand &amp; read?" in text
    assert "<by>" not in text


def test_markdown_of_files_is_escaped(results, trials):
    folder = results(trials.some(4), winners=False, finals=False)
    study = tomllib.loads((folder / "study.toml").read_text())
    study |= {"name": "a`b", "purpose": "<script>*x*</script>\n\n# [click](http://x)"}
    study["data"]["name"] = "<b>data</b>"
    (folder / "study.toml").write_text(tomli_w.dumps(study))
    build_report(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "&lt;script&gt;\\*x\\*&lt;/script&gt; # \\[click\\](http://x)" in text
    assert "Data &lt;b&gt;data&lt;/b&gt;;" in text
    assert "`autovae run ab`" in text
    assert "<" not in text


def test_what_templates_do_not_know_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="notes"):
        render("parts/missing")


def test_limits_name_what_holds_here(results, trials):
    folder = results(trials.some(12), winners=False)
    page = render("parts/computed", **computed_part(Content(read_record(folder))))
    assert "falls by 0.0030 bits" in page
    assert "A Bernoulli head" in page
    assert "(3 of them)" in page
    assert "rounds them" not in page
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "rounded": True, "levels": 2, "bound_gap": None}))
    page = render("parts/computed", **computed_part(Content(read_record(folder))))
    assert "rounds them to 2 levels" in page
    assert "falls by" not in page
    assert "A Bernoulli head" not in page  # exact for two levels


def test_importance_csv_has_names_and_trial_counts(whole):
    with (whole / "importance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    alone = {row["axis"]: row for row in rows if not row["with_axis"]}
    assert set(alone) == {"posterior", "prior", "likelihood"}
    assert max(alone, key=lambda name: float(alone[name]["importance"])) == "likelihood"
    assert all(row["trials"] == "40" for row in rows)
    assert ("posterior", "prior") in {(row["axis"], row["with_axis"]) for row in rows}


def test_a_rebuilt_report_is_the_same_needs_no_data_and_clears_old_figures(results, trials, tmp_path):
    folder = results(trials.some())
    first = build_report(folder).read_bytes()
    (tmp_path / "made.npz").unlink()
    (folder / "figures" / "old.svg").write_text("<svg/>")
    (folder / "figures" / "notes.txt").write_text("mine")
    assert build_report(folder).read_bytes() == first
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"importance.svg", "gain.svg", "samples_winner.png", "reconstructions.png", "notes.txt"} <= names
    assert "old.svg" not in names


def test_examples_of_other_data_are_not_used(results, tmp_path, trials):
    folder = results(trials.some())
    np.savez(folder / "examples.npz", inputs=np.zeros((4, 8, 8), np.float32), digest=np.array("other"))
    _, words = built(folder)
    assert "belongs to other data" in words


CASES = {
    "no trial": (lambda one: [], "No trial is finished yet"),
    "one trial": (lambda one: [one(0, score=2.0)], "too few"),
    "all failed": (lambda one: [one(n, state="FAIL", reason="too <hot>") for n in range(5)], "too <hot>"),
    "constant scores": (lambda one: [one(n, ("normal", "laplace")[n % 2], score=2.0) for n in range(8)], "same score"),
    "one belief": (lambda one: [one(n, score=2.0 + n) for n in range(8)], "same belief"),
    "pruned": (lambda one: [one(n, score=2.0 + n, state="PRUNED") for n in range(8)], "8 pruned"),
    "unknown prior": (
        lambda one: [one(n, prior=("normal", "vamp")[n % 2], score=2.0 + n % 2) for n in range(8)],
        "vamp",
    ),
    "lists": (
        lambda one: [one(n, str(["normal"] * (n % 3) + ["laplace"] * (3 - n % 3)), score=2.0 + n) for n in range(9)],
        "×",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_became_of_the_trials_there_is_a_page(results, trials, case):
    make, expected = CASES[case]
    _, words = built(results(make(trials.one), winners=False, finals=False))
    assert expected in words


@pytest.mark.parametrize("gone", ["winners", "finals.csv", "summary.json", "baseline/model.safetensors", "curves.csv"])
def test_whatever_is_missing_the_rest_is_shown_with_the_reason(results, gone, trials):
    folder = results(trials.some())
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    _, words = built(folder)
    missing = words[words.index("Not shown, and why") : words.rindex("What mattered")]
    assert {"winners": "Winner", "baseline/model.safetensors": "Baseline"}.get(gone, gone) in missing


def test_broken_files_are_said(results, trials):
    folder = results(trials.some())
    (folder / "summary.json").write_text("{")
    (folder / "winners" / "1" / "card.json").write_text("{}")
    (folder / "examples.npz").write_text("no zip")
    (folder / "trials.journal").write_text("no log\n")
    _, words = built(folder)
    for part in ("summary.json cannot be read", "Winner:", "examples.npz"):
        assert part in words


def test_real_vectors_are_drawn_as_lines(results, trials):
    array = np.random.default_rng(0).normal(size=(40, 6)) * 3 + 1
    folder = results(trials.some(), array=array)
    page, _ = built(folder)
    assert (folder / "figures" / "samples_winner.svg").is_file()
    assert (folder / "figures" / "reconstructions.svg").is_file()
    assert all(page.images)


def test_the_folder_gets_a_page_of_markdown_with_its_own_numbers(whole):
    text = (whole / "README.md").read_text(encoding="utf-8")
    summary = json.loads((whole / "summary.json").read_text(encoding="utf-8"))
    assert summary["sentence"] in text
    assert "| baseline | normal\\|normal" in text
    assert "out-of-bag" in text


def test_published_results_without_weights_name_the_command_that_brings_them(results, trials):
    folder = results(trials.some())
    for place in ("winners/1", "baseline"):
        (folder / place / "model.safetensors").unlink()
    _, words = built(folder)
    assert words.count("autovae restore results/made trains it again") == 2

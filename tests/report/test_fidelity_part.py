"""The table of fidelity scores: from the cards alone, the floor once, nothing where nothing was scored."""

import json

import pytest

from autovae.export.card import annotate, read_card
from autovae.report.html import build_report


def scores(fid, **more):
    return {"fid": fid, "kid": 0.01, "kid_error": 0.001, "inception_score": 5.0, "inception_score_error": 0.1,
            "precision": 0.8, "recall": None, "points": 100, "reference": 100, "features": 6, "warnings": ["few <points>"],
            **more}  # fmt: skip


@pytest.fixture
def folder(results, trials):
    made = results(trials.some(12))
    for place, (where, fid) in enumerate({"winners/1": 2.5, "baseline": 3.5}.items()):
        rows = {"real": scores(0.5), "reconstructions": scores(1.5), "prior": scores(fid), "flow": scores(fid - 0.25)}
        value = {"features": "digits-cnn features", "facts": {"accuracy": 0.987 - place}, "rows": rows}
        annotate(made / where, {"fidelity": {"digits-cnn features": value}})
    return made


def test_the_table_has_the_floor_once_and_every_source(folder):
    page = build_report(folder).read_text()
    part = page[page.index('<section id="fidelity"') :]
    part = part[: part.index("</section>")]
    assert part.count("<td>real data<") == 1
    assert part.count("samples of the flow") == 2
    assert "98.7%" in part
    assert "few &lt;points&gt;" in part
    assert part.index("<td>real data<") < part.index("winner 1") < part.index("baseline")
    for value in ("2.50", "3.50", "2.25"):
        assert value in part


def test_without_scores_the_part_says_how_to_get_them(results, trials):
    assert "autovae fidelity results/" in build_report(results(trials.some(12))).read_text()


def test_without_models_there_is_no_such_part(results, trials):
    assert '<section id="fidelity"' not in build_report(results(trials.some(12), winners=False)).read_text()


def test_a_broken_card_is_a_note_and_the_rest_is_shown(folder):
    card = folder / "baseline" / "card.json"
    card.write_text(json.dumps({**read_card(folder / "baseline"), "fidelity": [1]}))
    page = build_report(folder).read_text()
    assert "Not shown" in page
    assert '<section id="leaderboard"' in page


def test_the_page_of_markdown_has_the_table_too(folder):
    build_report(folder)
    lines = (folder / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith(("| winner 1", "| real data"))]
    assert rows[0].startswith("| real data | test data | 0.50 |")
    assert "| winner 1: laplace\\|normal | samples of the prior | 2.50 | 0.010 ± 0.001 | 5.00 | 0.800 | – |" in rows
    assert any("digits-cnn features, accuracy 98.7% on test" in line for line in lines)

"""The page in a real browser: nothing leaves it, nothing complains, nothing overflows, tables sort and filter."""

from __future__ import annotations

import pytest

from autovae.report.compare import compare
from autovae.report.html import build_report

pytestmark = pytest.mark.browser

OVERFLOW = """
[...document.querySelectorAll('body *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, .formula, pre, nav, svg, .skip'))
  .map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 60)}`)
"""
CONTRAST = """
(() => {
  const linear = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(x => linear(x / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ratios = ['p', '.note', 'figcaption', 'nav a', 'h1'].map(name => {
    const ink = light(getComputedStyle(document.querySelector(name)).color);
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  });
  return Math.min(...ratios);
})()
"""


@pytest.fixture
def report(whole):
    return whole / "report.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_overflows_and_nothing_complains(browser, report, width, dark):
    page = browser.open(report, width, dark=dark)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(OVERFLOW) == []
    assert page.run(CONTRAST) > 4.5
    assert page.problems == []


def test_themes_differ(browser, report):
    colour = "getComputedStyle(document.body).backgroundColor"
    assert browser.open(report).run(colour) != browser.open(report, dark=True).run(colour)


COLUMN = "[...document.querySelectorAll('#trials tbody tr')].filter(r => !r.hidden).map(r => r.cells[{}].textContent)"


def test_a_click_on_a_heading_sorts_and_another_turns_round(browser, report):
    page = browser.open(report)
    head = "[...document.querySelectorAll('#trials th')][1]"
    for order, step in (("ascending", 1), ("descending", -1)):
        page.run(f"{head}.querySelector('button').click()")
        values = [float(value) for value in page.run(COLUMN.format(1))]
        assert values == sorted(values)[::step]
        assert page.run(f"{head}.getAttribute('aria-sort')") == order


def test_words_and_choices_filter(browser, report):
    page = browser.open(report)
    page.run(
        "const s = document.querySelector('.tools select'); s.value = 'cauchy'; s.dispatchEvent(new Event('input'))"
    )
    assert set(page.run(COLUMN.format(3))) == {"cauchy"}
    assert "of 40 trials shown" in page.run("document.querySelector('.tools output').textContent")
    page.run(
        "const t = document.querySelector('.tools input'); t.value = 'nothing like it'; t.dispatchEvent(new Event('input'))"
    )
    assert page.run(COLUMN.format(3)) == []


def test_the_keyboard_reaches_tables_and_formulas(browser, report):
    page = browser.open(report)
    assert page.run("[...document.querySelectorAll('.scroll, .formula')].every(e => e.tabIndex === 0)")
    assert page.run("document.querySelectorAll('h1').length") == 1
    assert page.run("[...document.querySelectorAll('img')].every(e => e.alt)")


def test_an_empty_study_and_a_comparison_are_pages_too(browser, results, trials):
    empty = results([trials.one(0, state="FAIL", reason="x" * 300)], winners=False, finals=False, name="empty")
    for path in (build_report(empty), compare([empty, results(trials.some(), name="full")])):
        page = browser.open(path, 390)
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert page.run(OVERFLOW) == []
    assert page.problems == []

"""Every block of the documentation and of the README runs, commands exist, and the built site asks nothing of a network.

Blocks of a page run in order, in one namespace and one empty folder, as they do when the site is built (`docs/executed.py`).
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("executed", ROOT / "docs" / "executed.py")
executed = importlib.util.module_from_spec(SPEC)
sys.modules["executed"] = executed
SPEC.loader.exec_module(executed)

PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.name != "commands.md"]
ALL = [*PAGES, ROOT / "docs" / "reference" / "commands.md", ROOT / "README.md"]
RUN = [path for path in PAGES if any(block.runs for block in executed.blocks_of(path.read_text()))]


@pytest.fixture(autouse=True)
def data_folder(monkeypatch, tmp_path):
    """Data as for the other tests, told by an absolute path, since pages run elsewhere; no cache of anybody is touched."""
    monkeypatch.setenv(
        "AUTOVAE_DATA", str(Path(os.environ.get("AUTOVAE_DATA", ROOT.parent / "shared" / "data")).resolve())
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def name_of(path):
    return str(path.relative_to(ROOT))


def is_slow(path):
    return any("slow" in block.words for block in executed.blocks_of(path.read_text()))


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=name_of(path), marks=[pytest.mark.slow] if is_slow(path) else []) for path in RUN],
)
def test_blocks_of_a_page_run(path, tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    session = executed.Session(folder)
    with executed.tables_restored():
        for block in executed.blocks_of(path.read_text()):
            if block.runs:
                session.run(block)
                shown = block.value("shows")
                assert shown is None or (folder / shown).stat().st_size > 0


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_commands_exist(path):
    for block in executed.blocks_of(path.read_text()):
        for command in block.commands if block.language in ("sh", "") else ():
            if "--help" not in command:
                executed.parse_command([word for word in command if word != "..."])


def test_a_command_that_does_not_exist_is_noticed():
    with pytest.raises(Exception, match="colour"):
        executed.parse_command(["run", "quickstart", "--colour", "blue"])


def test_every_command_has_its_help_on_the_page():
    text = executed.commands_help()
    assert text.startswith("## autovae run\n\nRun or resume a study")
    assert "## autovae bench\n" in text
    assert "`--trial N`\n:   Train this trial again" in text
    assert "`FOLDER`\n:   results/STUDY" in text
    assert "`--results PATH`\n:   Folder for results. Default: `results`." in text


def test_every_part_of_the_report_is_explained():
    from autovae.report.html import PARTS

    text = (ROOT / "docs" / "report.md").read_text()
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert [title for title in titles if title in {title for _, title, _ in PARTS}] == [title for _, title, _ in PARTS]


def test_long_lines_of_prose_are_wrapped_and_tables_are_not():
    assert max(map(len, executed.wrapped("many words " * 20).splitlines())) <= 108
    row = "a".ljust(30) + "b".ljust(30) + "c".ljust(30) + "d".ljust(30)
    assert executed.wrapped(row) == row


def test_paragraphs_of_names_become_lists():
    pytest.importorskip("griffe", reason="needs the extra docs")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs" / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "First line.\n\npairs   of draws,\n        each (K, *batch)\nrounds  at most\n\n    a  = formula\n    b  = other"
    assert module.listed(text) == (
        "First line.\n\n`pairs`\n:   of draws, each (K, \\*batch)\n\n`rounds`\n:   at most\n\n"
        "    a  = formula\n    b  = other"
    )


def test_what_is_said_last_stands_apart():
    pytest.importorskip("griffe", reason="needs the extra docs")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs" / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "What it is.\nNot here: that.\nReferences: a paper\nof two lines."
    assert module.listed(text) == "What it is.\n\nNot here: that.\n\nReferences: a paper\nof two lines."


def test_fences_are_read():
    text = "a\n\n```sh run shows=x.png\nautovae run quickstart \\\n  --plan   # words\nls\n```\n\n```python\n1\n```\n"
    first, second = executed.blocks_of(text)
    assert first.commands == [["run", "quickstart", "--plan"]]
    assert (first.runs, first.value("shows"), first.line) == (True, "x.png", 3)
    assert second.runs
    assert second.code == "1\n"


@pytest.mark.slow
def test_blocks_of_the_readme_run(tmp_path):
    """What the README takes from a study, `my_prior`, is saved by the block before; it has an image of its own."""
    import numpy as np
    import torch

    from autovae.export.card import save_vae

    session = executed.Session(tmp_path, torch=torch, my_image=np.full((8, 8), 0.5, np.float32))
    for block in executed.blocks_of((ROOT / "README.md").read_text()):
        if block.language == "python":
            session.run(block)
            if "many" in session.namespace and not (tmp_path / "my_prior").exists():
                many = session.namespace["many"]
                save_vae(many[0].model, many[0].data, tmp_path / "my_prior")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built without running its pages: that they run is tested above."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "AUTOVAE_DOCS_RUN": "0"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_holds_the_docstrings_and_the_formulas(site):
    text = (site / "reference" / "beliefs.html").read_text()
    assert "autovae.beliefs.families" in text
    assert text.count("<table") > 3
    text = (site / "concepts.html").read_text()
    assert text.count("<math") > 10
    assert "autovaemath" not in text


@pytest.fixture(scope="module")
def browser():
    """The browser of the report's tests."""
    spec = importlib.util.spec_from_file_location("report_conftest", ROOT / "tests" / "report" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        made = module.Browser(profile)
        yield made
        made.close()


OVERFLOW = """
[...document.querySelectorAll('.md-content *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .filter(e => !e.closest('.formula, pre, .md-typeset__scrollwrap, nav, svg'))
  .map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 60)}`)
"""
SEARCH = """
(async () => {
  const box = document.querySelector('[data-md-component="search-query"]')
  box.focus()
  box.value = 'pareto'
  for (let i = 0; i < 100; i++) {
    box.dispatchEvent(new Event('keyup', { bubbles: true }))
    await new Promise(done => setTimeout(done, 200))
    const found = document.querySelectorAll('.md-search-result__item').length
    if (found) return found
  }
  return 0
})()
"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_overflows_complains_or_asks_a_network(browser, site, width):
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages) > 20
    for path in pages:
        page = browser.open(path, width)
        assert page.run("document.documentElement.scrollWidth") <= width, path.name
        assert page.run(OVERFLOW) == [], path.name
        assert page.problems == [], path.name


@pytest.mark.browser
def test_the_search_works_from_disk_and_the_dark_scheme_is_dark(browser, site):
    colour = "getComputedStyle(document.body).backgroundColor"
    assert browser.open(site / "index.html").run(colour) != browser.open(site / "index.html", dark=True).run(colour)
    page = browser.open(site / "index.html")
    assert page.run(SEARCH) > 0
    assert page.problems == []

"""Every block of the documentation and of the README runs, commands exist, and the built site asks nothing of a network.

Blocks of a page run in order, in one namespace and one empty folder, as they do when the site is built (`docs/executed.py`).
"""

import importlib.util
import os
import re
import subprocess
import sys
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


OUTWARD = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object|link\b(?=[^>]*rel=["']?(?:stylesheet|preconnect|preload|icon)))"""
    r"""[^>]*?\b(?:src|href|data|srcset)=["']?(?:https?:)?//[^>]*>|@import\s+url\(["']?https?:|url\(["']?https?:""",
    re.I,
)


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
def test_the_site_asks_nothing_of_a_network(site):
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 20
    found = {path.name: OUTWARD.findall(path.read_text()) for path in pages}
    assert {name: hits for name, hits in found.items() if hits} == {}
    text = (site / "concepts.html").read_text()
    assert "<math" in text
    assert "autovaemath" not in text


@pytest.mark.slow
def test_the_reference_says_what_the_docstrings_say(site):
    text = (site / "reference" / "beliefs.html").read_text()
    assert "autovae.beliefs.families" in text
    assert "<table" in text

"""Imports only go up the list of packages; training does without the search's packages; spec does without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "autovae"
ORDER = [
    "registry", "renames", "threads", "finiteness", "seeds", "files",
    "domain", "shares", "spec", "beliefs", "data", "model", "training", "metrics", "export",
    "search", "report", "reasoning", "testing", "bench", "reproductions", "progress", "commands", "cli",
]  # fmt: skip
# reasoning sees only what a prior module needs; report and search are siblings.
FORBIDDEN = {("reasoning", "search"), ("reasoning", "training"), ("reasoning", "report"), ("report", "reasoning")}


def imports(path):
    """The autovae packages that a file imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autovae."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("autovae."))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_up(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if package in ("__init__", "__main__"):
        return
    for other in imports(path):
        assert ORDER.index(other) <= ORDER.index(package), f"{path} imports autovae.{other}"
        assert (package, other) not in FORBIDDEN, f"{path} imports autovae.{other}"


def loaded_by(statement):
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_training_runs_without_the_search_packages():
    assert not {"optuna", "pydantic", "typer", "pandas"} & loaded_by("import autovae.training.loop")


def test_spec_needs_no_torch():
    assert not {"torch", "numpy"} & loaded_by("import autovae.spec, autovae.finiteness")


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_loads_nothing_heavy(flag):
    code = (
        f"import autovae.cli as c, contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): c.main(['{flag}'])"
    )
    assert not {"torch", "optuna", "pandas", "sklearn", "numpy"} & loaded_by(code)

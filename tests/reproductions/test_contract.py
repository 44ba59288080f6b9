"""The contract of reproductions: a study in both settings, a paper, a plan without torch, and published files."""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from autovae.cli import main
from autovae.reproductions.files import is_reproduction, load_reproduction
from autovae.reproductions.registry import REPRODUCTIONS
from autovae.search.files import known_files
from autovae.search.result import ResultsFolder

RESULTS = Path(__file__).parents[2] / "results"
STUDIES = [name for name in known_files("studies") if is_reproduction(name)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", [*REPRODUCTIONS, *STUDIES])
def test_it_has_a_study_that_can_be_planned(name, full, capsys):
    loaded = load_reproduction(name, full)
    assert loaded.setting == ("full" if full else "short")
    assert loaded.folder == (f"{name}_full" if full else name)
    assert main(["run", name, "--plan", "--json", *["--full"] * full]) == 0
    assert json.loads(capsys.readouterr().out)["purpose"] == loaded.file.purpose


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_its_function_takes_the_contract_and_its_module_names_the_paper(name):
    row = REPRODUCTIONS[name]
    assert list(inspect.signature(row.load()).parameters) == ["settings", "notebook", "data_dir", "device"]
    module = importlib.import_module(row.target.split(":")[0])
    assert row.paper in " ".join(module.__doc__.split())
    assert row.settings.model_config == {"extra": "forbid", "frozen": True}


@pytest.mark.parametrize("command", [["--help"], *(["run", name, "--plan"] for name in REPRODUCTIONS)], ids=" ".join)
def test_help_and_plans_import_no_torch(command):
    code = f"import sys, autovae.cli as c; c.main({command}); print(*sys.modules, file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "matplotlib", "pandas"} & set(found.stderr.split())


@pytest.mark.parametrize("name", [name for name in STUDIES if (RESULTS / name).is_dir()])
def test_published_results_are_those_of_the_study_and_whole(name):
    folder = RESULTS / name
    assert ResultsFolder(folder).study.items() >= json.loads(json.dumps(load_reproduction(name).identity)).items()
    for file in ("table.csv", "README.md", "figures"):
        assert (folder / file).exists(), file

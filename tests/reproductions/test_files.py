"""Study files of kind "reproduction": every published one loads in both settings, and errors say where and what to do."""

import json
import subprocess
import sys

import pytest

from autovae.cli import main
from autovae.reproductions.files import is_reproduction, load_reproduction
from autovae.reproductions.registry import REPRODUCTIONS
from autovae.reproductions.run import run_reproduction

FILE = """
purpose = "A test"
kind = "reproduction"
reproduces = "iwae_mnist"
reference = "Nobody, Nothing, 2000"
[short]
groups = [{ bound = "vae", samples = 1, seeds = 1 }]
stages = [[1, 1e-3]]
[full]
groups = [{ bound = "iwae", samples = 50, seeds = 1 }]
stages = [[1, 1e-3]]
"""


@pytest.fixture
def study(tmp_path):
    def write(text=FILE, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", REPRODUCTIONS)
@pytest.mark.parametrize("full", [False, True])
def test_every_reproduction_has_a_study_that_can_be_planned(name, full):
    loaded = load_reproduction(name, full)
    assert is_reproduction(name)
    assert loaded.setting == ("full" if full else "short")
    assert loaded.folder == (f"{name}_full" if full else name)
    assert dict(loaded.plan_rows())["purpose"] == loaded.file.purpose


def test_settings_are_chosen_and_resolved(study):
    assert load_reproduction(study()).settings.groups[0].samples == 1
    assert load_reproduction(study(), full=True).settings.groups[0].samples == 50
    assert load_reproduction(study()).identity["settings"]["batch_size"] == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("stages = [[1, 1e-3]]\n[full]", "stage = [[1, 1e-3]]\n[full]"), r"mine.toml: short: .*stages"),
        (("samples = 50", "samples = 0"), r"mine.toml: full: groups.0.samples"),
        (("[full]", "[fulll]"), r"mine.toml: .*'?full"),
        (("iwae_mnist", "iwae_mnis"), "iwae_mnist"),
        (('kind = "reproduction"', 'kind = "search"'), "expected 'reproduction'"),
        (('purpose = "A test"', ""), "purpose: missing"),
    ],
)
def test_errors_name_the_file_and_the_place(study, change, message):
    assert change[0] in FILE
    with pytest.raises(ValueError, match=message):
        load_reproduction(study(FILE.replace(*change, 1)))


def test_a_search_is_no_reproduction():
    assert not is_reproduction("quickstart")


def test_other_settings_in_the_same_folder_are_refused(study, tmp_path):
    from autovae.reproductions.notebook import Notebook

    Notebook(tmp_path / "mine").open(load_reproduction(study()).identity)
    changed = load_reproduction(study(FILE.replace("1e-3", "2e-3", 1)))
    with pytest.raises(ValueError, match=r"holds results of another study .*stages"):
        run_reproduction(changed, tmp_path)


def test_the_command_line_plans_a_reproduction(capsys):
    assert main(["run", "iwae_mnist", "--plan", "--json"]) == 0
    assert "short" in json.loads(capsys.readouterr().out)["study"]


def test_what_kind_a_study_is_can_be_told_without_torch():
    code = (
        "import sys, autovae.reproductions.files as f; f.is_reproduction('quickstart'); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


TINY = """
purpose = "A test"
kind = "reproduction"
reproduces = "iwae_mnist"
reference = "Nobody, Nothing, 2000"
[short]
data = "digits"
groups = [{ bound = "vae", samples = 1, seeds = 2 }]
stages = [[1, 1e-3]]
batch_size = 500
hidden = [4]
latent_dim = 2
points = 5
samples = 20
[full]
groups = [{ bound = "vae", samples = 1, seeds = 2 }]
stages = [[1, 1e-3]]
"""


def test_the_command_line_runs_and_resumes(study, tmp_path, capsys):
    arguments = ["run", str(study(TINY, "tiny.toml")), "--results", str(tmp_path / "out"), "--device", "cpu", "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["setting"] == "short"
    assert (tmp_path / "out" / "tiny" / "table.csv").is_file()
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == first["rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quickstart", "--full"], "--full is for reproductions"),
        (["iwae_mnist", "--trials", "3"], "are for searches"),
        (["iwae_mnis"], "iwae_mnist"),
    ],
)
def test_the_command_line_refuses_what_does_not_fit(arguments, message, capsys):
    assert main(["run", *arguments, "--plan"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

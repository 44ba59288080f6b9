"""Study files of kind "reproduction": every published one loads in both settings, and errors say where and what to do."""

import json

import pytest

from autovae.cli import main
from autovae.reproductions.files import is_reproduction, load_reproduction
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

"""The command line: bad input is one clear line and exit code 2, never a traceback, and nothing is lost."""

import json
import subprocess
import sys

import numpy as np
import pytest

from autovae.cli import main


def call(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_plan_prints_and_does_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "run", "--plan", "quickstart")
    assert code == 0
    assert "matched" not in out
    assert "normal|normal" in out
    assert list(tmp_path.iterdir()) == []


def test_plan_as_json_is_one_object(capsys):
    code, out, _ = call(capsys, "run", "--plan", "quickstart", "--json")
    assert code == 0
    assert json.loads(out)["study"].startswith("quickstart")


STUDY = 'purpose = "x"\ndata = "digits"\nspace = "pairs"\ntrials = 3\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (STUDY + "trails = 4\n", ["trails", "did you mean 'trials'"]),
        (STUDY.replace("pairs", "pears"), ["search space 'pears'", "'pairs'"]),
        (STUDY.replace("= 3", "= 0"), ["trials", "0"]),
        (STUDY.replace("= 3", '= "three"'), ["trials", "'three'"]),
        (STUDY + "[training]\nlatent_dims = 2\n", ["latent_dims", "'latent_dim'"]),
        (STUDY + '[training]\nactivation = "rellu"\n', ["rellu", "'relu'"]),
        (STUDY + '[training]\nlikelihood = "normal"\n', ["training.likelihood", "pairs", "remove one"]),
        (STUDY + '[score]\nmetric = "elbo"\n', ["does not compare beliefs", "bits_per_dimension"]),
        (STUDY + 'sampler = "tpee"\n', ["tpee", "'tpe'"]),
        (STUDY + "= 3", ["not valid TOML", "line"]),
        ('purpose = "x"\n', ["missing"]),
    ],
)
def test_a_study_file_with_a_mistake(capsys, tmp_path, content, words):
    path = tmp_path / "mine.toml"
    path.write_text(content)
    code, _, err = call(capsys, "run", path, "--results", tmp_path / "results")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    for word in [*words, "mine.toml"] if "pears" not in content else words:
        assert word in err, err
    assert not (tmp_path / "results").exists()


def test_an_infinite_pair_in_a_space(capsys, tmp_path):
    (tmp_path / "s.toml").write_text('[parameters.pair]\nchoices = ["cauchy|normal"]\n')
    path = tmp_path / "mine.toml"
    path.write_text(STUDY.replace('"pairs"', '"s.toml"'))
    code, _, err = call(capsys, "run", path, "--results", tmp_path / "results")
    assert code == 2
    assert "KL(cauchy || normal) is infinite" in err


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((20, 4), np.nan), ["NaN"]),
        (np.array([["a", "b"]] * 20), ["values of"]),
        (np.zeros((0, 4)), ["empty"]),
    ],
)
def test_data_that_cannot_be_used(capsys, tmp_path, values, words):
    np.savez(tmp_path / "mine.npz", x=values)
    code, _, err = call(
        capsys, "run", "quickstart", "--dataset", tmp_path / "mine.npz", "--results", tmp_path / "results"
    )
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word.lower() in err.lower(), err


def test_unknown_names(capsys, tmp_path):
    for arguments in (
        ("run", "quickstrat"),
        ("run", "quickstart", "--dataset", "minst"),
        ("sample", tmp_path / "nothing"),
        ("report", tmp_path / "nothing"),
        ("export", tmp_path / "nothing", "--to", tmp_path / "x"),
        ("run", "quickstart", "--device", "gpu9"),
        ("frobnicate",),
    ):
        code, _, err = call(capsys, *arguments, *(["--results", tmp_path / "r"] if arguments[0] == "run" else []))
        assert code == 2, arguments
        assert "Traceback" not in err


def test_unwritable_results(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("I am a file")
    code, _, err = call(capsys, "run", "quickstart", "--trials", 1, "--results", blocked)
    assert code == 2
    assert "cannot write" in err
    assert blocked.read_text() == "I am a file"


def test_no_traceback_from_the_real_program(tmp_path):
    command = [sys.executable, "-m", "autovae", "run", "nope.toml", "--results", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "no such file" in result.stderr

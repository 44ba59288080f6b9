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
        ("run", "quickstart", "--devices", "97,98"),
        ("run", "quickstart", "--devices", ","),
        ("run", "quickstart", "--devices", "cpu,cpu", "--device", "cpu"),
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


def test_beliefs_prints_every_pair_and_draws_one(capsys, tmp_path):
    code, out, _ = call(capsys, "beliefs")
    assert code == 0
    assert "student_t5" in out
    assert len(json.loads(call(capsys, "beliefs", "--json")[1])["pairs"]) == 100
    code, _, _ = call(capsys, "beliefs", "--landscape", "logistic", "normal", "--to", tmp_path / "kl.png")
    assert code == 0
    assert (tmp_path / "kl.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = call(capsys, "beliefs", "--landscape", "cauchy", "normal", "--to", tmp_path / "no.png")
    assert code == 2
    assert "infinite" in err


def test_a_saved_vae_is_sampled_and_scored(capsys, tmp_path):
    from autovae.data.datasets import load
    from autovae.export.card import save_vae
    from autovae.model.vae import build
    from autovae.spec import VAESpec

    data = load("digits")
    folder = save_vae(build(VAESpec(latent_dim=2, hidden=(8,)), data.domain), data, tmp_path / "prior")
    for name in ("grid.png", "x.npz", "x.csv"):
        assert call(capsys, "sample", folder, "-n", 4, "--to", tmp_path / name)[0] == 0
    assert np.load(tmp_path / "x.npz")["x"].shape == (4, 8, 8)
    code, out, _ = call(
        capsys, "score", folder, "digits", "-k", 20, "--points", 5, "--json", "--to", tmp_path / "s.csv"
    )
    assert code == 0
    values = json.loads(out)
    assert values["points"] == 5
    assert 0 <= values["active_units"] <= 2
    assert values["common_head_bits"] < values["own_head_bits"]  # a Bernoulli has no scale to learn
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 6
    np.savez(tmp_path / "other.npz", x=np.zeros((20, 3), np.uint8))
    code, _, err = call(capsys, "score", folder, tmp_path / "other.npz")
    assert code == 2
    assert "(8, 8)" in err


def test_a_score_is_enclosed_from_both_sides(capsys, tmp_path):
    from autovae.data.datasets import load
    from autovae.export.card import save_vae
    from autovae.model.vae import build
    from autovae.spec import VAESpec

    x = (np.random.default_rng(0).random((60, 5)) < 0.4).astype(np.uint8)
    np.savez(tmp_path / "bits.npz", x=x)
    data = load(tmp_path / "bits.npz")
    folder = save_vae(build(VAESpec(latent_dim=2, hidden=(4,)), data.domain), data, tmp_path / "prior")
    asked = ("score", folder, tmp_path / "bits.npz", "-k", 50, "--ais", 4, "--temperatures", 10)
    code, out, _ = call(capsys, *asked, "--json")
    values = json.loads(out)
    assert code == 0
    assert values["ais_simulated_gap"] == pytest.approx(
        values["ais_simulated_upper"] - values["ais_simulated_lower"], abs=1e-9
    )
    assert "own_head_bits" not in values  # two levels: a head has no shape
    code, out, _ = call(capsys, *asked)
    assert "gap" in out


def test_real_data_are_scored_in_the_units_of_the_model(tmp_path):
    """The same points score the same, whatever else is in the file that they come from."""
    from autovae.data.datasets import load
    from autovae.export.card import save_vae
    from autovae.export.scoring import score_folder
    from autovae.model.vae import build
    from autovae.spec import VAESpec

    x = np.random.default_rng(0).normal(100.0, 20.0, (60, 3))
    data = load(x)
    vae = build(VAESpec(latent_dim=2, hidden=(8,), likelihood="normal"), data.domain)
    folder = save_vae(vae, data, tmp_path / "prior")
    own, _ = score_folder(folder, x, samples=200)
    moved = x.copy()
    train = data.original_units(data.train.x).numpy()
    rows = [i for i in range(len(x)) if np.isclose(train, x[i]).all(1).any()]
    moved[rows[:5]] += 40.0  # other training points change the mean and scale of the file, not the model's units
    other, _ = score_folder(folder, moved, samples=200)
    np.testing.assert_allclose(own.per_point.numpy(), other.per_point.numpy(), rtol=1e-3)

"""Spaces: what may be chosen, in which encodings, and that a belief has one name."""

import json
from collections import Counter
from pathlib import Path

import optuna
import pytest

from autovae.finiteness import finiteness
from autovae.search.files import known_files
from autovae.search.space import canonical, load_space, schema
from autovae.spec import VAESpec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "search_spaces"


def space(folder, text):
    (folder / "mine.toml").write_text(text)
    return load_space(folder / "mine.toml")


def ask(found, count, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [found.suggest(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_every_space_suggests_only_specs_that_stand(name):
    """None of the published spaces can ask for an infinite or unsound belief."""
    found = load_space(FOLDER / f"{name}.toml")
    for settings in ask(found, 40):
        spec = VAESpec(**{**found.fixed, **settings})
        assert spec.alpha < 1 or all(finiteness(q, p) != "infinite" for q, p in spec.pairs)
    assert found.describe()
    VAESpec(**{**found.fixed, **found.example()})


@pytest.mark.parametrize("encoding", ["two", "three", "simplex", "per_latent"])
def test_shares_sum_to_the_latents_and_the_baseline_can_be_asked(encoding, tmp_path):
    found = space(
        tmp_path,
        f'[parameters.pairing]\nchoices = ["normal|normal", "logistic|normal", "cauchy|cauchy"]\nencoding = "{encoding}"\n'
        "[fixed]\nlatent_dim = 7\n",
    )
    kinds = set()
    for settings in ask(found, 60):
        pairs = Counter(zip(settings["posterior"], settings["prior"], strict=True))
        assert sum(pairs.values()) == 7
        kinds.add(len(pairs))
    assert len(kinds) > 1
    params = found.params_of({"posterior": "normal", "prior": "normal"})
    study = optuna.create_study()
    study.enqueue_trial(params)
    settings = found.suggest(study.ask())
    assert VAESpec(**{**found.fixed, **settings}).matched_normal


def test_the_size_of_two_shares_counts_beliefs_not_encodings(tmp_path):
    found = space(
        tmp_path,
        '[parameters.pairing]\nchoices = ["normal|normal", "laplace|laplace"]\nlatents = 4\n[fixed]\nlatent_dim = 4\n',
    )
    beliefs = set()
    study = optuna.create_study()
    for params in found.points():
        study.enqueue_trial(params)
        settings = found.suggest(study.ask())
        beliefs.add(canonical(VAESpec(**{**found.fixed, **settings})))
    assert found.size == len(beliefs) == 5  # 4+0, 3+1, 2+2, 1+3, 0+4


def test_the_simplex_is_uniform_over_shares(tmp_path):
    found = space(
        tmp_path,
        '[parameters.pairing]\nchoices = ["normal|normal", "laplace|laplace", "logistic|logistic"]\nencoding = "simplex"\n'
        "[fixed]\nlatent_dim = 30\n",
    )
    shares = [Counter(settings["posterior"])["normal"] / 30 for settings in ask(found, 1500)]
    mean = sum(shares) / len(shares)
    square = sum(share**2 for share in shares) / len(shares)
    assert mean == pytest.approx(1 / 3, abs=0.02)
    assert square == pytest.approx(1 / 6, abs=0.02)  # E[s^2] = 2 / (n (n + 1)) for n = 3


def test_one_belief_has_one_name():
    one = VAESpec(posterior={"logistic": 3, "normal": 5}, prior="normal", latent_dim=8, seed=3, mix=0.2)
    other = VAESpec(posterior={"normal": 5, "logistic": 3}, prior="normal", latent_dim=8, seed=9, scale="pixel")
    assert canonical(one) == canonical(other)
    assert canonical(one.replace(likelihood="normal", scale="pixel")) != canonical(one.replace(likelihood="normal"))
    assert canonical(one.replace(posterior="normal")) == canonical(VAESpec(latent_dim=8))


def test_depth_and_width_are_hidden(tmp_path):
    found = space(tmp_path, "[parameters.depth]\nlow = 1\nhigh = 3\n[parameters.width]\nchoices = [10, 20]\n")
    seen = {tuple(settings["hidden"]) for settings in ask(found, 60)}
    assert seen == {(width,) * depth for width in (10, 20) for depth in (1, 2, 3)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the space is empty"),
        ('[parameters.pair]\nposteriors = ["cauchy"]\npriors = ["normal"]\n', "no pair is left"),
        ('[parameters.pair]\nchoices = ["cauchy|normal"]\n', "infinite"),
        ('[parameters.pairing]\nchoices = ["normal|normal"]\nlatents = 1\n', "2 pairs cannot share 1 latents"),
        (
            '[parameters.pairing]\nchoices = ["normal|normal"]\nencoding = "three"\n[fixed]\nlatent_dim = 2\n',
            "3 pairs cannot",
        ),
        ('[parameters.pairing]\nchoices = ["normal|normal"]\n', "number of latents"),
        ('[parameters.pairing]\nchoices = ["normal|normal"]\nencoding = "four"\n', "encoding"),
        ("[parameters.depth]\nlow = 1\nhigh = 2\n", "depth and width go together"),
        ("[parameters.learning_rate]\nlow = 1.0\nhigh = 0.1\n", "must be below"),
        ('[parameters.pairr]\nchoices = ["normal|normal"]\n', "pair"),
        ('[parameters.likelihood]\nchoices = ["bernouli"]\n', "bernoulli"),
    ],
)
def test_a_space_that_makes_no_sense_says_so_in_a_line(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        space(tmp_path, text)


def test_what_is_chosen_anew_takes_the_place_of_what_decided_it_before(tmp_path):
    (tmp_path / "base.toml").write_text(
        '[parameters.pair]\nchoices = ["normal|normal"]\n[parameters.alpha]\nchoices = [1.0]\n'
    )
    found = space(
        tmp_path,
        f'extends = "{tmp_path / "base.toml"}"\n[parameters.pairing]\nchoices = ["normal|normal"]\nlatents = 4\n',
    )
    assert set(found.parameters) == {"alpha", "pairing"}


def test_the_schema_in_the_folder_is_this_one():
    """For editors; made by `python -m autovae.search.schema`."""
    assert json.loads((FOLDER / "schema.json").read_text()) == json.loads(json.dumps(schema()))
    assert {"pair", "pairing", "alpha", "depth"} <= set(schema()["properties"]["parameters"]["properties"])
    assert known_files("search_spaces")

"""Samplers by name: determinism, grids, and a stop rule that knows when there is nothing left to gain."""

import numpy as np
import optuna
import pytest

from autovae.search.samplers import SAMPLERS, Question
from autovae.search.space import load_space
from autovae.search.stopping import outlook

NUMBERS = (
    "[parameters.learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n[parameters.latent_dim]\nlow = 2\nhigh = 9\n"
)


@pytest.fixture
def space(tmp_path):
    (tmp_path / "numbers.toml").write_text(NUMBERS + '[parameters.likelihood]\nchoices = ["bernoulli", "normal"]\n')
    return load_space(tmp_path / "numbers.toml")


def play(name, space, trials=14, objectives=1):
    """A search with a sampler made anew for every trial, as `Trials` does."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * objectives)
    for number in range(trials):
        study.sampler = SAMPLERS[name](Question(number, 7, space, startup=5, batch=5))
        trial = study.ask()
        settings = space.suggest(trial)
        value = abs(np.log10(settings["learning_rate"]) + 3) + 0.1 * settings["latent_dim"]
        study.tell(trial, [value, settings["latent_dim"]][:objectives])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "grid"])
def test_the_same_questions_get_the_same_answers(name, space):
    if name == "cmaes":
        pytest.importorskip("cmaes")
    first, second = play(name, space), play(name, space)
    assert first == second
    assert len({tuple(params.values()) for params in first}) > 5


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nsga3", "gp", "random"])
def test_samplers_for_several_objectives(name, space):
    assert len(play(name, space, 12, objectives=2)) == 12


def test_a_grid_of_a_continuous_space_is_refused_with_the_remedy(space):
    with pytest.raises(ValueError, match="infinitely many"):
        SAMPLERS["grid"](Question(0, 0, space))


def trials(noise, levels):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    for _ in range(60):
        trial = study.ask()
        value = levels[trial.suggest_categorical("pair", list(levels))] + noise * rng.normal()
        study.tell(trial, value)
    return study.trials


def test_the_outlook_is_over_where_all_is_known_and_not_where_much_is_to_gain():
    known = trials(0.01, {"a": 1.0, "b": 2.0, "c": 3.0})
    seen = outlook(known, [1.0, 1.01, 0.99, 1.02])
    assert seen is not None
    assert seen.over
    assert "below the noise" in str(seen)
    rough = trials(1.0, {"a": 1.0, "b": 1.0})
    wide = outlook(rough[:8], [1.0, 1.0001])
    assert wide is not None
    assert not wide.over


def test_no_outlook_without_the_noise_between_seeds():
    assert outlook(trials(0.1, {"a": 1.0, "b": 2.0}), [1.0]) is None

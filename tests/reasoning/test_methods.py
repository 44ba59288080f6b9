"""One contract for all methods, down to parameter names; and what every method must do with bad input."""

import dataclasses
import inspect
import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import METHODS, Criterion, Draws, Gaussian, LatentPosterior

QUICK = {
    "hmc": ({"chains": 3}, {"warmup": 30, "draws": 8}, (3, 8)),
    "map": ({"restarts": 4, "iterations": 20}, {}, (1, 1)),
    "mean_field": ({"pairs": 2, "iterations": 20}, {"draws": 7}, (1, 7)),
    "mgvi": ({"pairs": 3, "rounds": 2}, {}, (1, 6)),
    "geovi": ({"pairs": 3, "rounds": 2}, {}, (1, 6)),
    "sir": ({"candidates": 500}, {"draws": 7}, (1, 7)),
    "rejection": ({}, {"draws": 7}, (1, 7)),
}


def question(dtype=torch.float64, **settings):
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6)).to(dtype)
    prior = PriorModule.from_decoder(decoder, ["normal", "laplace", "normal", "gumbel"], shape=(2, 3))
    return LatentPosterior(prior, Gaussian(None, torch.full((2, 3), 0.3, dtype=dtype), 0.7), **settings)


DEFAULT = ({}, {"draws": 7}, (1, 7))  # of a method that is not listed above


def quick_run(name, posterior=None, **changes):
    settings, arguments, _ = QUICK.get(name, DEFAULT)
    return METHODS[name](**settings).run(posterior or question(), **{**arguments, **changes})


@pytest.mark.parametrize("name", METHODS)
def test_parameter_names(name):
    parameters = inspect.signature(METHODS[name].run).parameters
    names = [p for p in parameters if p not in ("self", "warmup")]
    assert names == ["posterior", "draws", "seed", "start", "progress"]
    assert [parameters[p].default for p in names[1:]] == [None, 0, None, False]
    keyword_only = [p for p in parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert {p.name for p in keyword_only} >= {"seed", "start", "progress"}
    assert dataclasses.is_dataclass(METHODS[name])
    assert METHODS[name].name == name
    assert METHODS[name].__doc__
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS[name]().name = "other"


@pytest.mark.parametrize("name", METHODS)
def test_draws_of_every_method(name):
    posterior = question()
    draws = quick_run(name, posterior)
    shape = QUICK.get(name, DEFAULT)[2]
    assert isinstance(draws, Draws)
    assert draws.xi.shape == (*shape, 4)
    assert not draws.xi.requires_grad
    assert draws.log_prob.shape == shape
    torch.testing.assert_close(draws.log_prob, posterior.log_prob(draws.xi))
    assert draws.method == name
    assert draws.seconds > 0
    assert draws.decode().shape == (*shape, 2, 3)
    torch.testing.assert_close(draws.decode(), posterior.prior.decode(draws.z()))
    summary = draws.summary()
    assert summary["draws"] == shape[1]
    assert isinstance(summary["problems"], list)
    assert name in str(draws)
    assert all(isinstance(value, (str, int, float, list, bool)) for value in summary.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_fixes_the_draws_and_leaves_the_global_stream_alone(name):
    state = torch.get_rng_state()
    posterior = question()
    torch.set_rng_state(state)
    first = quick_run(name, posterior, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(quick_run(name, posterior, seed=3).xi, first.xi)
    if name != "map":
        assert not torch.equal(quick_run(name, posterior, seed=4).xi, first.xi)


MODES = ("map",)  # methods that find a mode, without a spread


@pytest.mark.parametrize("name", METHODS)
def test_a_gaussian_posterior_is_recovered(name):
    """y = 2 xi + noise of variance 1 in two independent directions: N(2 y / 5, 1 / 5)."""
    scaled = nn.Linear(2, 2, bias=False).double().requires_grad_(False)
    nn.init.eye_(scaled.weight).mul_(2)
    y = torch.tensor([1.5, -1.0]).double()
    posterior = LatentPosterior(PriorModule.from_decoder(scaled), Gaussian(None, y, 1.0))
    if name in MODES:
        torch.testing.assert_close(METHODS[name]().run(posterior).flat[0], 0.4 * y, rtol=0, atol=1e-4)
        return
    method, effective = METHODS[name](), 2000
    xi = method.run(posterior, draws=3000 // getattr(method, "chains", 1), seed=1).flat
    assert ((xi.mean(0) - 0.4 * y).abs() < 5 * math.sqrt(0.2 / effective)).all()
    assert ((5 * xi.var(0)).log().abs() < 5 * math.sqrt(2 / effective)).all()
    assert abs(float(xi.T.corrcoef()[0, 1])) < 5 / math.sqrt(effective)


@pytest.mark.parametrize("name", METHODS)
def test_small_questions_run_on_one_thread_and_the_setting_returns(name):
    seen, before = set(), torch.get_num_threads()

    def watched(x):
        seen.add(torch.get_num_threads())
        return x.flatten(1).sum(-1)

    posterior = LatentPosterior(question().prior, Gaussian(watched, 0.0, 1.0))
    torch.set_num_threads(2)
    try:
        seen.clear()
        quick_run(name, posterior)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen - {2} == {1}  # 2 while the work is counted


@pytest.mark.parametrize("name", METHODS)
def test_float32_stays_float32(name):
    draws = quick_run(name, question(torch.float32))
    assert draws.xi.dtype == torch.float32
    assert draws.log_prob.dtype == torch.float32
    assert draws.xi.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_start_is_checked(name):
    quick_run(name, start=torch.zeros(4))
    with pytest.raises(ValueError, match="got start of shape"):
        quick_run(name, start=torch.zeros(5))


@pytest.mark.parametrize("name", METHODS)
def test_impossible_evidence_is_an_error_that_names_the_constraint(name):
    prior = question().prior
    never = Criterion(lambda x: x.flatten(1).sum(-1) - math.inf)
    settings = {"log_bound": 0.0} if name == "rejection" else {}
    with pytest.raises(ValueError, match="impossible for Criterion"):
        METHODS[name](**{**QUICK.get(name, DEFAULT)[0], **settings}).run(LatentPosterior(prior, never))


@pytest.mark.parametrize("name", METHODS)
def test_no_evidence_gives_the_prior(name):
    draws = quick_run(name, LatentPosterior(question().prior, []))
    assert draws.xi.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_methods_work_under_no_grad(name):
    with torch.no_grad():
        quick_run(name)


@pytest.mark.parametrize("name", METHODS)
def test_progress_goes_to_standard_error(name, capsys):
    quick_run(name, progress=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", METHODS)
def test_several_objects(name):
    torch.manual_seed(0)
    prior = PriorModule.from_decoder(nn.Linear(2, 3).double()).replicate(2)
    posterior = LatentPosterior(prior, Gaussian(lambda x: x.sum(1), torch.zeros(3).double(), 1.0))
    draws = quick_run(name, posterior)
    assert draws.decode().shape == (*QUICK.get(name, DEFAULT)[2], 2, 3)


@pytest.mark.parametrize("name", METHODS)
def test_answers_chain_or_say_why_not(name):
    draws = quick_run(name)
    if draws.transport is None:
        with pytest.raises(ValueError, match="MeanField or MGVI"):
            draws.as_prior()
        return
    prior = draws.as_prior()
    assert prior.card["answer"]["method"] == name
    z = prior.sample(3)
    torch.testing.assert_close(prior.from_normal(prior.to_normal(z)), z)
    again = quick_run("mgvi", LatentPosterior(prior, Gaussian(None, torch.zeros(2, 3).double(), 0.5)))
    assert again.decode().isfinite().all()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hmc", {"chains": 0}, "chains"),
        ("hmc", {"target": 1.0}, "target"),
        ("hmc", {"integrator": "verlet"}, "unknown integrator"),
        ("hmc", {"trajectory": "cheese"}, "did you mean 'chees'"),
        ("hmc", {"step_size": -1.0}, "step_size"),
        ("hmc", {"jitter": 1.0}, "jitter"),
        ("mean_field", {"anneal": (0.1, 0.5)}, "end at 1"),
        ("mean_field", {"optimizer": "sgd"}, "unknown optimizer"),
        ("mgvi", {"pairs": 0}, "pairs"),
        ("geovi", {"solve": 0}, "solve"),
        ("map", {"restarts": 0}, "restarts"),
        ("sir", {"candidates": 0}, "candidates"),
        ("rejection", {"max_tries": 0}, "max_tries"),
    ],
)
def test_settings_are_checked_when_a_method_is_made(name, settings, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name](**settings)

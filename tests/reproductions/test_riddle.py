"""The riddle: its logic by enumeration, how runs are counted, and the whole of it on small networks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from autovae.export.prior import PriorModule
from autovae.model.classifiers import CLOSED
from autovae.reproductions.digit_modules import DigitModules
from autovae.reproductions.files import load_reproduction
from autovae.reproductions.notebook import Notebook
from autovae.reproductions.riddle import run
from autovae.reproductions.riddle_solving import (
    ANSWER,
    CONSTRAINTS,
    WARNINGS,
    Networks,
    TwoNetworks,
    best_of,
    holds,
    question,
    watched,
)
from autovae.reproductions.settings import GANPlan, RiddlePlan, RiddleSettings


class Reader(nn.Module):
    """Logits of a `digit` that stands in the first pixel, sure of itself; or of something that follows from it."""

    def __init__(self, of=lambda digit: digit, classes: int = 10) -> None:
        super().__init__()
        self.of, self.classes = of, classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        digit = (10 * x.flatten(1)[:, 0]).round().long().clamp(0, 9)
        answer = torch.tensor([self.of(int(d)) for d in digit])
        return 60.0 * torch.nn.functional.one_hot(answer, self.classes)


NETS = Networks(Reader(), Reader(lambda d: d % 2, 2), Reader(lambda d: int(d in CLOSED), 2))


def triples() -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(10), repeat=3)))


def images(digits: torch.Tensor) -> torch.Tensor:
    return (digits.double() / 10)[..., None, None]


def test_one_three_four_is_the_only_answer() -> None:
    assert triples()[holds(triples())].tolist() == [list(ANSWER)]


def test_the_constraints_agree_with_enumeration_and_without_them_others_come_in() -> None:
    x = images(triples())

    def satisfied(names) -> list[list[int]]:
        log = sum(CONSTRAINTS[name](NETS).log_prob(x, objects=3) for name in names)
        return triples()[log > -1].tolist()

    assert satisfied(CONSTRAINTS) == [list(ANSWER)]
    assert satisfied(["I", "II", "III", "IV"]) == [[1, 3, 4], [3, 5, 8]]
    assert satisfied(["I", "II", "III", "V"]) == [[1, 3, 4]]
    assert [4, 3, 7] not in satisfied(["IV"])


def test_what_is_watched_is_the_answer_and_the_digits() -> None:
    prior = PriorModule.from_decoder(nn.Sequential(nn.Linear(2, 4), nn.Sigmoid()), shape=(2, 2))
    posterior = question(prior, NETS, ("IV",))
    assert len(posterior.constraints) == 4
    scene = posterior.scene(torch.zeros(3, 6))
    scene.x[:, :, 0, 0] = torch.tensor([[1.0, 3, 4], [3, 5, 8], [1, 3, 5]]) / 10
    seen = watched(NETS)(scene)
    assert seen[:, 0].round(decimals=6).tolist() == [1, 0, 0]
    assert seen[:, 1:].tolist() == [[1, 3, 4], [3, 5, 8], [1, 3, 5]]


def test_two_networks_are_both_to_be_pleased() -> None:
    sure, unsure = (nn.Linear(2, 3, bias=False) for _ in range(2))
    both = TwoNetworks(sure, unsure)
    x = torch.randn(5, 2)
    expected = 0.5 * (sure(x).log_softmax(-1) + unsure(x).log_softmax(-1))
    assert torch.allclose(both(x), expected)


def test_the_warnings_need_no_answer() -> None:
    own = torch.tensor([[[1, 3, 4]] * 3, [[3, 5, 8]] * 3, [[1, 3, 4]] * 3])
    judged = torch.tensor([[[1, 3, 4]] * 3, [[3, 5, 8]] * 3, [[1, 3, 9]] * 3])
    said = {name: check(own, judged).tolist() for name, check in WARNINGS.items()}
    assert said == {
        "own digits break a rule": [False, True, False],
        "judge's digits break a rule": [False, True, True],
    }


def test_the_best_of_several_runs_by_enumeration() -> None:
    runs = [
        {"objective": value, "share": share, "warned": share < 0.5 and value > 0}
        for value, share in ((5.0, 0.1), (4.0, 0.9), (1.0, 1.0), (-2.0, 0.0), (-3.0, 0.7))
    ]
    for count in (1, 2, 3, 5):
        for trusted in (None, lambda r: not r["warned"]):
            outcomes = []
            for chosen in itertools.combinations(runs, count):
                pool = [r for r in chosen if trusted is None or trusted(r)] or list(chosen)
                outcomes.append(max(pool, key=lambda r: r["objective"])["share"] >= 0.5)
            assert best_of(runs, count, trusted) == pytest.approx(sum(outcomes) / len(outcomes))
    assert math.isnan(best_of(runs, 6))


def test_settings_are_checked() -> None:
    for wrong, words in (
        ({"without": ("VI",)}, "unknown constraint 'VI'"), ({"powers": (0.0, 1.0)}, "finite numbers > 0"),
        ({"optimizer": "sgd"}, "'adam' or 'lbfgs'"), ({"digit_networks": 3}, "1 or 2"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            RiddlePlan(name="a", **wrong)
    assert RiddlePlan(name="a", powers=(1, 2), iterations=(3, 4)).steps == (3, 4)
    assert RiddlePlan(name="a", powers=(1, 2), iterations=5).steps == (5, 5)
    with pytest.raises(ValueError, match="1 numbers of iterations for 2 powers"):
        RiddlePlan(name="a", powers=(1, 2), iterations=(3,))
    with pytest.raises(ValidationError, match="Extra inputs"):
        RiddleSettings(experiments=[{"name": "a", "iteration": 3}])
    plans = RiddleSettings(seeds=7, pairs=3, experiments=[{"name": "a"}, {"name": "b", "seeds": 2}]).plans
    assert [(plan.seeds, plan.pairs) for plan in plans] == [(7, 3), (2, 3)]
    assert load_reproduction("riddle", full=True).settings.seeds == 100


def test_data_that_hold_no_digits_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds real points"):
        DigitModules.of(_table(tmp_path), GANPlan(), None, print)
    with pytest.raises(ValueError, match="has no labels"):
        DigitModules.of(_table(tmp_path, labels=False), GANPlan(), None, print)
    with pytest.raises(ValueError, match="unknown data set 'nmist'"):
        DigitModules.of("nmist", GANPlan(), None, print)
    modules = DigitModules.of("digits", GANPlan(), None, print)
    with pytest.raises(ValueError, match="got the digit 11; expected 0 to 9"):
        modules.images_of(11)


def _table(folder, labels: bool = True) -> str:
    import numpy as np

    path = folder / f"table{labels}.npz"
    rng = np.random.default_rng(0)
    values = {"x": rng.normal(size=(40, 3))} | ({"y": rng.integers(0, 3, 40)} if labels else {})
    np.savez(path, **values)
    return str(path)


@pytest.mark.slow
def test_the_whole_of_it_on_small_networks(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = RiddleSettings(
        data="digits", gan=GANPlan(steps=6, latent_dim=4, width=2), seeds=3, pairs=2, draws=4,
        experiments=[
            RiddlePlan(name="ladder", iterations=(2, 1), powers=(0.5, 10)),
            RiddlePlan(name="two digit networks", iterations=1, powers=(1.0,), digit_networks=2, seeds=2, optimizer="lbfgs"),
            RiddlePlan(name="chains", method="chains", iterations=2, powers=(1.0, 10)),
        ],
    )  # fmt: skip
    notebook = Notebook(tmp_path / "riddle")
    notebook.open({"name": "riddle"})
    monkeypatch.setattr("autovae.model.classifiers._epochs", lambda settings, points: 1)
    found = run(settings, notebook, None, torch.device("cpu"))
    assert [row["experiment"] for row in found["rows"]] == ["ladder", "two digit networks", "chains"]
    assert found["rows"][0]["share_solved_paper"] == 0.88
    assert found["rows"][0]["iterations_per_power"] == "2 1"
    assert "Mean accuracy at the end of each" in (tmp_path / "riddle" / "README.md").read_text()
    names = {path.name for path in (tmp_path / "riddle").iterdir()}
    assert {"table.csv", "restarts.csv", "warnings.csv", "README.md", "figures"} <= names
    figures = {path.name for path in (tmp_path / "riddle" / "figures").iterdir()}
    assert {"riddle.png", "curves_ladder.png", "answers_ladder.png"} <= figures
    assert run(settings, notebook, None, torch.device("cpu"))["rows"] == found["rows"]

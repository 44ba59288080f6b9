"""A step of plain VAEs without a graph is the step by the graph, bit for bit; other VAEs keep to the graph."""

from __future__ import annotations

import pytest
import torch

from autovae import native
from autovae.data.datasets import Data
from autovae.model.vae import build
from autovae.native.whole import WholeStep
from autovae.spec import VAESpec
from autovae.training import plain as plain_module
from autovae.training.feed import Feed
from autovae.training.member import Member
from autovae.training.plain import plain_head
from autovae.training.population import Population
from autovae.training.precision import fast_products
from autovae.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not native.multiplies(), reason="no vectors wide enough here, or no compiler")

SPEC = VAESpec(latent_dim=18, hidden=(40, 24), batch_size=60, epochs=2)


def trainer(data: Data, specs: list[VAESpec], by_graph: bool = False) -> Trainer:
    made = Trainer([Member(build(spec, data.domain)) for spec in specs], Feed(data))
    if by_graph:
        made._plain = None
    return made


def train(one: Trainer, epochs: int = 2) -> list[torch.Tensor]:
    """Weights, moments and history after some epochs, the last minibatch of each smaller."""
    for _ in range(epochs):
        one.start_epoch()
        for batch in one.feed.epoch(one.specs[0].batch_size, 0, one.epoch, one.kinds):
            one.step(batch)
        one.finish_epoch()
    history = torch.tensor([[row[name] for name in sorted(row)] for rows in one._rows for row in rows])
    return [*(p.detach() for p in one.stack.parameters()), *one.adam.means, *one.adam.squares, history]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("members", "settings"),
    [
        (1, {}),
        (3, {}),
        (1, {"samples": 2}),
        (2, {"samples": 3, "likelihood": "continuous_bernoulli", "beta": 0.7}),
        (2, {"hidden": ()}),
    ],
)
def test_it_is_the_step_by_the_graph(digits: Data, threads: int, members: int, settings: dict[str, object]) -> None:
    specs = [SPEC.replace(seed=seed, learning_rate=1e-3 * (seed + 1), **settings) for seed in range(members)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with fast_products():
            own, graph = trainer(digits, specs), trainer(digits, specs, by_graph=True)
            assert own._plain is not None
            assert len(digits.train) % SPEC.batch_size >= 16, "the smaller minibatch is had, too"
            found, wanted = train(own), train(graph)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert own.adam.steps == graph.adam.steps


def test_few_points_go_by_the_graph(digits: Data) -> None:
    """Products of fewer points are torch's."""
    specs = [SPEC.replace(batch_size=len(digits.train) - 9)]
    with fast_products():
        own, graph = trainer(digits, specs), trainer(digits, specs, by_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(train(own), train(graph), strict=True))


def test_it_goes_on_where_a_member_left_off(digits: Data) -> None:
    with fast_products():
        one = trainer(digits, [SPEC, SPEC.replace(seed=1)])
        whole = train(one)
        half = trainer(digits, [SPEC, SPEC.replace(seed=1)])
        train(half, 1)
        again = Trainer(half.collect(), half.feed)
        assert again._plain is not None
        assert all(torch.equal(a, b) for a, b in zip(whole[:-1], train(again, 1)[:-1], strict=True))


def test_stacks_of_a_lane_take_turns_in_one_room(digits: Data) -> None:
    """And give it back when they rest."""
    specs = [SPEC.replace(seed=seed) for seed in range(4)]
    with fast_products():
        population = Population([Member(build(s, digits.domain)) for s in specs], Feed(digits), stack_size=1, threads=2)
        population.train_epoch()
        rooms = [trainer._plain._whole._room for trainer in population.trainers]
        assert [rooms.index(room) for room in rooms] == [0, 1, 0, 1]
        places = [trainer._plain._whole._prepared[60].value.data_ptr() for trainer in population.trainers]
        assert [places.index(place) for place in places] == [0, 1, 0, 1]
        population.collect()
        assert not any(room._held for room in rooms)
        population.train_epoch()
        alone = [trainer(digits, [s]) for s in specs]
        for own, kept in zip(alone, population.trainers, strict=True):
            found = [*(p.detach() for p in kept.stack.parameters()), *kept.adam.means, *kept.adam.squares]
            assert all(torch.equal(a, b) for a, b in zip(train(own)[:-1], found, strict=True))


@pytest.mark.parametrize(
    "other",
    [
        {"posterior": "logistic"},
        {"likelihood": "normal"},
        {"alpha": 0.5},
        {"objective": "mass"},
        {"activation": "tanh"},
        {"rival": "mixture"},
        {"regulariser": "jeffreys"},
        {"estimator": "stl"},
        {"hidden": (40, 8)},
    ],
)
def test_others_go_by_the_graph(digits: Data, other: dict[str, object]) -> None:
    with fast_products():
        assert trainer(digits, [SPEC])._plain is not None
        assert trainer(digits, [SPEC.replace(**other)])._plain is None
    assert trainer(digits, [SPEC])._plain is None, "torch's own products"


def test_what_does_not_fit_is_refused(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WholeStep] = []

    def kept(*arguments: object) -> WholeStep:
        made.append(WholeStep(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(plain_module, "WholeStep", kept)
    with fast_products():
        trainer(digits, [SPEC, SPEC.replace(seed=1)])
    (step,) = made
    with pytest.raises(ValueError, match="at most 60 points"):
        step.prepare(torch.zeros(2, 1, 61), torch.zeros(2, 61))
    step.prepare(torch.zeros(2, 1, 20), torch.zeros(2, 20))
    x, xi = torch.zeros(20, 16), torch.zeros(2, 1, 20, 18)
    for args, words in (
        ((x, x, xi[:1]), "noise of shape"),
        ((x[:, :9], x, xi), "numbers"),
        ((x, x.double(), xi), "float64"),
        ((x, x, xi.transpose(2, 3).contiguous().transpose(2, 3)), "strides"),
    ):
        with pytest.raises(ValueError, match=words):
            step.take(*args, (0.1, 0.001))


VARIOUS = [
    {},
    {"likelihood": "continuous_bernoulli", "samples": 2},
    {"beta": 0.5, "hidden": ()},
    {"activation": "tanh"},
    {"hidden": (40, 12)},
    {"latent_dim": 5},
    {"posterior": "logistic"},
    {"posterior": "laplace", "prior": "laplace"},
    {"likelihood": "normal"},
    {"alpha": 0.5},
    {"rival": "mixture"},
    {"regulariser": "jeffreys"},
]


@pytest.mark.parametrize("products", ["fast", "float32"])
def test_who_is_plain_is_known_before_there_is_a_stack(digits: Data, products: str) -> None:
    found = []
    for settings in VARIOUS:
        spec = SPEC.replace(**settings)
        with fast_products(products):
            head = plain_head(Member(build(spec, digits.domain)), Feed(digits))
            assert (head is not None) == (trainer(digits, [spec])._plain is not None), settings
        assert head in (None, spec.likelihood)
        found.append(head is not None)
    assert found == [products == "fast" and place < 3 for place in range(len(VARIOUS))]


def test_in_a_population_of_many_beliefs_the_plain_ones_stand_together(digits: Data) -> None:
    beliefs = [{}, {"posterior": "logistic"}, {"likelihood": "continuous_bernoulli"}] * 3
    specs = [SPEC.replace(seed=seed, **belief) for seed, belief in enumerate(beliefs)]
    with fast_products():
        population = Population([Member(build(spec, digits.domain)) for spec in specs], Feed(digits), threads=2)
    plain = [one for one in population.trainers if one._plain is not None]
    assert sum(len(one.members) for one in plain) == 6
    assert all(len({spec.likelihood for spec in one.specs}) == 1 for one in plain)
    assert all(spec.posterior == "logistic" for one in population.trainers if one._plain is None for spec in one.specs)

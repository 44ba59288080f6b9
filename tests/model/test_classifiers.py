"""Classifiers: trained once, kept, taken up again after a kill; tasks, parts and judges; what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from autovae.model.cache import CARD, PROGRESS, WEIGHTS, Store
from autovae.model.classifiers import JUDGES, NETWORKS, TASKS, Classifier, ClassifierSettings, part_of, train_classifier
from autovae.model.trained_classifiers import classifier, judges


def bars(count: int = 240, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes of 8 x 8 images: a bright row at the top, in the middle, at the bottom."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (count,), generator=generator)
    x = 0.2 * torch.rand(count, 8, 8, generator=generator)
    x[torch.arange(count), 3 * y] += 0.7
    return x, y


def trained(cache, network: str = "mlp", **settings) -> Classifier:
    x, y = bars()
    chosen = ClassifierSettings(network=network, epochs=settings.pop("epochs", 8), batch_size=40, **settings)
    return train_classifier(x, y, "bars", shape=(8, 8), test=bars(100, seed=1), settings=chosen, cache=cache)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns_and_gives_features(network, tmp_path) -> None:
    net = trained(tmp_path, network)
    x, _ = bars(5, seed=2)
    assert net.accuracy > 0.95
    assert net(x).shape == net(x.flatten(1)).shape == (5, 3)
    assert net.features(x).shape[0] == 5
    assert torch.equal(net.head(net.features(x)), net(x))
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training


def test_the_second_call_reads_what_the_first_one_kept(tmp_path) -> None:
    first, state = trained(tmp_path), torch.random.get_rng_state()
    (folder,) = tmp_path.iterdir()
    changed = (folder / WEIGHTS).stat().st_mtime_ns
    second = trained(tmp_path)
    assert (folder / WEIGHTS).stat().st_mtime_ns == changed
    assert second.card == first.card
    assert torch.equal(first(bars()[0]), second(bars()[0]))
    assert torch.equal(torch.random.get_rng_state(), state)
    trained(tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 2, "another seed is another network"


def test_noise_in_training_is_another_network_that_noise_disturbs_less(tmp_path) -> None:
    assert "noise" not in ClassifierSettings().identity()  # networks kept before there was noise stay valid
    plain, noisy = trained(tmp_path), trained(tmp_path, noise=0.8)
    assert len(list(tmp_path.iterdir())) == 2
    assert noisy.card["noise"] == 0.8
    x, y = bars(500, seed=3)
    disturbed = x + 0.8 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    share = [float((net(disturbed).argmax(1) == y).double().mean()) for net in (plain, noisy)]
    assert share[1] > share[0]
    with pytest.raises(ValueError, match="noise=-1"):
        ClassifierSettings(noise=-1)


def test_weights_that_do_not_match_their_card_are_trained_again(tmp_path) -> None:
    first = trained(tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / WEIGHTS).write_bytes(b"anything else")
    assert torch.equal(trained(tmp_path)(bars()[0]), first(bars()[0]))


def test_a_killed_training_goes_on_with_the_same_result(tmp_path, monkeypatch) -> None:
    whole = trained(tmp_path / "whole")
    monkeypatch.setattr("autovae.model.classifiers.SAVE_EVERY", 0.0)

    class Killed(Exception):
        pass

    def kill(text: str) -> None:
        if "epoch 5/" in text:
            raise Killed

    x, y = bars()
    settings = ClassifierSettings(network="mlp", epochs=8, batch_size=40)
    with pytest.raises(Killed):
        train_classifier(x, y, "bars", shape=(8, 8), settings=settings, cache=tmp_path / "cut", say=kill)
    (folder,) = (tmp_path / "cut").iterdir()
    assert (folder / PROGRESS).is_file()
    assert not (folder / CARD).exists()
    resumed = trained(tmp_path / "cut")
    assert torch.equal(resumed(x), whole(x))
    assert not (folder / PROGRESS).exists()


def test_a_card_says_what_it_is_of(tmp_path) -> None:
    card = trained(tmp_path).card
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / CARD).read_text()) == card
    assert (card["task"], card["data"], card["training_points"], card["test_points"]) == ("label", "bars", 240, 100)


def test_parts_share_no_point_and_a_network_sees_its_part_alone(tmp_path) -> None:
    first, second = part_of(241, "first_half"), part_of(241, "second_half")
    assert torch.equal(torch.cat([first, second]).sort().values, part_of(241, "all"))
    x, y = bars()
    y[part_of(240, "second_half")] = 0  # whoever has seen these alone knows one class
    one, other = (
        train_classifier(
            x, y, "parts", shape=(8, 8), cache=tmp_path,
            settings=ClassifierSettings(network="mlp", epochs=8, batch_size=40, part=part),
        )
        for part in ("first_half", "second_half")
    )  # fmt: skip
    fresh, labels = bars(100, seed=1)
    assert float((one(fresh).argmax(1) == labels).float().mean()) > 0.9
    assert bool((other(fresh).argmax(1) == 0).all())


def test_tasks_of_digits() -> None:
    y = torch.arange(10)
    assert TASKS["odd"].targets(y).tolist() == [0, 1] * 5
    assert TASKS["closed_circle"].targets(y).nonzero()[:, 0].tolist() == [0, 6, 8, 9]
    with pytest.raises(ValueError, match="got the label 12; expected digits 0 to 9"):
        TASKS["digit"].targets(torch.tensor([3, 12]))


def test_a_number_is_predicted_in_its_own_units(tmp_path) -> None:
    x, _ = bars(300)
    y = 40 + 100 * x[:, 3, :].mean(1)
    net = train_classifier(
        x[:200], y[:200], "number", shape=(8, 8), test=(x[200:], y[200:]), task="number", cache=tmp_path,
        settings=ClassifierSettings(network="mlp", epochs=15, batch_size=30),
    )  # fmt: skip
    assert net(x).shape == (300,)
    assert net.card["r2"] > 0.95
    assert net.card["rmse"] < 10


def test_points_that_cannot_be_learnt_from_are_refused(tmp_path) -> None:
    x, y = bars(20)
    with pytest.raises(ValueError, match="have no labels"):
        train_classifier(x, None, "d", shape=(8, 8), cache=tmp_path)
    with pytest.raises(ValueError, match="one label per point"):
        train_classifier(x, y[:3], "d", shape=(8, 8), cache=tmp_path)
    with pytest.raises(ValueError, match="label 0 for the task"):
        train_classifier(x, 0 * y, "d", shape=(8, 8), cache=tmp_path)
    with pytest.raises(ValueError, match="not 0, 1, 2"):
        train_classifier(x, y - 1, "d", shape=(8, 8), cache=tmp_path)
    with pytest.raises(ValueError, match="at least 8 x 8"):
        train_classifier(x[:, 0], y, "d", shape=(8,), settings=ClassifierSettings(network="conv"), cache=tmp_path)
    with pytest.raises(ValueError, match="unknown task 'colour'"):
        train_classifier(x, y, "d", shape=(8, 8), task="colour", cache=tmp_path)
    with pytest.raises(ValueError, match="unknown part"):
        ClassifierSettings(part="third")
    with pytest.raises(ValueError, match="got points of 9 numbers"):
        trained(tmp_path, epochs=1)(torch.zeros(2, 9))


def test_a_data_set_by_name_and_its_judges(tmp_path) -> None:
    net = classifier("digits", "odd", network="mlp", epochs=5, cache=tmp_path)
    assert net.outputs == 2
    assert net.accuracy > 0.9
    assert len({(judge.network, judge.seed) for judge in JUDGES}) == len(JUDGES)
    answers = judges("digits", "odd", cache=tmp_path, epochs=1)
    assert [judge.card["part"] for judge in answers] == ["second_half"] * len(JUDGES)


def test_data_without_labels_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="has no labels"):
        classifier(torch.rand(50, 8, 8), cache=tmp_path)


def test_the_store_reads_nothing_that_is_not_there(tmp_path) -> None:
    store = Store("classifier", {"a": 1}, tmp_path)
    assert store.read() is None
    assert store.read_progress() is None
    assert store.folder != Store("classifier", {"a": 2}, tmp_path).folder

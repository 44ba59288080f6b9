"""Fits: rungs, checkpoints, resuming, memory, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autovae.data.datasets import Data
from autovae.spec import VAESpec
from autovae.training import loop
from autovae.training.loop import DivergedError, Event, Trained, fit, fit_population
from autovae.training.population import Population
from autovae.training.train_state import CheckpointError


class Killed(Exception):
    pass


def specs_of(spec: VAESpec, count: int) -> list[VAESpec]:
    return [spec.replace(seed=seed, learning_rate=0.01 / (1 + seed % 2)) for seed in range(count)]


def same(a: Trained, b: Trained) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return a.history == b.history and all(torch.equal(x, y) for x, y in pairs)


def test_a_single_fit_is_a_population_of_one(digits: Data, spec: VAESpec) -> None:
    assert same(fit(spec, digits), fit_population([spec], digits)[0])


def test_members_of_several_shapes_are_all_fitted(digits: Data, spec: VAESpec) -> None:
    specs = [spec, spec.replace(hidden=(6,)), spec.replace(seed=1), spec.replace(epochs=2)]
    trained = fit_population(specs, digits)
    assert [t.spec for t in trained] == specs
    assert [len(t.history) for t in trained] == [3, 3, 3, 2]
    assert trained[1].history[-1]["loss"] == pytest.approx(fit(specs[1], digits).history[-1]["loss"], rel=1e-5)


def test_double_precision_throughout(digits: Data, spec: VAESpec) -> None:
    trained = fit(spec, digits, dtype=torch.float64)
    assert trained.history[-1]["loss"] == pytest.approx(fit(spec, digits).history[-1]["loss"], rel=1e-1)
    assert all(torch.isfinite(p).all() for p in trained.model.parameters())


# ------------------------------------------------------------------------------------------------------------- rungs


def halve(heard: list[Event]) -> Any:
    """A pruner: at a rung the worse half stops, by training loss."""

    def on_event(event: Event) -> list[int]:
        heard.append(event)
        if event.kind != "rung":
            return []
        ranked = sorted(event.members, key=lambda place: event.rows[event.members.index(place)]["loss"])
        return ranked[(len(ranked) + 1) // 2 :]

    return on_event


def test_rungs_stop_members_and_put_the_rest_together(digits: Data, spec: VAESpec) -> None:
    heard: list[Event] = []
    specs = specs_of(spec.replace(epochs=4), 6)
    trained = fit_population(specs, digits, rungs=[1, 2], on_event=halve(heard))
    rungs = [event for event in heard if event.kind == "rung"]
    assert [(event.epoch, len(event.members)) for event in rungs] == [(1, 6), (2, 3)]
    assert sorted(len(t.history) for t in trained) == [1, 1, 1, 2, 4, 4]
    assert heard[-1].kind == "end"
    for place, t in enumerate(trained):  # stopping others has changed nothing
        alone = fit(specs[place], digits)
        assert [r["loss"] for r in t.history] == pytest.approx([r["loss"] for r in alone.history][: len(t.history)])


def test_waiting_members_take_their_places_in_order(
    digits: Data, spec: VAESpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[int, list[int]]] = []

    class Watched(Population):
        def __init__(self, members: Any, *settings: Any) -> None:
            super().__init__(members, *settings)
            built.append((self.epoch, [member.spec.seed for member in members]))

    monkeypatch.setattr(loop, "Population", Watched)
    dropped = {1: [1, 2, 4], 2: []}
    specs = [spec.replace(seed=seed) for seed in range(7)]
    fit_population(
        specs, digits, rungs=[1, 2], max_members=3, on_event=lambda e: dropped[e.epoch] if e.kind == "rung" else None
    )
    assert built == [
        (0, [0, 1, 2]),
        (0, [3, 4, 5]),
        (0, [6]),
        (1, [0, 3, 5]),  # no place stays empty where members were stopped
        (1, [6]),
        (2, [0, 3, 5]),
        (2, [6]),
    ]


# ------------------------------------------------------------------------------------------------------- checkpoints


def killed_run(when: tuple[str, int], specs: list[VAESpec], data: Data, folder: Path, **settings: Any) -> list[Event]:
    """Start a run that dies at the first event of this kind and epoch; what was heard until then."""
    heard: list[Event] = []
    answer = halve(heard)

    def on_event(event: Event) -> Any:
        result = answer(event)
        if (event.kind, event.epoch) == when:
            raise Killed
        return result

    with pytest.raises(Killed):
        fit_population(specs, data, checkpoint=folder, on_event=on_event, **settings)
    return heard


@pytest.mark.parametrize("when", [("epoch", 1), ("rung", 2), ("epoch", 3), ("epoch", 5)])
def test_a_killed_run_ends_as_if_it_had_not_been(
    digits: Data, spec: VAESpec, tmp_path: Path, when: tuple[str, int]
) -> None:
    specs = specs_of(spec.replace(epochs=6), 4)
    whole = fit_population(specs, digits, rungs=[2, 4], on_event=halve([]))
    killed_run(when, specs, digits, tmp_path, rungs=[2, 4])
    heard: list[Event] = []
    resumed = fit_population(specs, digits, rungs=[2, 4], checkpoint=tmp_path, on_event=halve(heard))
    assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
    first = min(event.epoch for event in heard if event.kind == "epoch")
    assert first >= when[1] - 1 - (when[1] - 1) % 2  # at most the work since the last rung is done again


def test_a_finished_run_is_not_trained_again(digits: Data, spec: VAESpec, tmp_path: Path) -> None:
    specs = specs_of(spec, 2)
    first = fit_population(specs, digits, checkpoint=tmp_path)
    heard: list[Event] = []
    again = fit_population(specs, digits, checkpoint=tmp_path, on_event=heard.append)
    assert [event.kind for event in heard] == ["end"]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))


def test_more_epochs_go_on_from_a_finished_run(digits: Data, spec: VAESpec, tmp_path: Path) -> None:
    fit(spec, digits, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="different: epochs"):
        fit(spec.replace(epochs=5), digits, checkpoint=tmp_path)


def test_damaged_rungs_are_named(digits: Data, spec: VAESpec, tmp_path: Path) -> None:
    (tmp_path / "rungs.json").write_text('{"1": [0')
    with pytest.raises(CheckpointError, match=r"rungs\.json"):
        fit(spec, digits, checkpoint=tmp_path)


# ------------------------------------------------------------------------------------------------------- own modules


def test_own_modules_for_every_spec(digits: Data, spec: VAESpec) -> None:
    def encoder(s: VAESpec) -> nn.Module:
        torch.manual_seed(s.seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 2 * s.latent_dim))

    specs = specs_of(spec, 3)
    made = [encoder(s) for s in specs]
    before = [next(module.parameters()).clone() for module in made]
    trained = fit_population(specs, digits, encoder=made)
    assert all(
        not torch.equal(a, next(module.parameters())) for a, module in zip(before, made, strict=True)
    )  # in place
    again = fit_population(specs, digits, encoder=encoder)
    assert all(same(a, b) for a, b in zip(trained, again, strict=True))


def test_one_own_module_does_not_serve_two(digits: Data, spec: VAESpec) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    with pytest.raises(ValueError, match="a list of 2 modules"):
        fit_population([spec, spec], digits, encoder=module)
    with pytest.raises(ValueError, match="1 encoders for 2 specs"):
        fit_population([spec, spec], digits, encoder=[module])


# ------------------------------------------------------------------------------------------------- devices and memory


def test_out_of_memory_halves_the_population_and_goes_on(
    digits: Data, spec: VAESpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Small(Population):
        def train_epoch(self) -> Any:
            sizes.append(len(self.members))
            if len(self.members) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return super().train_epoch()

    specs = specs_of(spec.replace(epochs=1), 5)
    whole = fit_population(specs, digits)
    monkeypatch.setattr(loop, "Population", Small)
    halved = fit_population(specs, digits)
    assert sizes == [5, 2, 2, 1]
    for a, b in zip(whole, halved, strict=True):
        assert a.history[0]["loss"] == pytest.approx(b.history[0]["loss"], rel=1e-5)


def test_one_member_out_of_memory_is_an_error(digits: Data, spec: VAESpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Population) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Population, "train_epoch", fail)
    with pytest.raises(MemoryError, match="lower batch_size"):
        fit(spec, digits)


def test_a_limit_too_small_for_one_member(digits: Data, spec: VAESpec) -> None:
    with pytest.raises(ValueError, match=r"needs \d+ MB to train, the limit is 0 MB"):
        fit(spec, digits, memory=1000)


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "tpu", "mps"])
def test_an_absent_device_is_an_error(digits: Data, spec: VAESpec, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match=device):
        fit(spec, digits, device=device)


def test_bad_input(digits: Data, spec: VAESpec) -> None:
    with pytest.raises(ValueError, match="at least one spec"):
        fit_population([], digits)
    with pytest.raises(ValueError, match=r"did you mean|known"):
        fit(spec, digits, products="fst")
    with pytest.raises(ValueError, match="CUDA's"):
        fit(spec, digits, products="tf32", device="cpu")
    with pytest.raises(ValueError):
        fit(spec, [np.zeros((4, 4), np.uint8), np.zeros((5, 5), np.uint8)])


def test_a_single_fit_that_diverges_is_an_error(digits: Data, spec: VAESpec) -> None:
    with pytest.raises(DivergedError, match="NaN from epoch"):
        fit(spec.replace(learning_rate=1e30, epochs=4), digits)


def test_bfloat16_products_train(digits: Data, spec: VAESpec) -> None:
    exact, narrow = fit(spec, digits), fit(spec, digits, products="bfloat16")
    assert narrow.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], rel=0.05)
    assert all(p.dtype == torch.float32 for p in narrow.model.parameters())

"""Members on disk: the same when read back, and an error that says what to do where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autovae.data.datasets import Data
from autovae.data.minibatches import Minibatches
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.population import Population
from autovae.training.train_state import CheckpointError, TrainState, load_state, save_state


@pytest.fixture
def trained(digits: Data, spec: VAESpec) -> TrainState:
    member = TrainState(build(spec, digits.domain))
    population = Population([member], Minibatches(digits))
    population.train_epoch()
    population.collect()
    return member


def test_read_back_bit_by_bit(trained: TrainState, tmp_path: Path) -> None:
    save_state(trained, tmp_path / "m.safetensors", "digest")
    found = load_state(tmp_path / "m.safetensors", digest="digest")
    assert (found.spec, found.epoch, found.steps, found.history) == (
        trained.spec,
        trained.epoch,
        trained.steps,
        trained.history,
    )
    assert found.moments.keys() == trained.moments.keys()
    assert all(torch.equal(value, trained.moments[name]) for name, value in found.moments.items())
    state = trained.vae.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.vae.state_dict().items())


def test_going_on_from_disk_is_going_on(trained: TrainState, digits: Data, tmp_path: Path) -> None:
    save_state(trained, tmp_path / "m.safetensors")
    other = load_state(tmp_path / "m.safetensors")
    for member in (trained, other):
        population = Population([member], Minibatches(digits))
        population.train_epoch()
        population.collect()
    assert trained.history == other.history
    assert all(torch.equal(a, b) for a, b in zip(trained.vae.parameters(), other.vae.parameters(), strict=True))


def test_nothing_half_written_is_left(trained: TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(trained, tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    monkeypatch.setattr("autovae.training.train_state.os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_state(trained, tmp_path / "m.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    assert (tmp_path / "m.safetensors").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "flipped header"])
def test_a_damaged_file_is_named(trained: TrainState, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.safetensors"
    save_state(trained, path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "words": b"not a file",
            "flipped header": b"\xff" * 8 + whole[8:],
        }[damage]
    )
    with pytest.raises(CheckpointError, match=r"m\.safetensors.*delete it to start again"):
        load_state(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name, metadata in (("a", None), ("b", {"autovae": "{}"}), ("c", {"autovae": "[1]"}), ("d", {"autovae": '"x"'})):
        save_file({"x": torch.zeros(2)}, tmp_path / name, metadata=metadata)
        with pytest.raises(CheckpointError, match="delete it"):
            load_state(tmp_path / name)


def test_other_data_and_other_specs_are_refused(
    trained: TrainState, digits: Data, spec: VAESpec, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    save_state(trained, path, digits.digest)
    with pytest.raises(CheckpointError, match="other data"):
        load_state(path, digest="another")
    with pytest.raises(CheckpointError, match=r"different: learning_rate"):
        load_state(path, build(spec.replace(learning_rate=0.5), digits.domain))

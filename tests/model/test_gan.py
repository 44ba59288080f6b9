"""Wasserstein GANs: the penalty, training that is kept and resumed, conditional generators, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autovae.export.prior import PriorModule
from autovae.model import gan
from autovae.model.cache import CARD, PROGRESS
from autovae.model.gan import Critic, GANSettings, Generator, train_gan


def halves(count: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """8 x 8 images that are bright on the left (0) or on the right (1)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=generator)
    x = 0.1 * torch.rand(count, 8, 8, generator=generator)
    x[y == 0, :, :4] += 0.8
    x[y == 1, :, 4:] += 0.8
    return x, y


SHORT = GANSettings(latent_dim=4, width=4, steps=100, critic=1, batch_size=16, average=0.8, learning_rate=5e-3)


def trained(cache, conditional: bool = False, settings: GANSettings = SHORT, **more) -> Generator:
    x, y = halves()
    return train_gan(x, "halves", shape=(8, 8), y=y if conditional else None, settings=settings, cache=cache, **more)


def test_a_conditional_generator_makes_what_it_is_asked_for(tmp_path) -> None:
    made = trained(tmp_path, conditional=True).sample(100, torch.Generator().manual_seed(0), torch.arange(100) % 2)
    side = (made[..., 4:].mean((1, 2)) > made[..., :4].mean((1, 2))).long()
    assert float((side == torch.arange(100) % 2).float().mean()) > 0.95
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1


def test_training_is_seeded_and_kept(tmp_path) -> None:
    short = GANSettings(latent_dim=4, width=4, steps=20, critic=2, batch_size=8)
    state = torch.random.get_rng_state()
    first = trained(tmp_path, settings=short)
    assert torch.equal(torch.random.get_rng_state(), state)
    z = torch.randn(3, 4)
    assert torch.equal(trained(tmp_path, settings=short)(z), first(z))
    assert torch.equal(trained(tmp_path / "again", settings=short)(z), first(z))
    assert first.card["data"] == "halves"
    assert len(first.card["distance"]) == 1


def test_a_killed_training_goes_on_with_the_same_result(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("autovae.model.gan.SAVE_EVERY", 0.0)
    monkeypatch.setattr("autovae.model.gan.BLOCK", 5)
    short = GANSettings(latent_dim=4, width=4, steps=40, critic=2, batch_size=8)
    whole = trained(tmp_path / "whole", settings=short)

    class Killed(Exception):
        pass

    def kill(text: str) -> None:
        if text.startswith("GAN: 30/"):
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path / "cut", settings=short, say=kill)
    (folder,) = (tmp_path / "cut").iterdir()
    assert (folder / PROGRESS).is_file()
    assert not (folder / CARD).exists()
    resumed = trained(tmp_path / "cut", settings=short)
    z = torch.randn(3, 4)
    assert torch.equal(resumed(z), whole(z))
    assert len(resumed.card["distance"]) == 4


def test_the_critic_sees_the_label_as_an_outer_product() -> None:
    critic = Critic((8, 8), width=4, classes=3).double()
    x = torch.rand(2, 8, 8, dtype=torch.float64)
    outer = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    outer[0, 2], outer[1, 0] = x[0], x[1]
    assert torch.allclose(critic(x, torch.tensor([2, 0])), critic.body(outer)[:, 0])


def test_a_generator_becomes_a_prior() -> None:
    generator = Generator(5, (8, 12), width=2)
    prior = PriorModule.from_decoder(generator, latent_dim=5)
    assert prior(torch.zeros(3, 5)).shape == (3, 8, 12)


def test_bad_input_is_refused(tmp_path) -> None:
    x, y = halves(20)
    with pytest.raises(ValueError, match=r"not all in \[0, 1\]"):
        train_gan(x - 1, "d", shape=(8, 8), cache=tmp_path)
    with pytest.raises(ValueError, match="one label per point"):
        train_gan(x, "d", shape=(8, 8), y=y[:5], cache=tmp_path)
    with pytest.raises(ValueError, match="multiples of 4"):
        Generator(4, (9, 9))
    with pytest.raises(ValueError, match="sizes of at least 1"):
        GANSettings(steps=0)
    generator = Generator(4, (8, 8), width=2, classes=3)
    with pytest.raises(ValueError, match="no labels for a generator of 3 classes"):
        generator(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="got labels 7 to 7; expected 0 to 2"):
        generator.sample(2, torch.Generator(), 7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
@pytest.mark.parametrize("conditional", [False, True])
def test_a_gpu_trains_the_same_generator_as_one_captured_graph(conditional, tmp_path, monkeypatch) -> None:
    kept = []
    record = gan._Captured._record

    def recording(self, draws) -> None:
        record(self, draws)
        kept.append(self.graph)

    monkeypatch.setattr("autovae.model.gan._Captured._record", recording)
    few = GANSettings(latent_dim=4, width=4, steps=24, critic=3, batch_size=16)
    here = trained(tmp_path / "cpu", conditional, few)
    there = trained(tmp_path / "cuda", conditional, few, device="cuda")
    assert kept[0] is not None
    assert there.card["trained_on"] == "cuda"
    for ours, theirs in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=1e-2)
    assert there.card["distance"] == pytest.approx(here.card["distance"], abs=0.05)

"""Save and load: the same numbers back, and nothing that was tampered with."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import autovae
from autovae.data.datasets import load
from autovae.export.card import CardError, load_prior, load_vae, save_vae
from autovae.model.vae import build
from autovae.spec import VAESpec


def saved(tmp_path, data, **settings):
    vae = build(VAESpec(latent_dim=3, hidden=(8,), **settings), data.domain)
    return vae, save_vae(vae, data, tmp_path / "prior", {"score": {"bits": "3.1 +- 0.1"}})


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "normal"])
@pytest.mark.parametrize("scale", ["global", "pixel", 0.1])
def test_save_then_load_is_identical(tmp_path, likelihood, scale):
    data = load("digits")
    vae, folder = saved(tmp_path, data, likelihood=likelihood, scale=scale, prior={"normal": 2, "cauchy": 1})
    prior = load_prior(folder)
    z = prior.sample(5, generator=torch.Generator().manual_seed(0))
    stack = vae.stacked
    torch.testing.assert_close(prior.decode(z), stack.mean(stack.decode(z[None]))[0, 0].view(5, 8, 8))
    unsaved = autovae.to_prior(autovae.training.loop.Trained(vae, [], vae.spec, data))
    assert torch.equal(prior.decode(z), unsaved.decode(z))
    again, card = load_vae(folder)
    for one, other in zip(vae.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert card["data"]["name"] == "digits"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "card.json", "config.json", "README.md"}


def test_real_data_come_back_in_their_own_units(tmp_path):
    x = np.random.default_rng(0).normal(1000.0, 50.0, (60, 4))
    data = load(x)
    vae, folder = saved(tmp_path, data, likelihood="normal")
    trained = autovae.training.loop.Trained(vae, [], vae.spec, data)
    for prior in (load_prior(folder), autovae.to_prior(trained)):
        assert 800 < prior.decode(prior.sample(50)).mean() < 1200


def test_a_prior_in_memory_leaves_the_fit_trainable():
    data = load("digits")
    vae = build(VAESpec(latent_dim=3, hidden=(8,)), data.domain)
    prior = autovae.to_prior(autovae.training.loop.Trained(vae, [], vae.spec, data))
    assert not any(p.requires_grad for p in prior.parameters())
    assert all(p.requires_grad for p in vae.decoder.parameters())


def tamper_card(folder, **changes):
    path = folder / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n"), "SHA-256"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda f: (f / "card.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "card.json").unlink(), "no saved prior"),
        (lambda f: tamper_card(f, format="autovae-card-99"), "autovae-card-99"),
        (lambda f: tamper_card(f, spec={"latent_dim": 4, "hidden": [8]}), "does not hold the model"),
        (lambda f: tamper_card(f, spec={"latent_dim": "x"}), "does not hold the model"),
        (lambda f: tamper_card(f, domain={"shape": [8, 8]}), "does not hold the model"),
        (lambda f: tamper_card(f, data="digits"), "'data' must be a dict"),
        (lambda f: (f / "card.json").write_text("[1]"), "format 'list'"),
    ],
)
def test_a_folder_that_was_changed_is_refused(tmp_path, damage, words):
    _, folder = saved(tmp_path, load("digits"))
    damage(folder)
    with pytest.raises(CardError, match=words) as error:
        load_prior(folder)
    assert "\n" not in str(error.value)


def test_a_network_of_ones_own_is_not_saved_as_another(tmp_path):
    data = load("digits")
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    vae = build(VAESpec(latent_dim=3, hidden=(8,)), data.domain, encoder=encoder)
    with pytest.raises(CardError, match="NETWORKS"):
        save_vae(vae, data, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()

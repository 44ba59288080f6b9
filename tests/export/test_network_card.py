"""Constraint networks on disk: the same network back, and nothing that was tampered with or that is code."""

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from autovae.export.card import CardError
from autovae.export.network_card import LAYERS, load_network, read_network_card, save_network
from autovae.export.prior import PriorModule
from autovae.model.classifiers import NETWORKS, ClassifierSettings, train_classifier
from autovae.reasoning import Categorical, LatentPosterior

IMAGES = (3, 8, 8)
CONVOLUTION = nn.Sequential(
    nn.Unflatten(1, IMAGES),
    nn.Conv2d(3, 4, (3, 3), stride=2, padding=1, bias=False),
    nn.BatchNorm2d(4),
    nn.LeakyReLU(0.1),
    nn.ConvTranspose2d(4, 4, 3, output_padding=1, stride=2),
    nn.ELU(0.5),
    nn.MaxPool2d(2),
    nn.AvgPool2d(1),
    nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.SiLU(), nn.Flatten()),
    nn.LayerNorm(16),
    nn.Linear(16, 5, bias=False),
    nn.Dropout(0.3),
    nn.GELU("tanh"),
    nn.Softplus(2.0),
    nn.Tanh(), nn.Sigmoid(), nn.ReLU(), nn.Identity(),
    nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.BatchNorm1d(6), nn.LogSoftmax(1),
)  # fmt: skip


def trained(**settings):
    x = torch.rand(60, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (x.mean((1, 2)) > 0.5).long()
    return train_classifier(x, y, "digest", shape=(8, 8), settings=ClassifierSettings(epochs=1, **settings))


def test_a_network_of_known_layers_comes_back(tmp_path):
    assert {type(layer) for layer in CONVOLUTION.modules()} - {nn.Sequential} == set(LAYERS)
    for tensor in CONVOLUTION.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    folder = save_network(CONVOLUTION, tmp_path / "net", {"task": "colour", "accuracy": 0.9})
    net = load_network(folder)
    x = torch.rand(4, 192)
    assert torch.equal(net(x), CONVOLUTION.eval()(x))
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert read_network_card(folder)["about"] == {"task": "colour", "accuracy": 0.9}
    assert "| task | colour |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_classifier_comes_back_with_its_card(tmp_path, monkeypatch, network):
    monkeypatch.setattr("autovae.model.cache.cache_folder", lambda: tmp_path / "networks")
    net = trained(network=network)
    again = load_network(save_network(net, tmp_path / "net"))
    x = torch.rand(4, 64)
    assert torch.equal(again(x), net(x))
    assert torch.equal(again.features(x), net.features(x))
    assert again.card == net.card
    assert again.shape == net.shape


def test_a_loaded_network_serves_a_constraint(tmp_path):
    net = nn.Sequential(nn.Linear(4, 3))
    prior = PriorModule(nn.Linear(2, 4), ["normal"] * 2)
    values = [
        LatentPosterior(prior, Categorical(n, 1)).log_prob(torch.ones(3, 2))
        for n in (net, load_network(save_network(net, tmp_path / "net")))
    ]
    assert torch.equal(*values)


class Own(nn.Module):
    def forward(self, x):
        return x


class OwnLinear(nn.Linear):
    """Looks like a layer of the table and may do anything."""


@pytest.mark.parametrize("net", [Own(), nn.Sequential(nn.Linear(2, 2), Own()), OwnLinear(2, 2)])
def test_code_of_ones_own_is_not_saved(tmp_path, net):
    with pytest.raises(CardError, match="LAYERS"):
        save_network(net, tmp_path / "net")
    assert not (tmp_path / "net").exists()


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def seal(folder, **changes):
    card = json.loads((folder / "card.json").read_text()) | changes
    card["weights_sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    seal(folder)


def plain(folder, value):
    seal(folder, network={"plain": value})


LINEAR = {"layer": "Linear", "in_features": 2, "out_features": 3, "bias": True}
DAMAGES = {
    "hash": (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n"), "SHA-256"),
    "gone": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
    "no card": (lambda f: (f / "card.json").unlink(), "no saved network"),
    "pickle": (lambda f: ((f / "model.safetensors").write_bytes(pickle.dumps(Trap())), seal(f)), "does not hold"),
    "shape": (lambda f: rewrite(f, lambda t: t.update({"weight": torch.zeros(3, 3)})), "does not hold"),
    "missing": (lambda f: rewrite(f, lambda t: t.pop("bias")), "does not hold"),
    "surplus": (lambda f: rewrite(f, lambda t: t.update({"more": torch.zeros(1)})), "does not hold"),
    "unknown layer": (lambda f: plain(f, LINEAR | {"layer": "Linaer"}), "did you mean 'Linear'"),
    "any class": (lambda f: plain(f, LINEAR | {"layer": "os.system"}), "does not hold"),
    "unknown setting": (lambda f: plain(f, LINEAR | {"device": "cpu"}), "no settings device"),
    "huge": (lambda f: plain(f, LINEAR | {"out_features": 10**12}), "does not hold"),
    "no layer": (lambda f: plain(f, 3), "does not hold"),
    "kind": (lambda f: seal(f, kind="pickle"), "does not hold"),
    "format": (lambda f: seal(f, format="autovae-card-1"), "autovae-card-1"),
    "field": (lambda f: seal(f, network=[]), "'network' must be a dict"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_changed_folder_is_refused(tmp_path, name):
    folder = save_network(nn.Linear(2, 3), tmp_path / "net")
    load_network(folder)
    damage, words = DAMAGES[name]
    damage(folder)
    with pytest.raises(CardError, match=words) as error:
        load_network(folder)
    assert "\n" not in str(error.value)

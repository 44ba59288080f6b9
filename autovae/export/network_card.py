r"""Constraint networks on disk with a card: a growing library of modules.

    save_network(net, "library/digit", {"task": "digit", "accuracy": 0.99})          net = load_network("library/digit")

A folder holds model.safetensors and card.json but no code, so plain values must describe the network:

| kind | network | plain values |
|---|---|---|
| classifier | `model.classifiers.Classifier` | its name in that table, shape, outputs and card |
| layers | torch Sequentials, nested, of the layers in LAYERS | the settings of every layer |

A loaded network is frozen and in evaluation mode. Weights must agree with their checksum and with every shape; nothing is
unpickled. To add a layer, put it in LAYERS with the names of its settings.
Not here: priors (`card`), how a classifier is trained (`model.classifiers`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from autovae.export.folders import UNREADABLE, CardError, not_the_model, read_json, read_weights, versions, write_folder
from autovae.model.classifiers import Classifier
from autovae.registry import lookup

__all__ = ["FORMAT", "LAYERS", "load_network", "read_network_card", "save_network"]

FORMAT = "autovae-network-1"

_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    nn.ConvTranspose2d: (*_CONVOLUTION, "output_padding"),
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding"),
    nn.AvgPool2d: ("kernel_size", "stride", "padding"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Unflatten: ("dim", "unflattened_size"),
    nn.Dropout: ("p",),
    nn.ELU: ("alpha",),
    nn.LeakyReLU: ("negative_slope",),
    nn.GELU: ("approximate",),
    nn.Softplus: ("beta", "threshold"),
    nn.LogSoftmax: ("dim",),
    nn.Identity: (),
    nn.ReLU: (),
    nn.SiLU: (),
    nn.Sigmoid: (),
    nn.Tanh: (),
}
"""Each layer with the settings that build it again; whether it has a bias is added where it may have none."""

_BY_NAME = {layer.__name__: layer for layer in LAYERS}
_BIAS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm)


def _layers(net: nn.Module) -> Any:
    """Plain values of a network of known layers: a list for a Sequential."""
    if type(net) is nn.Sequential:
        return [_layers(layer) for layer in net]
    if type(net) not in LAYERS:
        known = ", ".join(sorted(_BY_NAME))
        raise CardError(
            f"got a network with a {type(net).__name__}, and a saved folder holds no code; build it of Sequentials of "
            f"{known}, or add the layer to autovae.export.network_card.LAYERS"
        )
    settings = {name: getattr(net, name) for name in LAYERS[type(net)]}
    if isinstance(net, _BIAS):
        settings["bias"] = getattr(net, "bias", None) is not None
    return {"layer": type(net).__name__, **settings}


def _build_layers(plain: Any) -> nn.Module:
    if isinstance(plain, list):
        return nn.Sequential(*map(_build_layers, plain))
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    layer = lookup(_BY_NAME, str(settings.pop("layer")), "layer")
    unknown = settings.keys() - {*LAYERS[layer], "bias"}
    if unknown:
        raise ValueError(f"{layer.__name__} has no settings {', '.join(sorted(unknown))}")
    return layer(**settings)


def _classifier(net: Classifier) -> dict[str, Any]:
    if "network" not in net.card:
        raise CardError("got a classifier without a card; make it with train_classifier, which writes one")
    return {"network": net.card["network"], "shape": list(net.shape), "outputs": net.outputs, "card": net.card}


def _build_classifier(plain: Mapping[str, Any]) -> Classifier:
    shape = tuple(int(size) for size in plain["shape"])
    return Classifier(str(plain["network"]), shape, int(plain["outputs"]), dict(plain["card"]))


KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], nn.Module]]] = {
    "classifier": (_classifier, _build_classifier),
    "layers": (_layers, _build_layers),
}


def save_network(net: nn.Module, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> Any:
    """Write a network to `folder`; `about` (plain values: task, classes, accuracy, data) goes into the card.

    Raises `CardError` for layers that are not in LAYERS: a folder holds no code to rebuild them from.
    """
    kind = "classifier" if isinstance(net, Classifier) else "layers"
    card = {
        "format": FORMAT,
        "kind": kind,
        "network": {"plain": KINDS[kind][0](net)},
        "about": dict(about or {}),
        "versions": versions(),
    }
    return write_folder(folder, net.state_dict(), card, lambda full: {"README.md": _readme(full)})


def _readme(card: Mapping[str, Any]) -> str:
    facts = {**card["about"]}
    if card["kind"] == "classifier":
        facts = {**{k: v for k, v in card["network"]["plain"]["card"].items() if not isinstance(v, dict)}, **facts}
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(
        [
            "# AutoVAE constraint network",
            "",
            "```python",
            "from autovae.export.network_card import load_network",
            "from autovae.reasoning import Categorical",
            "evidence = Categorical(load_network('.'), 3)",
            "```",
            "",
            *(["| fact | value |", "|---|---|", *rows, ""] if rows else []),
            f"Weights: safetensors, SHA-256 {card['weights_sha256']}.",
            "",
        ]
    )


def read_network_card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked card of a folder written by `save_network`."""
    return read_json(folder, FORMAT, "network", {"kind": str, "network": dict, "about": dict, "versions": dict})


def load_network(folder: str | os.PathLike[str]) -> nn.Module:
    """The network of a folder, frozen and in evaluation mode. Raises `CardError` where the folder is not whole."""
    card = read_network_card(folder)
    tensors = read_weights(folder, card)
    try:
        build = lookup(KINDS, card["kind"], "kind of network")[1]
        with torch.device("meta"):  # a card may claim any size; only tensors that are here take memory
            net = build(card["network"]["plain"])
        net.load_state_dict(tensors, assign=True)
    except UNREADABLE as error:
        raise not_the_model(folder, error) from None
    return net.eval().requires_grad_(False)

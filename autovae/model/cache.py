r"""A cache of trained networks: weights in the user cache under a hash of everything they depend on.

    <cache>/networks/<kind>-<hash>/model.safetensors     weights of the finished network
                                   card.json             what it is, its accuracy, the SHA-256 of the weights
                                   progress.safetensors  a checkpoint of unfinished training: weights, optimiser, step

The hash covers data digest, settings and the version of the training code, so entries never become stale: other settings
use another folder. Files are written atomically and nothing is unpickled; weights that do not match their card are
trained again. Not here: what is trained (`classifiers`, `gan`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from autovae.files import write_bytes, write_text

__all__ = ["Store", "pack_optimizer", "unpack_optimizer"]

WEIGHTS, CARD, PROGRESS = "model.safetensors", "card.json", "progress.safetensors"


def cache_folder() -> Path:
    """The user cache of trained networks."""
    import pooch

    return Path(pooch.os_cache("autovae")) / "networks"


@dataclass(frozen=True)
class Store:
    """The folder of one network, addressed by its identity (plain values)."""

    kind: str
    identity: Mapping[str, Any]
    cache: Path | None = None
    """The folder to use instead of the user cache."""

    @property
    def folder(self) -> Path:
        text = json.dumps({"kind": self.kind, **self.identity}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return (self.cache or cache_folder()) / f"{self.kind}-{digest}"

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Weights and card of the finished network; None if it does not exist or its files were changed."""
        try:
            card = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
            content = (self.folder / WEIGHTS).read_bytes()
            if card["sha256"] != hashlib.sha256(content).hexdigest():
                return None
            return load(content), card
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def write(self, module: nn.Module, card: Mapping[str, Any]) -> dict[str, Any]:
        """Save the finished network and delete its checkpoint; returns the card as written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = save({name: t.detach().contiguous().cpu() for name, t in module.state_dict().items()})
        full = {**card, **self.identity, "sha256": hashlib.sha256(content).hexdigest()}
        write_bytes(self.folder / WEIGHTS, content)
        write_text(self.folder / CARD, json.dumps(full, indent=1))
        (self.folder / PROGRESS).unlink(missing_ok=True)
        return full

    def read_progress(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and position of unfinished training; None without a readable checkpoint."""
        path = self.folder / PROGRESS
        try:
            with safe_open(path, framework="pt") as file:
                place = json.loads((file.metadata() or {})["place"])
                return {name: file.get_tensor(name) for name in file.keys()}, place  # noqa: SIM118  no mapping
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    def write_progress(self, tensors: Mapping[str, Tensor], place: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = {name: t.detach().clone(memory_format=torch.contiguous_format).cpu() for name, t in tensors.items()}
        write_bytes(self.folder / PROGRESS, save(whole, metadata={"place": json.dumps(dict(place))}))


def pack_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimiser's tensors, named prefix.parameter.entry."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{k}": torch.as_tensor(v) for i, entries in state.items() for k, v in entries.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Restore the optimiser from `pack_optimizer`'s tensors."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            number, entry = name.removeprefix(prefix + ".").split(".")
            state.setdefault(int(number), {})[entry] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

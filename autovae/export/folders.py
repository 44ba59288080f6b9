"""Folders of weights with a card: model.safetensors and card.json, whole or refused.

The card holds the SHA-256 of the weights, so neither changes without the other; it is plain JSON with checked fields, and
nothing in a folder is unpickled or run. Files are written under a temporary name
and renamed, weights first. Not here: the contents of cards (`card` of priors, `network_card` of constraint networks).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from autovae import __version__
from autovae.files import write_bytes, write_text

__all__ = [
    "CARD",
    "UNREADABLE",
    "WEIGHTS",
    "CardError",
    "machine",
    "not_the_model",
    "read_json",
    "read_weights",
    "versions",
    "write_folder",
]

WEIGHTS, CARD = "model.safetensors", "card.json"
UNREADABLE = (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError)
"""Raised by building a model from a wrong card or wrong tensors."""


class CardError(ValueError):
    """A folder that is not a saved model, or was changed since."""


def versions() -> dict[str, str]:
    """The versions behind a result."""
    found = {"python": platform.python_version(), "autovae": __version__}
    for package in ("torch", "optuna", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device | str | None = None) -> str:
    """The machine behind a result: the GPU of a CUDA `device` (None: if there is one), the processor, usable cores."""
    known = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", known.read_text(errors="replace")) if known.is_file() else None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    used = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    gpu = f"{torch.cuda.get_device_name(used)}, " if used.type == "cuda" else ""
    return f"{gpu}{name}, {cores} cores, {platform.system()}"


def write_folder(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    texts: Callable[[Mapping[str, Any]], Mapping[str, str]],
) -> Path:
    """Weights, the card with their checksum, and further files: `texts` makes them from the card, name -> content."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    content = save(plain, metadata={"format": "pt"})
    full = {**card, "weights_sha256": hashlib.sha256(content).hexdigest()}
    write_bytes(target / WEIGHTS, content)
    write_text(target / CARD, json.dumps(full, indent=2) + "\n")
    for name, text in texts(full).items():
        write_text(target / name, text)
    return target


def read_json(folder: str | os.PathLike[str], form: str, what: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """The card of a folder: of format `form`, with these fields of these kinds. `what` names the thing in errors."""
    path = Path(folder) / CARD
    if not path.is_file():
        raise CardError(
            f"{folder} is no saved {what}: it has no {CARD}; expected a folder such as results/STUDY/winners/1"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CardError(f"{path} is not valid JSON ({error}); export the {what} again") from None
    if not isinstance(card, dict) or card.get("format") != form:
        got = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise CardError(f"{path} has format {got!r}, expected {form!r}; export the {what} again with this version")
    for field, kind in {**fields, "weights_sha256": str}.items():
        if not isinstance(card.get(field), kind):
            raise CardError(f"{path}: {field!r} must be a {kind.__name__}; export the {what} again")
    return card


def read_weights(folder: str | os.PathLike[str], card: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a folder, whose checksum agrees with the card."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise CardError(f"{folder} has a card but no {WEIGHTS}; export it again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != card["weights_sha256"]:
        raise CardError(f"{path} is not the file that its card describes (SHA-256 differs); export it again")
    try:
        return load(content)
    except UNREADABLE as error:
        raise not_the_model(folder, error) from None


def not_the_model(folder: str | os.PathLike[str], error: Exception) -> CardError:
    """The error of a folder whose tensors do not fit its card, in one line."""
    reason = " ".join(str(error).split())[:300]
    return CardError(f"{folder} does not hold the model that its card describes: {reason}")

r"""Cards: a trained VAE on disk as model.safetensors, card.json and README.md, and back as a `PriorModule` or a `VAE`.

    model.safetensors   encoder.*, decoder.*, raw_scale, offset, unit; rival.*, flow_posterior.* where there are
    card.json           format, spec, domain, data (name, digest, licence), scores with errors, versions, SHA-256 of the weights
    README.md           the card for people

Loading trusts nothing: the weights' checksum and every shape are compared with the card, the card is plain JSON checked
field by field, the network is built from the table NETWORKS, and nothing is unpickled. Files are written under a
temporary name and renamed. Not here: what a prior module does (`prior`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from autovae.beliefs.priors import Components, FlowPrior
from autovae.data.datasets import Data
from autovae.export.prior import PriorModule
from autovae.export.transport import FlowMap, MixtureMap, Transport
from autovae.files import write_text
from autovae.model.networks import NETWORKS
from autovae.model.vae import VAE, build
from autovae.spec import Domain, VAESpec
from autovae.training.loop import Trained

__all__ = ["FORMAT", "CardError", "load_prior", "load_standardised", "load_vae", "read_card", "save_vae", "to_prior"]

FORMAT = "autovae-card-1"
WEIGHTS, CARD, README = "model.safetensors", "card.json", "README.md"


class CardError(ValueError):
    """A folder that is not a prior, or no longer the one that was saved."""


def versions() -> dict[str, str]:
    """The versions that made a result."""
    found = {"python": platform.python_version()}
    for package in ("autovae", "torch", "optuna", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _model_units(data: Data) -> tuple[Tensor, Tensor]:
    """offset and unit with which x in model units becomes x in data units."""
    return torch.as_tensor(data.mean, dtype=torch.float32), torch.as_tensor(data.scale, dtype=torch.float32)


def _source(vae: VAE) -> tuple[list[str], Transport | None]:
    """The families of the prior, and the map before them where a rival has taken its place."""
    families, rival = [prior for _, prior in vae.spec.pairs], vae.rival
    if isinstance(rival, FlowPrior):
        return families, FlowMap(rival.flow)
    if isinstance(rival, Components):
        stack = vae.stacked.eval()
        with torch.no_grad():
            loc, scale, log_weights = rival.components(stack.encode)
        return ["normal"] * len(families), MixtureMap(loc[0], scale[0], log_weights[0], rival.families(stack.pairing))
    return families, None


def _prior(vae: VAE, offset: Tensor, unit: Tensor, card: dict[str, Any]) -> PriorModule:
    likelihood = vae.likelihood
    scale: Tensor | str | None = None
    if likelihood.has_scale:
        scale = "pixel" if vae.spec.scale == "pixel" else vae.scale.detach()
    families, transport = _source(vae)
    return PriorModule(
        vae.decoder,
        families,
        likelihood=vae.spec.likelihood,
        scale=scale,
        scale_floor=vae.domain.scale_floor,
        offset=offset,
        unit=unit,
        shape=vae.domain.shape,
        transport=transport,
        card=card,
    )


def to_prior(trained: Trained, card: Mapping[str, Any] | None = None) -> PriorModule:
    """The generator of a fit as a frozen prior module; the fit itself stays as it is."""
    return _prior(copy.deepcopy(trained.model).cpu(), *_model_units(trained.data), dict(card or {}))


def save_vae(vae: VAE, data: Data, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> Path:
    """Write a trained VAE to `folder`; `about` (plain values: study, trial, scores) goes into the card.

    Raises `CardError` for networks that are not in NETWORKS, since a folder holds no code to rebuild them from.
    """
    for part, expected in (("encoder", build_like(vae).encoder), ("decoder", build_like(vae).decoder)):
        own = [tuple(p.shape) for p in getattr(vae, part).parameters()]
        if own != [tuple(p.shape) for p in expected.parameters()] or type(getattr(vae, part)) is not type(expected):
            raise CardError(
                f"the {part} is a module of your own, and a saved folder holds no code; add it to "
                f"autovae.model.networks.NETWORKS under a name and use VAESpec(network=name). Known: {', '.join(NETWORKS)}"
            )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    offset, unit = _model_units(data)
    tensors = {name: value.detach().cpu().contiguous() for name, value in vae.state_dict().items()}
    tensors |= {"offset": offset.contiguous(), "unit": unit.contiguous()}
    temporary = target / f".{WEIGHTS}.{os.getpid()}.tmp"
    try:
        save_file(tensors, temporary, metadata={"format": "pt"})
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        os.replace(temporary, target / WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)
    card = {
        "format": FORMAT,
        "spec": vae.spec.to_dict(),
        "domain": vae.domain.to_dict(),
        "data": {
            "name": data.name, "digest": data.digest, "source": data.source, "licence": data.licence, "note": data.note
        },
        "versions": versions(),
        "weights_sha256": digest,
        **dict(about or {}),
    }  # fmt: skip
    write_text(target / CARD, json.dumps(card, indent=2) + "\n")
    write_text(target / README, _readme(card))
    return target


def build_like(vae: VAE) -> VAE:
    """A fresh VAE of the same spec and domain, from the table of networks."""
    return build(vae.spec, vae.domain)


def _readme(card: Mapping[str, Any]) -> str:
    spec = VAESpec.from_dict(card["spec"])
    shape = " x ".join(str(size) for size in card["domain"]["shape"])
    score = card.get("score", {})
    lines = [
        f"# AutoVAE prior: {spec.belief}",
        "",
        f"A frozen generator of {card['data']['name']} ({shape}), trained by AutoVAE {card['versions'].get('autovae', '')}.",
        f"{spec.latent_dim} latents, hidden layers {list(spec.hidden)}, {spec.epochs} epochs, seed {spec.seed}.",
        "",
        "```python",
        "import autovae",
        "prior = autovae.load_prior('.')",
        "x = prior.decode(prior.sample(64))",
        "```",
        "",
    ]
    if score:
        lines += ["| score | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in score.items()), ""]
    lines += [f"Data: {card['data']['note']}. Licence of the data: {card['data']['licence']}.", ""]
    return "\n".join(lines)


def read_card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked card of a folder."""
    path = Path(folder) / CARD
    if not path.is_file():
        raise CardError(
            f"{folder} is no saved prior: it has no {CARD}; expected a folder such as results/STUDY/winners/1"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path} is not valid JSON ({error}); export the prior again") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        got = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise CardError(f"{path} has format {got!r}, expected {FORMAT!r}; export the prior again with this version")
    for field, kind in (("spec", dict), ("domain", dict), ("data", dict), ("versions", dict), ("weights_sha256", str)):
        if not isinstance(card.get(field), kind):
            raise CardError(f"{path}: {field!r} must be a {kind.__name__}; export the prior again")
    for field in ("name", "digest", "source", "licence", "note"):
        if not isinstance(card["data"].get(field), str):
            raise CardError(f"{path}: data.{field} must be text; export the prior again")
    return card


def _load(folder: str | os.PathLike[str]) -> tuple[VAE, Tensor, Tensor, dict[str, Any]]:
    card = read_card(folder)
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise CardError(f"{folder} has a card but no {WEIGHTS}; export the prior again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != card["weights_sha256"]:
        raise CardError(f"{path} is not the file that its card describes (SHA-256 differs); export the prior again")
    try:
        tensors = load_file(path)
        spec, domain = VAESpec.from_dict(card["spec"]), Domain(**card["domain"])
        vae = build(spec, domain)
        offset, unit = tensors.pop("offset"), tensors.pop("unit")
        vae.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CardError(f"{folder} does not hold the model that its card describes: {reason}") from None
    for name, value in (("offset", offset), ("unit", unit)):
        if value.numel() not in (1, domain.features):
            raise CardError(f"{path}: {name} has {value.numel()} numbers, expected 1 or {domain.features}")
    vae.eval()
    return vae, offset, unit, card


def load_vae(folder: str | os.PathLike[str]) -> tuple[VAE, dict[str, Any]]:
    """The whole VAE of a folder, encoder included, with its card."""
    vae, _, _, card = _load(folder)
    return vae, card


def load_standardised(folder: str | os.PathLike[str]) -> tuple[VAE, Tensor, Tensor]:
    """The whole VAE with offset and unit: data units = unit * model units + offset."""
    vae, offset, unit, _ = _load(folder)
    return vae, offset, unit


def load_prior(folder: str | os.PathLike[str]) -> PriorModule:
    """The prior module of a folder written by `save_vae` or `autovae export`. Raises `CardError` where it is not whole."""
    vae, offset, unit, card = _load(folder)
    return _prior(vae, offset, unit, card)

r"""Cards: a trained VAE or a generator on disk as model.safetensors, card.json and README.md, and back.

    model.safetensors   encoder.*, decoder.*, raw_scale, offset, unit; optional learned_prior.*, flow_posterior.*;
                        source.NAME.* of ex-post densities; transport.* of a generator without its VAE
    card.json           format, spec, domain, data (digest, licence), scores with errors, versions, machine, SHA-256 of weights
    README.md           a readable card with the Hugging Face hub's header; also config.json

| folder of | holds | read by |
|---|---|---|
| `save_vae` | encoder, decoder, learned_prior | `load_vae`, `load_prior` |
| `save_prior` (`PriorModule.save`) | decoder and the map from xi to z | `load_prior` |

A *source* of latents is "prior", the one of training, or an ex-post density by name, which `add_sources` keeps in its VAE's
folder with scores; `load_prior(folder, source=...)` chooses.

Loading trusts nothing: the weights' checksum and every shape are compared with the card, the card is plain JSON checked
field by field, the network is built from the table NETWORKS, and nothing is unpickled. Files are written under a
temporary name and renamed. Not here: what a prior module does (`prior`), the fit of ex-post densities (`ex_post`).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autovae.beliefs.learned_priors import Components, FlowPrior
from autovae.data.datasets import Data
from autovae.export.folders import (
    UNREADABLE,
    CardError,
    machine,
    not_the_model,
    read_json,
    read_weights,
    versions,
    write_folder,
)
from autovae.export.model_card import hub_config, readme
from autovae.export.prior import PriorModule
from autovae.export.transports import FlowMap, MixtureMap, Transport
from autovae.export.transports import build as build_transport
from autovae.model.networks import NETWORKS
from autovae.model.vae import VAE, build
from autovae.renames import renamed
from autovae.spec import Domain, VAESpec
from autovae.training.trained import Trained

__all__ = [
    "FORMAT",
    "CardError",
    "add_sources",
    "annotate",
    "load_prior",
    "load_standardised",
    "load_vae",
    "read_card",
    "save_prior",
    "save_vae",
    "to_prior",
]

FORMAT = "autovae-card-1"
FIELDS = {"spec": dict, "domain": dict, "data": dict, "versions": dict}


def _described(vae: VAE, data: Data) -> dict[str, Any]:
    """The card of a fit."""
    return {
        "format": FORMAT,
        "spec": vae.spec.to_dict(),
        "domain": vae.domain.to_dict(),
        "data": {
            "name": data.name, "digest": data.digest, "source": data.source, "licence": data.licence, "note": data.note
        },
        "versions": versions(),
        "machine": machine(),
    }  # fmt: skip


# -- prior modules of a VAE -------------------------------------------------------------------------------------------


def _model_units(data: Data) -> tuple[Tensor, Tensor]:
    """offset and unit with which x in model units becomes x in data units."""
    return torch.as_tensor(data.mean, dtype=torch.float32), torch.as_tensor(data.scale, dtype=torch.float32)


def _source(vae: VAE) -> tuple[list[str], Transport | None]:
    """The families of the prior, and the map in front of them if the prior is learned."""
    families, learned = [prior for _, prior in vae.spec.pairs], vae.learned_prior
    if isinstance(learned, FlowPrior):
        return families, FlowMap(learned.flow)
    if isinstance(learned, Components):
        stack = vae.stacked.eval()
        with torch.no_grad():
            loc, scale, log_weights = learned.components(stack.encode)
        return ["normal"] * len(families), MixtureMap(loc[0], scale[0], log_weights[0], learned.families(stack.pairing))
    return families, None


def _prior(vae: VAE, offset: Tensor, unit: Tensor, card: dict[str, Any]) -> PriorModule:
    families, transport = _source(vae)
    scale: Tensor | str | None = None
    if vae.likelihood.has_scale:
        scale = "pixel" if vae.spec.scale == "pixel" else vae.scale.detach()
    return PriorModule(
        vae.decoder,
        families,
        likelihood=vae.spec.likelihood,
        scale=scale,
        scale_floor=vae.domain.scale_floor,
        fold=fold_of(vae.spec, vae.domain),
        offset=offset,
        unit=unit,
        shape=vae.domain.shape,
        transport=transport,
        card=card,
    )


def fold_of(spec: VAESpec, domain: Domain) -> tuple[float, float] | None:
    """The range onto whose ends a head folds its tails: the data's, where training followed masses."""
    return (domain.low, domain.high) if spec.objective_on(domain.support) == "mass" else None


def to_prior(trained: Trained, card: Mapping[str, Any] | None = None) -> PriorModule:
    """The generator of a fit as a frozen prior module; the fit is not changed."""
    about = _described(trained.model, trained.data) | dict(card or {})
    return _prior(copy.deepcopy(trained.model).cpu(), *_model_units(trained.data), about)


# -- writing ----------------------------------------------------------------------------------------------------------


def _write(folder: str | os.PathLike[str], tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """The four files."""

    def texts(full: Mapping[str, Any]) -> dict[str, str]:
        return {"README.md": readme(full), "config.json": json.dumps(hub_config(full), indent=2) + "\n"}

    return write_folder(folder, tensors, card, texts)


def _same_network(part: str, own: nn.Module, named: nn.Module) -> None:
    shapes = [[tuple(p.shape) for p in module.parameters()] for module in (own, named)]
    if shapes[0] != shapes[1] or type(own) is not type(named):
        raise CardError(
            f"the {part} is a module of your own, and a saved folder holds no code; add it to "
            f"autovae.registry.NETWORKS under a name and use VAESpec(network=name). Known: {', '.join(NETWORKS)}"
        )


def save_vae(vae: VAE, data: Data, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> Path:
    """Write a trained VAE to `folder`; `about` (plain values: study, trial, scores) goes into the card.

    Raises `CardError` for networks that are not in NETWORKS, since a folder holds no code to rebuild them from.
    """
    like = build(vae.spec, vae.domain)
    _same_network("encoder", vae.encoder, like.encoder)
    _same_network("decoder", vae.decoder, like.decoder)
    offset, unit = _model_units(data)
    return _write(
        folder, {**vae.state_dict(), "offset": offset, "unit": unit}, _described(vae, data) | dict(about or {})
    )


def save_prior(prior: PriorModule, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> Path:
    """Write a generator without its encoder: any prior made from an AutoVAE model, transported or replicated.

    Raises `CardError` for a wrapped generator: a folder holds no code to rebuild it from.
    """
    try:
        spec, domain = VAESpec.from_dict(prior.card["spec"]), Domain(**prior.card["domain"])
    except (KeyError, TypeError, ValueError):
        raise CardError(
            "the generator is a module of your own, and a saved folder holds no code; add its decoder to "
            f"autovae.registry.NETWORKS under a name and fit with VAESpec(network=name). Known: {', '.join(NETWORKS)}"
        ) from None
    _same_network("decoder", prior.decoder, build(spec, domain).decoder)
    tensors = {f"decoder.{name}": value for name, value in prior.decoder.state_dict().items()}
    tensors |= {"offset": _flat(prior.offset), "unit": _flat(prior.unit)}
    if prior.scale is not None:
        tensors["scale"] = prior.scale
    if prior.transport is not None:
        tensors |= {f"transport.{name}": value for name, value in prior.transport.state_dict().items()}
    generator = {
        "families": list(prior.object_families),
        "objects": prior.objects,
        "pixel_scale": prior.scale_per_pixel,
        "transport": None if prior.transport is None else prior.transport.config(),
    }
    # sources belong to the folder of a VAE; a saved generator is one of them
    card = {name: value for name, value in prior.card.items() if name != "sources"}
    return _write(folder, tensors, card | {"format": FORMAT, "generator": generator} | dict(about or {}))


def add_sources(
    folder: str | os.PathLike[str],
    sources: Mapping[str, Transport],
    scores: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Keep ex-post densities in the folder of their VAE, with scores by source ("prior" included); old ones stay."""
    tensors, card = _read(folder)
    if "generator" in card:
        raise CardError(
            f"{folder} holds a generator without its encoder; densities of encoded data need the folder of the whole VAE"
        )
    known = dict(card.get("sources", {}))
    for name, transport in sources.items():
        if name == "prior" or not name.isidentifier():
            raise CardError(f"got the source {name!r}; expected a name such as flow or mixture, other than prior")
        tensors = {key: value for key, value in tensors.items() if not key.startswith(f"source.{name}.")}
        tensors |= {f"source.{name}.{key}": value for key, value in transport.state_dict().items()}
        known[name] = {"transport": transport.config()}
    for name, values in (scores or {}).items():
        known[name] = {**known.get(name, {}), "scores": {**known.get(name, {}).get("scores", {}), **values}}
    return _write(folder, tensors, {**card, "sources": known})


def annotate(folder: str | os.PathLike[str], about: Mapping[str, Any]) -> Path:
    """Add plain values to the card of a folder; the fields that describe the model are fixed."""
    tensors, card = _read(folder)
    fixed = {"format", "spec", "domain", "generator", "sources", "weights_sha256"} & about.keys()
    if fixed:
        raise CardError(
            f"got {', '.join(sorted(fixed))} to write into a card, which describe the model; give other names"
        )
    return _write(folder, tensors, {**card, **about})


# -- reading ----------------------------------------------------------------------------------------------------------


def read_card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked card of a folder."""
    card: dict[str, Any] = renamed(read_json(folder, FORMAT, "prior", FIELDS))
    for field in ("name", "digest", "source", "licence", "note"):
        if not isinstance(card["data"].get(field), str):
            raise CardError(f"{folder}: data.{field} of the card must be text; export the prior again")
    for field in ("sources", "generator"):
        if not isinstance(card.get(field, {}), dict):
            raise CardError(f"{folder}: {field!r} of the card must be a dict; export the prior again")
    return card


def _read(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    card = read_card(folder)
    return renamed(read_weights(folder, card)), card


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _flat(value: Tensor) -> Tensor:
    return value.flatten() if value.ndim > 1 else value


def _units(tensors: dict[str, Tensor], domain: Domain) -> tuple[Tensor, Tensor]:
    offset, unit = tensors.pop("offset"), tensors.pop("unit")
    for name, value in (("offset", offset), ("unit", unit)):
        if value.numel() not in (1, domain.features):
            raise ValueError(f"{name} has {value.numel()} numbers, expected 1 or {domain.features}")
    return offset, unit


def _transport(config: Any, tensors: dict[str, Tensor], dim: int) -> Transport:
    """The transport of plain values and tensors, of the size that the latents have."""
    transport = build_transport(config)
    if transport.dim != dim:
        raise ValueError(f"its transport moves {transport.dim} latents, expected {dim}")
    transport.load_state_dict(tensors)
    return transport


def _load(folder: str | os.PathLike[str]) -> tuple[VAE, Tensor, Tensor, dict[str, Any], dict[str, Tensor]]:
    """The VAE of a folder, offset, unit, card, and the tensors of its sources."""
    tensors, card = _read(folder)
    if "generator" in card:
        raise CardError(f"{folder} holds a generator without its encoder; give the folder of the whole VAE")
    sources = {name: value for name, value in tensors.items() if name.startswith("source.")}
    try:
        spec, domain = VAESpec.from_dict(card["spec"]), Domain(**card["domain"])
        vae = build(spec, domain)
        offset, unit = _units(tensors, domain)
        vae.load_state_dict({name: value for name, value in tensors.items() if name not in sources})
    except UNREADABLE as error:
        raise not_the_model(folder, error) from None
    vae.eval()
    return vae, offset, unit, card, sources


def load_vae(folder: str | os.PathLike[str]) -> tuple[VAE, dict[str, Any]]:
    """The whole VAE of a folder, encoder included, with its card."""
    vae, _, _, card, _ = _load(folder)
    return vae, card


def load_standardised(folder: str | os.PathLike[str]) -> tuple[VAE, Tensor, Tensor]:
    """The whole VAE with offset and unit: data units = unit * model units + offset."""
    vae, offset, unit, _, _ = _load(folder)
    return vae, offset, unit


def load_prior(folder: str | os.PathLike[str], source: str = "prior") -> PriorModule:
    """The prior module of a folder written by `save_vae`, `save_prior` or `autovae export`, behind one of its sources.

    Raises `CardError` if the folder is incomplete or has no such source.
    """
    card = read_card(folder)
    known = ["prior", *(name for name in card.get("sources", {}) if name != "prior")]
    if source not in known:
        raise CardError(f"{folder} has no source {source!r}; it has {', '.join(known)}")
    if "generator" in card:
        return _load_generator(folder)
    vae, offset, unit, card, sources = _load(folder)
    prior = _prior(vae, offset, unit, card)
    if source == "prior":
        return prior
    try:
        config = card["sources"][source]["transport"]
        transport = _transport(config, _under(sources, f"source.{source}."), prior.latent_dim)
    except UNREADABLE as error:
        raise not_the_model(folder, error) from None
    return prior.transported(transport, source=source)


def _load_generator(folder: str | os.PathLike[str]) -> PriorModule:
    tensors, card = _read(folder)
    try:
        plain = card["generator"]
        spec, domain = VAESpec.from_dict(card["spec"]), Domain(**card["domain"])
        decoder = build(spec, domain).decoder
        decoder.load_state_dict(_under(tensors, "decoder."))
        offset, unit = _units(tensors, domain)
        families, objects, transport = [str(name) for name in plain["families"]], int(plain["objects"]), None
        if len(families) != spec.latent_dim or objects < 1:
            raise ValueError(f"{len(families)} families and {objects} objects for {spec.latent_dim} latents")
        if plain["transport"] is not None:
            transport = _transport(plain["transport"], _under(tensors, "transport."), spec.latent_dim * objects)
        return PriorModule(
            decoder,
            families,
            likelihood=spec.likelihood,
            scale="pixel" if plain["pixel_scale"] else tensors.get("scale"),
            scale_floor=domain.scale_floor,
            fold=fold_of(spec, domain),
            offset=offset,
            unit=unit,
            shape=domain.shape,
            transport=transport,
            objects=objects,
            card=card,
        )
    except UNREADABLE as error:
        raise not_the_model(folder, error) from None

r"""A member: one VAE on its way through training, with everything needed to go on from where it is.

Members of one shape and one age are trained together (`population`) and are whole again afterwards: weights, both Adam
moments, epoch and history belong to the member, not to the company it was trained in. So a member can be stopped,
parked, written to disk, and go on later in other company or alone, with the same result.

A checkpoint is one safetensors file, written under a temporary name and renamed; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from autovae.model.vae import VAE, build
from autovae.renames import renamed
from autovae.spec import Domain, VAESpec

__all__ = ["CheckpointError", "TrainState", "load_state", "save_state"]

FORMAT = "autovae-member-2"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, with the reason and what to do."""


@dataclass
class TrainState:
    """One VAE in training: `epoch` epochs are done, `history` has a row for each."""

    vae: VAE
    epoch: int = 0
    moments: dict[str, Tensor] = field(
        default_factory=dict
    )  # Adam's, by parameter name: "<name>/mean", "<name>/square"
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def spec(self) -> VAESpec:
        return self.vae.spec

    @property
    def diverged(self) -> bool:
        """Whether the training loss is no longer a number."""
        return bool(self.history) and self.history[-1]["loss"] != self.history[-1]["loss"]


def save_state(member: TrainState, path: str | os.PathLike[str], digest: str = "") -> None:
    """Write a member to `path`, atomically; `digest` names the data it is trained on."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"weights/{name}": value.detach().contiguous() for name, value in member.vae.state_dict().items()}
    tensors |= {f"adam/{name}": value.contiguous() for name, value in member.moments.items()}
    about = {
        "format": FORMAT,
        "spec": member.spec.to_dict(),
        "domain": member.vae.domain.to_dict(),
        "digest": digest,
        "epoch": member.epoch,
        "steps": member.steps,
        "history": member.history,
    }
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"autovae": json.dumps(about)})
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: str | os.PathLike[str], template: VAE | None = None, digest: str = "") -> TrainState:
    """The member written at `path`.

    `template` is a VAE of the same spec whose weights are replaced (needed for a user's own networks; named networks
    are built from the stored spec). Raises `CheckpointError` where the file is damaged, of another spec or other data.
    """
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            about: dict[str, Any] = json.loads((file.metadata() or {}).get("autovae", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}; delete it to start again") from None
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found!r}, expected {FORMAT!r}; delete it to start again")
    try:
        spec = VAESpec.from_dict(about["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no spec of this version: {error}; delete it to start again") from None
    if digest and about["digest"] and about["digest"] != digest:
        raise CheckpointError(f"{path} was trained on other data; delete it to start again, or give the same data")
    if template is None:
        template = build(spec, Domain(**about["domain"]))
    elif template.spec != spec:
        changed = [k for k, v in spec.to_dict().items() if template.spec.to_dict()[k] != v]
        raise CheckpointError(
            f"{path} holds another spec (different: {', '.join(changed)}); delete it to start again, or give that spec"
        )
    weights = renamed({name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")})
    try:
        template.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path} does not fit the network: {reason}; delete it to start again") from None
    moments = renamed({name.removeprefix("adam/"): t for name, t in tensors.items() if name.startswith("adam/")})
    return TrainState(template, about["epoch"], moments, about["steps"], about["history"])

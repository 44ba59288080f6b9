"""The checkpoints of a run: a file a member, and which members each rung stopped.

What a rung decided is written before training goes on, so that a run that was killed asks again only where nothing was
decided, and then about the same members: it ends as if it had not been interrupted. Files are written under a temporary
name and renamed. Not here: what a member's file holds (`member`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from autovae.model.vae import VAE
from autovae.training.train_state import CheckpointError, TrainState, load_state, save_state

__all__ = ["Checkpoints"]


class Checkpoints:
    """The folder of one run; members are known by their place in the list of specs. Without a folder nothing is kept."""

    def __init__(self, folder: str | os.PathLike[str] | None, digest: str) -> None:
        self.folder = None if folder is None else Path(folder)
        self.digest = digest
        self._decisions: dict[str, list[int]] = {}
        if self.folder is not None and self._rungs.is_file():
            self._decisions = self._read()

    @property
    def _rungs(self) -> Path:
        return (self.folder or Path()) / "rungs.json"

    def _read(self) -> dict[str, list[int]]:
        try:
            found = json.loads(self._rungs.read_text())
            return {str(int(epoch)): [int(place) for place in places] for epoch, places in found.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"cannot read the checkpoint {self._rungs}: {error}; delete the folder to start again"
            ) from None

    def load(self, place: int, vae: VAE) -> TrainState:
        """The member as it was last saved, or new where it was not."""
        path = self._file(place)
        return load_state(path, vae, self.digest) if path and path.is_file() else TrainState(vae)

    def save(self, place: int, member: TrainState) -> None:
        path = self._file(place)
        if path:
            save_state(member, path, self.digest)

    def _file(self, place: int) -> Path | None:
        return None if self.folder is None else self.folder / f"member-{place:04d}.safetensors"

    def decided(self, epoch: int) -> list[int] | None:
        """The members that the rung at this epoch stopped; None where it has not been asked."""
        return self._decisions.get(str(epoch))

    def decide(self, epoch: int, dropped: Sequence[int]) -> None:
        self._decisions[str(epoch)] = sorted(dropped)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._rungs.with_name(f".rungs.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self._decisions))
        os.replace(temporary, self._rungs)

r"""Study files of kind "reproduction": a published experiment with a short and a full setting.

    purpose = "Does a tighter bound give a better model? Table 1 of the importance weighted autoencoders"
    kind = "reproduction"
    reproduces = "iwae_mnist"       # a name of REPRODUCTIONS; left out: the file's own name
    reference = "Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016"

    [short]                         # the default: two CPU cores, under twenty minutes
    epochs = 3

    [full]                          # the paper's own setting, for a GPU: `autovae run NAME --full`
    epochs = 3280

[short] and [full] hold the reproduction's `settings`. As with every study, a file is never edited once its results are
published. Not here: running it (`run`), the table (`registry`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autovae.registry import lookup
from autovae.reproductions.registry import REPRODUCTIONS, Reproduction
from autovae.search.files import find_file, read_toml, validated

__all__ = ["ReproductionFile", "ReproductionStudy", "is_reproduction", "load_reproduction"]


class ReproductionFile(BaseModel):
    """A file under studies/ of kind "reproduction"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["reproduction"]
    version: int = Field(1, ge=1)
    purpose: str
    reproduces: str = ""
    reference: str
    short: dict[str, Any]
    full: dict[str, Any]


@dataclass(frozen=True)
class ReproductionStudy:
    """A checked reproduction with the chosen settings."""

    name: str
    file: ReproductionFile
    reproduction: Reproduction
    setting: Literal["short", "full"]
    settings: BaseModel

    @property
    def folder(self) -> str:
        """The name of its results folder: the study's, with _full for the full setting."""
        return self.name if self.setting == "short" else f"{self.name}_full"

    @property
    def identity(self) -> dict[str, Any]:
        """The resolved study as plain values, fixed once there are results."""
        return {
            "name": self.name,
            **self.file.model_dump(exclude={"short", "full"}),
            "reproduces": self.file.reproduces or self.name,
            "setting": self.setting,
            "settings": self.settings.model_dump(),
        }

    def plan_rows(self) -> list[tuple[str, str]]:
        """(what, value) lines of the plan."""
        file = self.file
        rows = [("study", f"{self.name} (version {file.version}), {self.setting} setting"), ("purpose", file.purpose)]
        rows.append(("reference", file.reference))
        for key, value in self.settings.model_dump().items():
            values = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
            for part in values:
                text = ", ".join(f"{k} = {v}" for k, v in part.items()) if isinstance(part, dict) else str(part)
                rows.append((f"  {key}", text))
        return rows


def is_reproduction(name: str | Path) -> bool:
    """Whether the study of this name or path is of kind "reproduction"; an unknown name is an error."""
    return read_toml(find_file("studies", name)).get("kind") == "reproduction"


def load_reproduction(name: str | Path, full: bool = False) -> ReproductionStudy:
    """The reproduction of a name (studies/NAME.toml) or a path. Raises `ValueError` naming file, place and remedy."""
    path = find_file("studies", name)
    values = read_toml(path)
    if values.get("kind") == "search":
        raise ValueError(f"{path}: got kind = 'search', expected 'reproduction'; a search has no short or full setting")
    file = validated(ReproductionFile, values, str(path))
    entry = lookup(REPRODUCTIONS, file.reproduces or path.stem, f"reproduction in {path}:")
    checked = {
        setting: validated(entry.settings, getattr(file, setting), f"{path}: {setting}")
        for setting in ("short", "full")
    }
    setting: Literal["short", "full"] = "full" if full else "short"
    return ReproductionStudy(path.stem, file, entry, setting, checked[setting])

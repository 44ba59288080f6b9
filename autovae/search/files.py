"""Study and space files: found by name in the working folder, the package or the source checkout; read and validated."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autovae.registry import unknown
from autovae.renames import renamed

__all__ = ["find_file", "known_files", "read_toml", "validated"]

M = TypeVar("M", bound=BaseModel)
PACKAGE = Path(__file__).resolve().parents[1]


def folders(kind: str) -> list[Path]:
    """Folders to search for a kind of file ("studies", "search_spaces"): working folder, wheel, source checkout."""
    places = [Path.cwd() / kind, PACKAGE / kind, PACKAGE.parent / kind]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def known_files(kind: str) -> dict[str, Path]:
    """Names of the files of a kind, with their paths; earlier folders take precedence."""
    found: dict[str, Path] = {}
    for folder in folders(kind):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def find_file(kind: str, name: str | Path) -> Path:
    """The file of a name or path. Raises `ValueError` that names the nearest known file."""
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ValueError(
                f"no such file: {path}; give a path to a .toml file or one of: {', '.join(known_files(kind))}"
            )
        return path
    known = known_files(kind)
    if str(name) not in known:
        what = {"studies": "study", "search_spaces": "search space"}.get(kind, kind)
        raise ValueError(unknown(str(name), known, what))
    return known[str(name)]


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file, old names renamed. Raises `ValueError` with line and column of a mistake."""
    try:
        return dict(renamed(tomllib.loads(path.read_text(encoding="utf-8"))))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None


def validated(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """`values` as `model`. Raises `ValueError` for the first mistake: one line, with the nearest known name."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            message = unknown(first["loc"][-1], _known_fields(model, first["loc"][:-1]), "key")
        elif first["type"] == "missing":
            message = f"{place}: missing"
        else:
            message = f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
            if place and not isinstance(first.get("input"), dict):
                message += f" (got {first.get('input')!r})"
        raise ValueError(f"{where}: {' '.join(message.split())}") from None


def _known_fields(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    for part in place:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)

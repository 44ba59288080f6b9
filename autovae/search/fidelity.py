"""`autovae fidelity`: scores of one saved model, or of all models of a study, kept in their cards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autovae.data.datasets import load
from autovae.export.card import CardError, read_card
from autovae.export.ex_post import DENSITIES
from autovae.export.fidelity import FLOOR, fidelity_of, fit_densities, folders_of, keep, real_points
from autovae.metrics.fidelity import extractor
from autovae.registry import lookup
from autovae.search.files import read_toml

__all__ = ["fidelity_lines", "fidelity_of_folder"]


def _source_of(folder: Path, model: Path) -> str:
    """What names the data of a study or a card: the path that they were read from, else their name."""
    if (folder / "study.toml").is_file():
        data = read_toml(folder / "study.toml").get("data", {})
        return str(data.get("path") or data.get("name", ""))
    return str(read_card(model)["data"]["name"])


def fidelity_of_folder(
    folder: str | Path,
    source: str | None = None,
    features: str = "domain",
    weights: str | Path | None = None,
    fit: str = "",
    points: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Scores by model and set, as plain values; every card keeps its own."""
    models = folders_of(folder)
    densities = [name.strip() for name in fit.split(",") if name.strip()]
    for name in densities:
        lookup(DENSITIES, name, "density")
    name = source or _source_of(Path(folder), next(iter(models.values())))
    try:
        data = load(name, data_dir=data_dir)
    except (ValueError, OSError) as error:
        if source:
            raise
        raise CardError(
            f"the data of {folder} are not here ({error}); name them: autovae fidelity {folder} DATA"
        ) from None
    network = extractor(features, data, weights, say=say)
    real = real_points(data, network, points)
    found: dict[str, Any] = {"features": network.label, "facts": network.facts, "points": real.count, "models": {}}
    for role, path in models.items():
        if densities:
            fit_densities(path, data, densities, seed)
        rows = fidelity_of(path, data, real, seed)
        keep(path, rows, network)
        found["models"][role] = {name: row.to_dict() for name, row in rows.items()}
    found["warnings"] = sorted(
        {text for rows in found["models"].values() for row in rows.values() for text in row["warnings"]}
    )
    return found


def fidelity_lines(result: dict[str, Any]) -> Iterator[str]:
    """The table for people."""
    facts = ", ".join(f"{k} {v:.4f}" for k, v in result["facts"].items() if isinstance(v, float))
    yield f"{result['features']}{f' ({facts})' if facts else ''}, {result['points']} points a set, against training points"
    yield f"{'model':<14}{'set':<17}{'FID':>9}{'KID':>11}{'+-':>9}{'IS':>8}{'precision':>11}{'recall':>8}"
    shown = False
    for role, rows in result["models"].items():
        for name, row in rows.items():
            if name == FLOOR and shown:
                continue
            shown = True
            numbers = (
                row["fid"],
                row["kid"],
                row["kid_error"],
                row["inception_score"],
                row["precision"],
                row["recall"],
            )
            cells = "".join(
                f"{value:>{width}.{digits}f}"
                for value, width, digits in zip(numbers, (9, 11, 9, 8, 11, 8), (3, 5, 5, 3, 3, 3), strict=True)
            )
            yield f"{'test data' if name == FLOOR else role:<14}{name:<17}{cells}"
    yield from (f"note: {text}" for text in result["warnings"])

r"""Fidelity of a saved VAE: generated against real points, under one network's features.

| set | points |
|---|---|
| real | test points against training points: the floor, which a perfect generator reaches |
| reconstructions | E[x given z] at the centre of the posteriors of test points |
| prior | E[x given z] of z from the prior |
| flow, mixture, ... | E[x given z] of z from an ex-post density kept in the folder |

All sets have equally many points and are compared with the same training points. Means of
binary data are not data, so points are drawn from p(x|z) instead. The card keeps the scores with the network's name.
Not here: the scores (`metrics.fidelity`), how ex-post densities are fitted (`ex_post`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autovae.data.batches import network_input
from autovae.data.datasets import Data, Split
from autovae.export.card import add_sources, annotate, load_prior, load_standardised, read_card, to_prior
from autovae.export.ex_post import fit_sources
from autovae.export.prior import PriorModule
from autovae.export.scoring import in_units_of
from autovae.metrics.fidelity import Extractor, Features, Fidelity, compare, kid_of
from autovae.model.vae import VAE
from autovae.renames import folder_named
from autovae.training.trained import Trained

__all__ = [
    "FLOOR",
    "RealPoints",
    "fidelity_of",
    "draws_of",
    "fit_densities",
    "folders_of",
    "keep",
    "kid_of_models",
    "real_points",
]

FLOOR = "real"
POINTS = 10_000
BATCH = 1000


@dataclass(frozen=True)
class RealPoints:
    """Features of real points, taken once for all models that are compared."""

    extractor: Extractor
    reference: Features
    test: Features
    count: int


def _spread(split: Split, count: int) -> Tensor:
    """`count` points evenly spread over a split: files are often ordered, the first of MNIST's test are the tidier ones."""
    return split.x[torch.linspace(0, len(split) - 1, count).round().long()]


def _data_units(split: Split, data: Data, count: int) -> Tensor:
    x = data.original_units(network_input(_spread(split, count), data))
    return x.reshape(count, *data.shape)


def real_points(data: Data, extractor: Extractor, points: int | None = None) -> RealPoints:
    """Features of equally many training and test points, at most `points` of each."""
    if points is not None and points < 10:
        raise ValueError(f"got points = {points}, expected at least 10 to compare")
    count = min(points or POINTS, len(data.train), len(data.test))
    reference, test = (extractor(_data_units(split, data, count)) for split in (data.train, data.test))
    return RealPoints(extractor, reference, test, count)


@torch.no_grad()
def draws_of(prior: PriorModule, z: Tensor, binary: bool, seed: int) -> Tensor:
    """x of z in batches: the mean, or for binary data a draw of p(x|z)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [prior.observe(part, generator) if binary else prior.decode(part) for part in z.split(BATCH)]
    return torch.cat(parts)


@torch.no_grad()
def _centres(vae: VAE, data: Data, count: int) -> Tensor:
    """The centre of q(z|x) of the test points that are compared."""
    stack = vae.stacked.eval()
    inputs = network_input(_spread(data.test, count), data).flatten(1)
    return torch.cat([stack.centre(*stack.encode(part))[0] for part in inputs.split(BATCH)])


def fidelity_of(folder: str | os.PathLike[str], data: Data, real: RealPoints, seed: int = 0) -> dict[str, Fidelity]:
    """Scores of a saved VAE by set, the floor first. Raises `CardError` where data and model do not fit."""
    vae, offset, unit = load_standardised(folder)
    data = in_units_of(vae.domain, data, offset, unit)
    binary = data.support == "binary"
    rows = {FLOOR: compare(real.test, real.reference, seed)}

    def scored(prior: PriorModule, z: Tensor) -> Fidelity:
        return compare(real.extractor(draws_of(prior, z, binary, seed)), real.reference, seed)

    plain = load_prior(folder)
    rows["reconstructions"] = scored(plain, _centres(vae, data, real.count))
    for name in _sources(folder):
        prior = load_prior(folder, name)
        with torch.no_grad():
            z = prior.sample(real.count, torch.Generator().manual_seed(seed))
        rows[name] = scored(prior, z)
    return rows


def _sources(folder: str | os.PathLike[str]) -> list[str]:
    """The prior, and the ex-post densities that the folder keeps."""
    return ["prior", *(name for name in read_card(folder).get("sources", {}) if name != "prior")]


def fit_densities(folder: str | os.PathLike[str], data: Data, densities: Sequence[str], seed: int = 0) -> None:
    """Fit ex-post densities of the training points and keep them in the folder with their scores."""
    vae, offset, unit = load_standardised(folder)
    trained = Trained(vae, [], vae.spec, in_units_of(vae.domain, data, offset, unit))
    add_sources(folder, *fit_sources(trained, densities, seed))


def keep(folder: str | os.PathLike[str], rows: dict[str, Fidelity], extractor: Extractor) -> Path:
    """Write the scores into the card: all of them as numbers, FID and KID of each source under its name."""
    label = extractor.label
    sources = {
        name: {f"FID ({label})": f"{row.fid:.4g}", f"KID ({label})": f"{row.kid:.4g} +- {row.kid_error:.2g}"}
        for name, row in rows.items()
        if name in _sources(folder)
    }
    facts = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in extractor.facts.items()}
    values = {"features": label, "facts": facts, "rows": {name: row.to_dict() for name, row in rows.items()}}
    kept = dict(read_card(folder).get("fidelity", {}))
    annotate(folder, {"fidelity": {**kept, label: values}})
    return add_sources(folder, {}, sources)


def folders_of(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The saved models of a folder by name: itself, or winners, baseline and learned priors of a study's results."""
    path = Path(folder)
    if (path / "card.json").is_file():
        return {path.name: path}
    found = sorted((path / "winners").glob("*/card.json"), key=lambda card: (len(card.parent.name), card.parent.name))
    names = {f"winner {card.parent.name}": card.parent for card in found}
    if (path / "baseline" / "card.json").is_file():
        names["baseline"] = path / "baseline"
    names |= {
        card.parent.name: card.parent for card in sorted(folder_named(path, "learned_priors").glob("*/card.json"))
    }
    if not names:
        raise ValueError(
            f"{path} holds no saved prior; expected one such as results/STUDY/winners/1, or the results of a finished study"
        )
    return names


def kid_of_models(
    models: Sequence[VAE], data: Data, extractor: Extractor, points: int = 2000, seed: int = 0
) -> list[float]:
    """KID of samples of each model's prior against validation points: an objective of a search, lower is better.

    Common noise for all models. A model whose samples are not finite has KID infinity.
    """
    count = min(points, len(data.validation))
    real = extractor(_data_units(data.validation, data, count))
    found = []
    for model in models:
        prior = to_prior(Trained(model, [], model.spec, data))
        with torch.no_grad():
            z = prior.sample(count, torch.Generator().manual_seed(seed))
            x = draws_of(prior, z, data.support == "binary", seed)
        found.append(kid_of(extractor(x), real, seed, 20)[0] if bool(x.isfinite().all()) else math.inf)
    return found

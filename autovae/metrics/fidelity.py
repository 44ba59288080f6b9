r"""Fidelity: how close generated points are to real ones, by torch-fidelity on the features of a network.

With f(x) the k features of a point, m and C their mean and covariance, p(y|x) the network's class probabilities:

| score | formula | better | note |
|---|---|---|---|
| FID | (m - m')^2 + tr(C + C' - 2 (C C')^(1/2)) | lower | biased: falls as N grows; compare only at equal N |
| KID | MMD^2 with the kernel (f . f' / k + 1)^3 | lower | unbiased, may be below 0; its error is over subsets |
| IS | exp E KL(p(y given x), E p(y given x)) | higher | depends only on generated points |
| precision, recall | share of generated (real) points in the balls of real (generated) ones | higher | to the third neighbour |

Scores are comparable only under the same network, so every score is labelled with it:

| extractor | network | k |
|---|---|---|
| domain | a classifier of the data set itself, trained once, cached by hash; its accuracy is reported | 96 to 128 |
| inception | Inception-v3 of 2015, from a file or its download; images only | 2048 |

Features of a set are computed once and reused for all comparisons. torch-fidelity (extra `fidelity`) is imported on first
use. To add an extractor, write a function that returns an `Extractor` and add it to EXTRACTORS.
Not here: the points to compare (`export.fidelity`).
References: Heusel et al. 2017 (FID); Binkowski et al. 2018 (KID); Salimans et al. 2016 (IS); Kynkaanniemi et al. 2019
(precision and recall); Obukhov et al., torch-fidelity, 2020.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autovae.data.datasets import Data
from autovae.model.classifiers import Classifier
from autovae.model.trained_classifiers import classifier
from autovae.registry import lookup

__all__ = ["EXTRACTORS", "Extractor", "Features", "Fidelity", "compare", "domain", "extractor", "inception", "kid_of"]

NEIGHBOUR = 3
SUBSETS, SUBSET_SIZE = 100, 1000
SPLITS = 10
ENOUGH = 2  # points per feature for a usable covariance
INSTALL = "fidelity scores need torch-fidelity and torchvision: pip install 'autovae[fidelity]'"


# -- torch-fidelity ---------------------------------------------------------------------------------------------------

_declared: list[torch.library.Library] = []  # operators vanish with the object that declared them


def _torchvision_beside_another_torch() -> None:
    """Allow importing a torchvision built for CUDA with a CPU build of torch.

    Its library does not load there, so the operators that its Python part expects must be declared here.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or "torchvision" in sys.modules or _declared:
        return
    library = Path(found.origin).parent / "_C.so"
    try:
        if library.is_file():
            torch.ops.load_library(str(library))
            return
    except OSError:
        pass
    operators = torch.library.Library("torchvision", "DEF")
    _declared.append(operators)
    operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _torch_fidelity(part: str) -> Any:
    """A module of torch-fidelity; raises `ValueError` with how to install it."""
    try:
        _torchvision_beside_another_torch()
        return importlib.import_module(f"torch_fidelity.{part}")
    except ImportError:
        raise ValueError(INSTALL) from None


# -- features ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """Features (N, k) and class logits (N, c) of a set of points, in float64 where the scores are computed."""

    values: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return self.values.shape[0]


@dataclass(frozen=True)
class Extractor:
    """A feature network: `label` names it in every score, `facts` are plain values about it."""

    label: str
    network: Callable[[Tensor], tuple[Tensor, Tensor]]
    facts: dict[str, Any] = field(default_factory=dict)
    batch: int = 500

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Features:
        """Features of points x (N, *shape) in data units."""
        if not bool(x.isfinite().all()):
            raise ValueError("the points have NaN or infinite values; fidelity needs finite ones: check the model")
        parts = [self.network(part) for part in x.split(self.batch)]
        return Features(*(torch.cat(side).double() for side in zip(*parts, strict=True)))


Say = Callable[[str], None]
"""Called with a message after every epoch of classifier training."""


def domain(
    data: Data, cache: Path | None = None, weights: str | Path | None = None, say: Say | None = None
) -> Extractor:
    """The last hidden layer of a classifier of the data set itself. Raises `ValueError` for data without labels."""
    if weights is not None:
        raise ValueError(
            "the domain features are trained on the data and take no weights; leave them out, or use inception"
        )
    if data.train.y is None:
        raise ValueError(f"{data.name} has no labels to train the features on; give labelled data, or use inception")
    net = classifier(data, cache=cache, say=say)
    kind = "mlp" if net.card.get("network") == "mlp" else "cnn"
    facts = {"accuracy": net.accuracy, "network": net.card.get("network"), "sha256": net.card.get("sha256")}
    return Extractor(f"{data.name}-{kind} features", _both(net), facts)


def _both(net: Classifier) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        features = net.features(x)
        return features, net.head(features)

    return network


def inception(
    data: Data, cache: Path | None = None, weights: str | Path | None = None, say: Say | None = None
) -> Extractor:
    """torch-fidelity's Inception-v3; `weights` is a local file of its state, else it is downloaded once.

    Raises `ValueError` for points that are not images in [0, 1], and if the weights are missing and cannot be downloaded.
    """
    if (
        data.support == "real"
        or len(data.shape) not in (2, 3)
        or (len(data.shape) == 3 and data.shape[0] not in (1, 3))
    ):
        raise ValueError(
            f"got points of shape {data.shape} and support {data.support}; Inception sees grey or RGB images in [0, 1]: "
            "use domain features"
        )
    part = _torch_fidelity("feature_extractor_inceptionv3")
    state = _state(part.URL_INCEPTION_V3, weights)
    # torch-fidelity would unpickle any file; given the validated tensors, it opens none.
    loader = part.load_state_dict_from_url
    part.load_state_dict_from_url = lambda *arguments, **settings: state
    try:
        net = part.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{weights or 'the download'} does not hold the weights of Inception-v3: {reason}") from None
    finally:
        part.load_state_dict_from_url = loader

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        levels = (x * 256).floor().clamp(0, 255).to(torch.uint8)
        images = levels.reshape(len(x), -1, *x.shape[-2:])
        features, logits = net(images.expand(-1, 3, -1, -1))
        return features, logits

    return Extractor("inception features", network, {"network": "inception-v3"}, batch=50)


def _state(url: str, weights: str | Path | None) -> Any:
    """The tensors of Inception, without unpickling anything else."""
    try:
        if weights is not None:
            return torch.load(weights, map_location="cpu", weights_only=True)
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, check_hash=True)
    except Exception as error:  # files, zip archives, unpickling and downloads raise many types
        reason = " ".join(str(error).split())[:160]
        if weights is not None:
            raise ValueError(f"{weights} does not hold the weights of Inception-v3: {reason}") from None
        raise ValueError(
            f"the weights of Inception-v3 are missing and could not be downloaded ({reason}); download {url} elsewhere and "
            "pass the file with --weights, or use --features domain"
        ) from None


EXTRACTORS: dict[str, Callable[..., Extractor]] = {"domain": domain, "inception": inception}


# -- scores -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fidelity:
    """Scores of a set of points against a reference; KID with its error."""

    fid: float
    kid: float
    kid_error: float
    inception_score: float
    inception_score_error: float
    precision: float
    recall: float
    points: int
    reference: int
    features: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite are None, which JSON has."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        return {**plain, "warnings": list(self.warnings)}


def compare(generated: Features, reference: Features, seed: int = 0, subsets: int = SUBSETS) -> Fidelity:
    """All scores of generated points against reference ones. Raises `ValueError` for fewer than 10 of either."""
    least, k = min(len(generated), len(reference)), generated.values.shape[1]
    if least < 10:
        raise ValueError(f"got {len(generated)} and {len(reference)} points; expected at least 10 of each to compare")
    kid, kid_error = kid_of(generated, reference, seed, subsets)
    one, other = (_statistics(side) for side in (generated, reference))
    fid = _torch_fidelity("metric_fid").fid_statistics_to_metric(one, other, False)["frechet_inception_distance"]
    isc = _torch_fidelity("metric_isc").isc_features_to_metric(
        generated.logits, min(SPLITS, len(generated) // 5), True, seed
    )
    prc = _torch_fidelity("metric_prc").calculate_precision_recall_part(
        generated.values.float(), reference.values.float(), NEIGHBOUR, 2000
    )
    return Fidelity(
        fid=max(float(fid), 0.0),
        kid=kid,
        kid_error=kid_error,
        inception_score=float(isc["inception_score_mean"]),
        inception_score_error=float(isc["inception_score_std"]),
        precision=float(prc[0]),
        recall=float(prc[1]),
        points=len(generated),
        reference=len(reference),
        features=k,
        warnings=_warnings(len(generated), len(reference), k),
    )


def _statistics(features: Features) -> dict[str, Any]:
    return dict(_torch_fidelity("metric_fid").fid_features_to_statistics(features.values))


def kid_of(generated: Features, reference: Features, seed: int = 0, subsets: int = SUBSETS) -> tuple[float, float]:
    """KID and its standard deviation over subsets of up to 1,000 points."""
    size = max(2, min(SUBSET_SIZE, min(len(generated), len(reference)) // 2))
    found = _torch_fidelity("metric_kid").kid_features_to_metric(
        generated.values, reference.values, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return float(found["kernel_inception_distance_mean"]), float(found["kernel_inception_distance_std"])


def _warnings(generated: int, reference: int, k: int) -> tuple[str, ...]:
    least = min(generated, reference)
    found = []
    if least <= k:
        found.append(
            f"FID of {least} points in {k} features: the covariance does not have full rank, so FID measures the lack of "
            f"points; use more than {ENOUGH * k}, or read KID"
        )
    elif least < ENOUGH * k:
        found.append(
            f"FID of {least} points in {k} features is biased upwards; use more than {ENOUGH * k}, or read KID"
        )
    if generated != reference:
        found.append(f"{generated} points against {reference}: compare FID only with sets of the same sizes")
    return tuple(found)


def extractor(
    name: str, data: Data, weights: str | Path | None = None, cache: Path | None = None, say: Say | None = None
) -> Extractor:
    """The extractor called `name` for this data set."""
    return lookup(EXTRACTORS, name, "kind of features")(data, cache=cache, weights=weights, say=say)

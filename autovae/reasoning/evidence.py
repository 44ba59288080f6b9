"""Questions in words, as `autovae reason` takes them: draw a label, denoise an image, paint in its hidden side.

An image is a point of a data set (`digits:3`, `mine.npz:0`: the test split of a named set, the rows of a file) or a
picture of the prior's size. A label is a class of the prior's training data, or of another set of the same shape; a small
classifier of that set is trained once and cached. With both, the answer agrees with both.

The share of answers that the classifier accepts is reported, and on request that of a *judge*, a network trained on other
points: answers that exploit the classifier's mistakes do not convince the judge.
Not here: questions in code (`question`), the picture (`commands.priors`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autovae.data.batches import network_input
from autovae.data.datasets import DATASETS, load
from autovae.export.prior import PriorModule
from autovae.model.classifiers import JUDGES, Classifier, ClassifierSettings
from autovae.model.trained_classifiers import classifier
from autovae.reasoning.draws import Draws
from autovae.reasoning.question import ask
from autovae.registry import lookup

__all__ = ["SIDES", "Question", "answer_of", "hidden", "labelled", "read_image"]

SIDES = {
    "left": (slice(None), slice(None, 0.5)),
    "right": (slice(None), slice(0.5, None)),
    "top": (slice(None, 0.5), slice(None)),
    "bottom": (slice(0.5, None), slice(None)),
}
SHOWN = 14  # points in the picture of an image
LABELLED = 16  # answers in the picture of a label


def read_image(text: str, prior: PriorModule, data_dir: str | Path | None = None) -> Tensor:
    """The image that `text` names, in the prior's data units and shape."""
    shape = tuple(prior.shape or ())
    source, colon, place = text.rpartition(":")
    if colon and place.isdigit():
        data = load(source, data_dir=data_dir)
        if data.shape != shape:
            raise ValueError(
                f"{source} has points of shape {data.shape}, the prior draws {shape}; give data of that shape"
            )
        split = data.test if source in DATASETS else data.train
        if int(place) >= len(split):
            raise ValueError(f"{text}: got number {place}, expected 0 to {len(split) - 1}")
        point = split.take(slice(int(place), int(place) + 1))
        return data.original_units(network_input(point.x, data))[0]
    from PIL import Image, UnidentifiedImageError

    try:
        pixels = np.asarray(Image.open(text).convert("L" if len(shape) == 2 else "RGB"), dtype=np.float32)
    except (OSError, UnidentifiedImageError):
        raise ValueError(f"cannot read {text!r}: expected a picture, or NAME:NUMBER such as digits:3") from None
    x = torch.from_numpy((pixels + 0.5) / 256)
    x = x if x.dim() == 2 else x.permute(2, 0, 1)
    if tuple(x.shape) != shape:
        raise ValueError(f"{text} is {tuple(x.shape)}, the prior draws {shape}; resize the picture to that")
    return x


def hidden(what: str, shape: tuple[int, ...]) -> Tensor:
    """The mask (1 = observed) that hides a side of images of this shape."""
    rows, columns = lookup(SIDES, what, "side to hide")
    mask = torch.ones(shape)

    def part(cut: slice, size: int) -> slice:
        start, stop = (None if edge is None else round(edge * size) for edge in (cut.start, cut.stop))
        return slice(start, stop)

    if len(shape) < 2:
        raise ValueError(f"got points of shape {shape}, expected images to hide the {what} of")
    mask[..., part(rows, shape[-2]), part(columns, shape[-1])] = 0
    return mask


@dataclass(frozen=True)
class Question:
    """A label, an image, or both; `hide` and `noise` belong to the image, `power` to the label."""

    label: str | None = None
    dataset: str | None = None
    image: str | None = None
    hide: str | None = None
    noise: float = 0.1
    power: float = 100.0
    judge: bool = False

    def __post_init__(self) -> None:
        if self.label is None and self.image is None:
            raise ValueError("got no evidence; expected --label, --image, or both, such as --label 3")
        if self.image is None and self.hide is not None:
            raise ValueError(f"got hide = {self.hide!r} and no image; give the image whose {self.hide} is hidden")
        if not self.noise > 0:
            raise ValueError(f"got noise = {self.noise}, expected a standard deviation > 0 in the units of the image")
        if not self.power > 0:
            raise ValueError(f"got power = {self.power}, expected a number > 0: how often the label was seen")


def labelled(
    prior: PriorModule,
    label: str,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    judge: bool = False,
    say: Callable[[str], None] | None = None,
) -> tuple[int, list[Classifier]]:
    """The class that `label` names, the classifier of its data, and on request a judge.

    The data are those of the prior's card by default. Raises `ValueError` for an unknown label (naming the known ones), and
    for data without labels or of another shape.
    """
    name = dataset or str(prior.card.get("data", {}).get("name", ""))
    try:
        data = load(name, data_dir=data_dir)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"a label needs labelled data, and the prior's ({name or 'unknown'}) cannot be loaded: {error}; "
            "name other data of the same shape with --dataset"
        ) from None
    if prior.shape is not None and data.shape != tuple(prior.shape):
        raise ValueError(
            f"{name} has points of shape {data.shape}, the prior draws {prior.shape}; give data of that shape"
        )
    if data.train.y is None:
        raise ValueError(f"{name} has no labels; name labelled data of the same shape with --dataset")
    known = data.train.y.unique().tolist()
    if label not in {str(value) for value in known}:
        raise ValueError(f"got label {label!r}; the labels of {name} are {', '.join(map(str, known))}")
    asked = [ClassifierSettings(part="first_half" if judge else "all"), *(JUDGES[:1] if judge else ())]
    return int(label), [classifier(data, settings=settings, say=say) for settings in asked]


def answer_of(
    prior: PriorModule,
    question: Question,
    method: str = "hmc",
    draws: int | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> tuple[Draws, Tensor, dict[str, Any]]:
    """Draws, points for the picture (image, measured part and mean first), and measurements of the draws."""
    evidence: dict[str, Any] = {}
    about: dict[str, Any] = {}
    first: list[Tensor] = []
    truth = None
    networks: list[Classifier] = []
    if question.image is not None:
        truth = read_image(question.image, prior, data_dir)
        mask = None if question.hide is None else hidden(question.hide, tuple(truth.shape))
        measured = truth + question.noise * torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
        evidence = {"image": measured, "mask": mask, "noise": question.noise}
        first = [truth, measured if mask is None else measured * mask]
    if question.label is not None:
        label, networks = labelled(prior, question.label, question.dataset, data_dir, question.judge, say)
        evidence |= {"label": label, "classifier": networks[0], "power": question.power}
    answer = ask(prior, **evidence, method=method, draws=draws, seed=seed, progress=progress)
    x = answer.decode().flatten(0, 1)
    if truth is not None:
        about["rmse_of_mean"] = float((x.mean(0) - truth).square().mean().sqrt())
        first.append(x.mean(0))
    for role, network in zip(("classifier", "judge"), networks, strict=False):
        with torch.no_grad():
            agree = torch.cat([network(part).argmax(1) == evidence["label"] for part in x.split(1000)])
        about |= {f"{role}_agrees": float(agree.double().mean()), f"{role}_accuracy": network.accuracy}
    count = SHOWN + 2 - len(first) if first else LABELLED
    some = x[torch.linspace(0, len(x) - 1, min(count, len(x))).long()]
    shown = torch.cat([torch.stack(first), some]) if first else some
    return answer, shown.clamp(0, 1) if bool((x.min() >= 0) & (x.max() <= 1)) else shown, about

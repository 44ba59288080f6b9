r"""Classifiers and regressors, trained once per data set: they constrain generators, and evaluate them.

    x in [0, 1], (N, pixels) or (N, *shape)   ->   logits (N, classes), or numbers (N,) for a regression
    .features(x)                              ->   the last hidden layer (N, k), for distances between samples
    .card                                     ->   plain values: task, data, settings, accuracy on held-out points

A *task* is what to predict: the label, or a function of it (`odd`). A *judge* solves the same task with another
architecture, seed and training points, so its mistakes are independent: samples that exploit a classifier do not fool its
judge. `part` keeps the training points separate.

| network | layers | for |
|---|---|---|
| conv | two convolutions of stride 2, one hidden layer | images of at least 8 x 8 |
| strided | three convolutions of stride 2, one hidden layer | images of at least 8 x 8 |
| mlp | two hidden layers | anything |

Training uses Adam with a one-cycle rate, shifts by up to `shift` pixels, and label smoothing, which prevents gradients of
the log probability from vanishing far from the data. It is seeded, cached (`cache`) and resumes after a kill. To add a
network, write a function of shape and outputs and add it to NETWORKS; to add a task, add it to TASKS.
Not here: data sets by name (`trained_classifiers`), uses of classifiers (`reasoning`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from autovae.model.cache import Store, pack_optimizer, unpack_optimizer
from autovae.model.halving import HalvingConv, Image
from autovae.registry import lookup
from autovae.seeds import stream_seed
from autovae.threads import flops_of, threads_for

__all__ = ["JUDGES", "NETWORKS", "PARTS", "TASKS", "Classifier", "ClassifierSettings", "Task", "train_classifier"]

VERSION = 1  # of the training below: raise it when the same settings no longer give the same network
SMOOTHING = 0.02
SAVE_EVERY = 10.0  # seconds

Shape = tuple[int, ...]
Body = tuple[nn.Sequential, int]  # the layers up to the features, and the number of features


# -- networks ---------------------------------------------------------------------------------------------------------


def _image(shape: Shape) -> tuple[int, int, int]:
    channels, rows, columns = (1, *shape) if len(shape) == 2 else shape if len(shape) == 3 else (0, 0, 0)
    if min(rows, columns) < 8:
        raise ValueError(f"got points of shape {shape}; expected images of at least 8 x 8, or network='mlp'")
    return channels, rows, columns


def _half(size: int) -> int:
    return size // 2  # a 4 x 4 convolution of stride 2 and padding 1


def _conv(shape: Shape) -> Body:
    channels, rows, columns = _image(shape)
    flat = 32 * _half(_half(rows)) * _half(_half(columns))
    return nn.Sequential(
        Image(channels, rows, columns),
        HalvingConv(channels, 16), nn.ReLU(),
        HalvingConv(16, 32), nn.ReLU(), nn.Flatten(),
        nn.Linear(flat, 128), nn.ReLU(),
    ), 128  # fmt: skip


def _strided(shape: Shape) -> Body:
    channels, rows, columns = _image(shape)
    flat = 64 * math.prod(((size + 1) // 2 + 3) // 4 for size in (rows, columns))
    return nn.Sequential(
        Image(channels, rows, columns),
        nn.Conv2d(channels, 16, 5, 2, 2), nn.GELU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.GELU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.GELU(), nn.Flatten(),
        nn.Linear(flat, 64), nn.GELU(),
    ), 64  # fmt: skip


def _mlp(shape: Shape) -> Body:
    return nn.Sequential(nn.Linear(math.prod(shape), 400), nn.GELU(), nn.Linear(400, 100), nn.GELU()), 100


NETWORKS: dict[str, Callable[[Shape], Body]] = {"conv": _conv, "strided": _strided, "mlp": _mlp}


# -- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What to predict for a point; `targets` computes it from the labels."""

    targets: Callable[[Tensor], Tensor]
    kind: Literal["classes", "numbers"]
    note: str


def _classes(y: Tensor) -> Tensor:
    whole = y.double()
    if bool((whole != whole.round()).any()) or bool((whole < 0).any()):
        raise ValueError("got labels that are not 0, 1, 2, ..; expected classes, or task='number' for a regression")
    return y.long()


def _digits(y: Tensor) -> Tensor:
    labels = _classes(y)
    if bool((labels > 9).any()):
        raise ValueError(
            f"got the label {int(labels.max())}; expected digits 0 to 9, or task='label' for other classes"
        )
    return labels


CLOSED = (0, 6, 8, 9)  # digits drawn with a closed circle

TASKS: dict[str, Task] = {
    "label": Task(_classes, "classes", "the label"),
    "digit": Task(_digits, "classes", "the label, a digit 0 to 9"),
    "odd": Task(lambda y: _digits(y) % 2, "classes", "1 for an odd digit"),
    "closed_circle": Task(
        lambda y: torch.isin(_digits(y), torch.tensor(CLOSED)).long(), "classes", "1 for a digit of {0, 6, 8, 9}"
    ),
    "number": Task(lambda y: y.float(), "numbers", "the label, a number to be predicted"),
}

PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda order: order.sort().values,
    "first_half": lambda order: order[: len(order) // 2].sort().values,
    "second_half": lambda order: order[len(order) // 2 :].sort().values,
}
"""Training points: all, or halves of one shuffle (not every other point: MNIST alternates between two groups of writers)."""


def part_of(count: int, part: str) -> Tensor:
    """Indices of the training points of a part, the same for every network."""
    shuffle = torch.randperm(
        count, generator=torch.Generator().manual_seed(stream_seed("parts of the training points"))
    )
    return lookup(PARTS, part, "part of the training points")(shuffle)


# -- the network and its training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassifierSettings:
    """How a classifier is trained. `network` is a name of NETWORKS, or auto: conv for images, mlp for anything else.

    `part` selects the training points: all, or one of two halves. `epochs` 0 means about 2,000 steps, within 6 to 60
    epochs. `noise` is the largest standard deviation of normal noise on the training points; each point draws its own
    between 0 and that. Noise makes a network harder to fool by a generator that is optimised against it.
    """

    network: str = "auto"
    part: str = "all"
    epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 3e-3
    shift: int = 1
    seed: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        lookup({"auto": 0, **NETWORKS}, self.network, "network")
        lookup(PARTS, self.part, "part of the training points")
        if (
            self.epochs < 0
            or self.batch_size < 1
            or self.shift < 0
            or not self.learning_rate > 0
            or not self.noise >= 0
        ):
            raise ValueError(
                f"got epochs={self.epochs}, batch_size={self.batch_size}, shift={self.shift}, "
                f"learning_rate={self.learning_rate}, noise={self.noise}; expected >= 0, >= 1, >= 0, > 0 and >= 0"
            )

    def identity(self) -> dict[str, Any]:
        """The settings that the hash covers; later additions count only if they are used."""
        values = asdict(self)
        if not self.noise:
            del values["noise"]
        return values


JUDGES: tuple[ClassifierSettings, ...] = (
    ClassifierSettings(network="strided", part="second_half", seed=1),
    ClassifierSettings(network="mlp", part="second_half", epochs=20, learning_rate=1e-3, seed=2),
)
"""Judges for classifiers trained on the first half of the points; the first one is more accurate."""


class Classifier(nn.Module):
    """Logits (N, classes) of points, or numbers (N,) for a regression; frozen and in evaluation mode once trained."""

    centre: Tensor
    unit: Tensor

    def __init__(self, network: str, shape: Shape, outputs: int, card: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.shape, self.outputs = tuple(shape), outputs
        self.body, width = lookup(NETWORKS, network, "network")(self.shape)
        self.head = nn.Linear(width, max(outputs, 1))
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("unit", torch.ones(()))
        self.card: dict[str, Any] = card or {}

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, (N, k)."""
        flat = x.reshape(len(x), -1)
        if flat.shape[1] != math.prod(self.shape):
            raise ValueError(f"got points of {flat.shape[1]} numbers; expected {self.shape}, as it was trained")
        return self.body(flat - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.head(self.features(x))
        return out if self.outputs else out[:, 0] * self.unit + self.centre

    @property
    def accuracy(self) -> float:
        """Share of correct predictions on the test points; nan without test points."""
        return float(self.card.get("accuracy", math.nan))


def train_classifier(
    x: Tensor,
    y: Tensor | None,
    digest: str,
    *,
    shape: Shape,
    test: tuple[Tensor, Tensor] | None = None,
    task: str = "label",
    settings: ClassifierSettings | None = None,
    cache: Path | None = None,
    say: Callable[[str], None] | None = None,
    device: torch.device | str = "cpu",
) -> Classifier:
    """The network for this task on these points: read from the cache, or trained on `device` and cached.

    x (N, *shape) or (N, pixels) in [0, 1], y (N,) labels; `digest` identifies the data. Accuracy (R^2 for a regression)
    is measured on `test`. The network is returned on the CPU. Raises `ValueError` for points without labels, fewer than
    two classes, or a shape that the network does not support.
    """
    settings = settings or ClassifierSettings()
    wanted = lookup(TASKS, task, "task")
    if y is None:
        raise ValueError(f"the data have no labels; the task {task!r} needs one per point")
    if len(y) != len(x) or y.ndim != 1:
        raise ValueError(f"got {len(x)} points and labels of shape {tuple(y.shape)}; expected one label per point")
    network = settings.network
    if network == "auto":
        network = "conv" if len(shape) in (2, 3) and min(shape[-2:]) >= 8 else "mlp"
    targets = wanted.targets(y)
    outputs = int(targets.max()) + 1 if wanted.kind == "classes" else 0
    if outputs == 1:
        raise ValueError(f"all {len(y)} points have the label 0 for the task {task!r}; expected two classes or more")
    identity = {"version": VERSION, "task": task, "data": digest, "network": network, **settings.identity()}
    identity["network"] = network
    store = Store("classifier", identity, cache)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("classifier", settings.seed))
        model = Classifier(network, shape, outputs)
        known = store.read()
        if known is not None:
            model.load_state_dict(known[0])
            model.card = known[1]
            return _frozen(model)
        began = time.perf_counter()
        part = part_of(len(x), settings.part)
        points, answers = x[part].reshape(-1, math.prod(shape)).to(device), targets[part].to(device)
        model.to(device).eval()
        with threads_for(flops_of(lambda: model(points[:1])) * settings.batch_size):
            _fit(model, points, answers, settings, store, say or (lambda text: None))
        model.cpu()
    card: dict[str, Any] = {"training_points": len(x[part]), "seconds": round(time.perf_counter() - began, 1)}
    card["trained_on"] = torch.device(device).type
    if test is not None:
        card |= {"test_points": len(test[0]), **_judged(_frozen(model), test[0], wanted.targets(test[1]))}
    model.card = store.write(model, card)
    return _frozen(model)


def _frozen(model: Classifier) -> Classifier:
    return model.eval().requires_grad_(False)


def _judged(model: Classifier, x: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy on points, or R^2 and the root mean square error of numbers."""
    with torch.no_grad():
        answers = torch.cat([model(part) for part in x.split(1000)])
    if model.outputs:
        return {"accuracy": float((answers.argmax(1) == targets).double().mean())}
    error = (answers - targets).double().square().mean()
    return {"r2": float(1 - error / targets.double().var()), "rmse": float(error.sqrt())}


def _epochs(settings: ClassifierSettings, points: int) -> int:
    steps = math.ceil(points / settings.batch_size)
    return settings.epochs or min(max(math.ceil(2000 / steps), 6), 60)


def _fit(
    model: Classifier,
    x: Tensor,
    targets: Tensor,
    settings: ClassifierSettings,
    store: Store,
    say: Callable[[str], None],
) -> None:
    """Train from the last saved epoch, or from the start."""
    if not model.outputs:
        model.centre.copy_(targets.mean())
        model.unit.copy_(targets.std().clamp(min=1e-6))
    epochs, steps = _epochs(settings, len(x)), math.ceil(len(x) / settings.batch_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99))
    first = 0
    kept = store.read_progress()
    if kept is not None:
        tensors, place = kept
        model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name[:6] == "model."})
        unpack_optimizer(optimizer, "optimizer", tensors)
        first = int(place["epoch"])
    saved = time.monotonic()
    for epoch in range(first, epochs):
        model.train()
        torch.manual_seed(stream_seed("classifier epoch", settings.seed, epoch))
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        # Drawn on the CPU, so the order is the same on every device; one synchronisation per epoch.
        order = torch.randperm(len(x)).to(x.device)
        for step, batch in enumerate(order.split(settings.batch_size)):
            rate = _one_cycle((epoch * steps + step) / (epochs * steps))
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate
            moved = _noisy(_shifted(x[batch], model.shape, settings.shift), settings.noise)
            loss = _loss(model, moved, targets[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        say(f"classifier: epoch {epoch + 1}/{epochs}, loss {float(total) / len(x):.4f}")
        if time.monotonic() - saved > SAVE_EVERY:
            tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
            store.write_progress(tensors | pack_optimizer(optimizer, "optimizer"), {"epoch": epoch + 1})
            saved = time.monotonic()


def _loss(model: Classifier, x: Tensor, targets: Tensor) -> Tensor:
    if model.outputs:
        return functional.cross_entropy(model(x), targets, label_smoothing=SMOOTHING)
    return ((model(x) - targets) / model.unit).square().mean()


def _one_cycle(share: float) -> float:
    """The rate as a share of its peak: a rise over the first tenth, then a cosine decay."""
    return 0.1 + 9 * share if share < 0.1 else 0.5 * (1 + math.cos(math.pi * (share - 0.1) / 0.9))


def _noisy(x: Tensor, most: float) -> Tensor:
    if not most:
        return x
    scale = most * torch.rand(len(x), *[1] * (x.ndim - 1))
    return x + (scale * torch.randn(x.shape)).to(x.device)


def _shifted(x: Tensor, shape: Shape, most: int) -> Tensor:
    """Images shifted by up to `most` pixels, one shift per eighth of the batch, edges replicated; other points unchanged."""
    if not most or len(shape) not in (2, 3) or min(shape[-2:]) < 16:
        return x
    rows, columns = shape[-2:]
    padded = functional.pad(x.reshape(len(x), -1, rows, columns), (most,) * 4, mode="replicate")
    moved = []
    for part in padded.chunk(8):
        right, down = (int(torch.randint(0, 2 * most + 1, ())) for _ in range(2))
        moved.append(part[..., down : down + rows, right : right + columns])
    return torch.cat(moved).reshape(x.shape)

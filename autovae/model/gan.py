r"""Wasserstein GANs with gradient penalty: generators of images, plain and conditional on a class.

    critic:     min_f  E f(G(xi)) - E f(x) + lambda E (|grad f(m)| - 1)^2,   m between a real and a generated image
    generator:  min_G  -E f(G(xi)),    xi ~ N(0, I),  x and G(xi) in [0, 1]

| | layers |
|---|---|
| generator | latents (and the one-hot label) -> hidden layer -> 4w x H/4 x W/4 -> transposed convolution 2w -> image |
| critic | image, or the outer product of label and image -> convolutions w, 2w of stride 2 -> hidden layer -> a number |

The result is the exponential average of the generator's weights, which is more stable than the last ones. Both learning
rates fall linearly over the second half. Training is seeded per block, cached (`cache`) and resumes after a kill with the
same result. All random numbers are drawn on the CPU, so a GPU trains on the same batches and noise: up to rounding its
network is the same, under the same hash, and the card names the device. On CUDA one generator step with its critic steps
is one captured graph, and the host synchronises once per block.
References: Improved Training of Wasserstein GANs (Gulrajani et al., 2017); Conditional Generative Adversarial Nets
(Mirza, Osindero, 2014). Not here: how a generator becomes a prior (`export.prior.PriorModule.from_decoder`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autovae.model.cache import Store, pack_optimizer, unpack_optimizer
from autovae.model.halving import DoublingConv, HalvingConv, Image
from autovae.seeds import stream_seed

__all__ = ["Critic", "GANSettings", "Generator", "train_gan"]

VERSION = 1  # of the training below: raise it when the same settings no longer give the same network
BLOCK = 50  # generator steps between checkpoints
SAVE_EVERY = 20.0  # seconds
WARM_UP = 3  # steps on CUDA before capture: libraries choose kernels and allocate memory

Shape = tuple[int, ...]


def _sizes(shape: Shape) -> tuple[int, int, int]:
    """Channels, and the rows and columns of the coarsest grid."""
    channels, rows, columns = (1, *shape) if len(shape) == 2 else shape if len(shape) == 3 else (0, 0, 0)
    if min(rows, columns) < 8 or rows % 4 or columns % 4:
        raise ValueError(f"got points of shape {shape}; expected images whose sides are multiples of 4, at least 8")
    return channels, rows // 4, columns // 4


class Generator(nn.Module):
    """Images (N, *shape) in [0, 1] from latents (N, latent_dim) and, with classes, labels (N,)."""

    def __init__(self, latent_dim: int, shape: Shape, width: int = 16, hidden: int = 256, classes: int = 0) -> None:
        super().__init__()
        channels, rows, columns = _sizes(shape)
        self.latent_dim, self.shape, self.classes = latent_dim, tuple(shape), classes
        self.body = nn.Sequential(
            nn.Linear(latent_dim + classes, hidden), nn.ReLU(),
            nn.Linear(hidden, 2 * width * rows * columns), nn.ReLU(), Image(2 * width, rows, columns),
            DoublingConv(2 * width, width), nn.ReLU(),
            DoublingConv(width, channels), nn.Sigmoid(),
        )  # fmt: skip
        self.card: dict[str, Any] = {}

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if (y is None) != (self.classes == 0):
            raise ValueError(
                f"got {'no labels' if y is None else 'labels'} for a generator of {self.classes} classes; expected "
                f"{'labels' if self.classes else 'none'}"
            )
        if y is not None:
            z = torch.cat([z, self._one_hot(y).to(z)], 1)
        return self.body(z).reshape(len(z), *self.shape)

    def _one_hot(self, y: Tensor) -> Tensor:
        capturing = y.is_cuda and torch.cuda.is_current_stream_capturing()  # no synchronisation during capture
        if not capturing and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < self.classes:
            raise ValueError(f"got labels {int(y.min())} to {int(y.max())}; expected 0 to {self.classes - 1}")
        return functional.one_hot(y, self.classes)

    def sample(self, count: int, generator: torch.Generator, y: Tensor | int | None = None) -> Tensor:
        """`count` images without gradients, of class y (a number, or one label each)."""
        labels = torch.full((count,), y) if isinstance(y, int) else y
        z = torch.randn(count, self.latent_dim, generator=generator)
        with torch.no_grad():
            parts = range(0, count, 1000)
            return torch.cat(
                [self(z[i : i + 1000], None if labels is None else labels[i : i + 1000]) for i in parts] or [z]
            )


class Critic(nn.Module):
    """A number per image; a class enters as the outer product of its one-hot label with the image."""

    def __init__(self, shape: Shape, width: int = 16, hidden: int = 128, classes: int = 0) -> None:
        super().__init__()
        channels, rows, columns = _sizes(shape)
        self.classes, self.image = classes, (channels, 4 * rows, 4 * columns)
        self.body = nn.Sequential(
            HalvingConv(channels * max(classes, 1), width), nn.LeakyReLU(0.2),
            HalvingConv(width, 2 * width), nn.LeakyReLU(0.2), nn.Flatten(),
            nn.Linear(2 * width * rows * columns, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        images = x.reshape(len(x), *self.image)
        if y is None:
            return self.body(images.contiguous(memory_format=torch.channels_last))[:, 0]
        # All but one block of the outer product are zero: an image only meets the first kernels of its class.
        first, *rest = self.body
        assert isinstance(first, nn.Conv2d)
        assert first.bias is not None
        kernels = first.weight.unflatten(1, (self.classes, -1)).transpose(0, 1).flatten(2)
        patches = functional.unfold(images, 4, padding=1, stride=2)
        h = torch.baddbmm(first.bias[:, None], kernels.index_select(0, y), patches)
        h = h.unflatten(2, (self.image[1] // 2, self.image[2] // 2)).contiguous(memory_format=torch.channels_last)
        for layer in rest:
            h = layer(h)
        return h[:, 0]


@dataclass(frozen=True)
class GANSettings:
    """How a GAN is trained: `steps` critic steps in total, `critic` of them per generator step."""

    latent_dim: int = 128
    width: int = 16
    steps: int = 20_000
    critic: int = 3
    batch_size: int = 64
    learning_rate: float = 5e-4
    penalty: float = 10.0
    average: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        whole = (self.latent_dim, self.width, self.steps, self.critic, self.batch_size)
        if min(whole) < 1 or not self.learning_rate > 0 or not self.penalty >= 0 or not 0 <= self.average < 1:
            raise ValueError(f"got {self}; expected sizes of at least 1, a rate > 0, penalty >= 0, 0 <= average < 1")


def train_gan(
    x: Tensor,
    digest: str,
    *,
    shape: Shape,
    y: Tensor | None = None,
    settings: GANSettings | None = None,
    cache: Path | None = None,
    say: Callable[[str], None] | None = None,
    device: torch.device | str = "cpu",
) -> Generator:
    """The generator of these points, from the cache or trained on `device` and cached; conditional if labels y are given.

    x (N, *shape) or (N, pixels) in [0, 1]; `digest` identifies the data. The generator is returned frozen, in evaluation
    mode, on the CPU. Raises `ValueError` for points outside [0, 1] or of an unsupported shape.
    """
    settings = settings or GANSettings()
    if not len(x) or not 0 <= float(x.min()) <= float(x.max()) <= 1:
        raise ValueError(f"got {len(x)} points that are not all in [0, 1]; expected images in [0, 1]")
    if y is not None and len(y) != len(x):
        raise ValueError(f"got {len(x)} points and {len(y)} labels; expected one label per point")
    classes = 0 if y is None else int(y.max()) + 1
    store = Store("gan", {"version": VERSION, "data": digest, "classes": classes, **asdict(settings)}, cache)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("gan", settings.seed))
        known = store.read()
        training = _Training(settings, shape, classes, torch.device("cpu" if known else device))
        generator = training.average
        if known is None:
            history = training.run(x.reshape(len(x), -1), y, store, say or (lambda text: None))
            about = {"seconds": round(training.seconds, 1), "trained_on": training.device.type, "distance": history}
            generator.card = store.write(generator.cpu(), about)
        else:
            generator.load_state_dict(known[0])
            generator.card = known[1]
    return generator.eval().requires_grad_(False)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one generator step and of the critic steps before it."""

    points: Tensor
    """(critic steps, batch) indices of real images."""
    xi: Tensor
    """(critic steps, batch, latent_dim) latents of the generated images."""
    shares: Tensor
    """(critic steps, batch, 1) position of the penalty on the line between the two."""
    labels_of: Tensor
    """(batch,) indices of the labels for the generator's step; unused without classes."""
    latents: Tensor
    """(batch, latent_dim) latents of the generator's step."""

    def tensors(self) -> tuple[Tensor, ...]:
        return self.points, self.xi, self.shares, self.labels_of, self.latents


def _drawn(settings: GANSettings, count: int, conditional: bool) -> Draws:
    batch, dim = settings.batch_size, settings.latent_dim
    rows = [
        (torch.randint(count, (batch,)), torch.randn(batch, dim), torch.rand(batch, 1)) for _ in range(settings.critic)
    ]
    points, xi, shares = (torch.stack(parts) for parts in zip(*rows, strict=True))
    labels_of = torch.randint(count, (batch,)) if conditional else torch.zeros(batch, dtype=torch.long)
    return Draws(points, xi, shares, labels_of, torch.randn(batch, dim))


def _moved(draws: list[Draws], device: torch.device) -> list[Draws]:
    """The draws of a whole block on the device, in five copies."""
    if device.type == "cpu":
        return draws
    columns = [torch.stack(parts).to(device) for parts in zip(*(one.tensors() for one in draws), strict=True)]
    return [Draws(*row) for row in zip(*columns, strict=True)]


class _Training:
    """The state of training: generator, its average, critic and their optimisers."""

    def __init__(self, settings: GANSettings, shape: Shape, classes: int, device: torch.device) -> None:
        self.settings, self.classes, self.device = settings, classes, device
        self.generator = Generator(settings.latent_dim, shape, settings.width, classes=classes)
        self.average = Generator(settings.latent_dim, shape, settings.width, classes=classes).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.critic = Critic(shape, settings.width, classes=classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self._modules().values():
            module.to(device)
        on_cuda = device.type == "cuda"
        # In a graph the rates are tensors, which every replay reads.
        rate: Any = torch.tensor(settings.learning_rate, device=device) if on_cuda else settings.learning_rate
        how: dict[str, Any] = {"capturable": True, "fused": True} if on_cuda else {}
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=rate.clone() if on_cuda else rate, betas=(0.0, 0.9), **how)
            for name, module in (("generator", self.generator), ("critic", self.critic))
        }
        self.blend = torch.zeros((), device=device)
        """The weight of the new values in the average."""
        self.gap = torch.zeros((), device=device, dtype=torch.float64)
        """Estimates of the Wasserstein distance, summed over a block."""
        self.seconds, self.first = 0.0, 0
        self.distance: list[float] = []

    def run(self, x: Tensor, y: Tensor | None, store: Store, say: Callable[[str], None]) -> list[float]:
        """Train to the end; returns the estimated Wasserstein distance of every block."""
        settings = self.settings
        total = math.ceil(settings.steps / settings.critic)
        self._load(store)
        x, y = x.to(self.device), None if y is None else y.to(self.device)
        step_of = _Captured(self, x, y) if self.device.type == "cuda" else lambda draws: self.step(x, y, draws)
        saved = time.monotonic()
        for start in range(self.first, total, BLOCK):
            torch.manual_seed(stream_seed("gan block", settings.seed, start))
            began = time.perf_counter()
            steps = range(start, min(start + BLOCK, total))
            for step, draws in zip(
                steps, _moved([_drawn(settings, len(x), y is not None) for _ in steps], self.device), strict=True
            ):
                self._schedule(step, total)
                step_of(draws)
            gap = float(self.gap) / (len(steps) * settings.critic)
            self.gap.zero_()
            self.seconds += time.perf_counter() - began
            self.distance.append(round(gap, 4))
            done = min(start + BLOCK, total)
            say(f"GAN: {done * settings.critic}/{total * settings.critic} steps of the critic, "
                f"distance {self.distance[-1]:.2f}, {self.seconds:.0f} s")  # fmt: skip
            if not math.isfinite(self.distance[-1]):
                raise ValueError(f"the critic's loss is not a number after {done} steps; lower the learning rate")
            if time.monotonic() - saved > SAVE_EVERY:
                self._save(store, done)
                saved = time.monotonic()
        return self.distance

    def _schedule(self, step: int, total: int) -> None:
        rate = self.settings.learning_rate * min(1.0, 2 * (1 - step / total))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate
        self.blend.fill_(1 - min(self.settings.average, (1 + step) / (10 + step)))

    def step(self, x: Tensor, y: Tensor | None, draws: Draws) -> None:
        """The critic's steps, then the generator's. Never synchronises with the device."""
        for points, xi, share in zip(draws.points, draws.xi, draws.shares, strict=True):
            self._critic_step(x.index_select(0, points), None if y is None else y.index_select(0, points), xi, share)
        self._generator_step(None if y is None else y.index_select(0, draws.labels_of), draws.latents)

    def _critic_step(self, real: Tensor, labels: Tensor | None, xi: Tensor, share: Tensor) -> None:
        with torch.no_grad():
            made = self.generator(xi, labels).flatten(1)
        mixed = torch.lerp(real, made, share).requires_grad_()
        both = None if labels is None else torch.cat([labels, labels])
        on_real, on_made = self.critic(torch.cat([real, made]), both).chunk(2)
        gap = on_real.mean() - on_made.mean()
        (slope,) = torch.autograd.grad(self.critic(mixed, labels).sum(), mixed, create_graph=True)
        loss = self.settings.penalty * (slope.norm(dim=1) - 1).square().mean() - gap
        self._descend("critic", loss)
        self.gap += gap.detach()

    def _generator_step(self, labels: Tensor | None, xi: Tensor) -> None:
        self.critic.requires_grad_(False)
        made = self.generator(xi, labels)
        self._descend("generator", -self.critic(made, labels).mean())
        self.critic.requires_grad_(True)
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                slow.lerp_(fast, self.blend)

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def _modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "average": self.average, "critic": self.critic}

    def _save(self, store: Store, done: int) -> None:
        tensors = {f"{k}.{n}": t for k, module in self._modules().items() for n, t in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= pack_optimizer(optimizer, f"adam_{name}")
        store.write_progress(tensors, {"done": done, "seconds": self.seconds, "distance": self.distance})

    def _load(self, store: Store) -> None:
        kept = store.read_progress()
        if kept is None:
            return
        tensors, place = kept
        for kind, module in self._modules().items():
            prefix = f"{kind}."
            module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        for name, optimizer in self.optimizers.items():
            unpack_optimizer(optimizer, f"adam_{name}", tensors)
        self.first, self.seconds, self.distance = int(place["done"]), float(place["seconds"]), list(place["distance"])


class _Captured:
    """The step on CUDA, captured after warm-up and replayed; runs eagerly if capture fails."""

    def __init__(self, training: _Training, x: Tensor, y: Tensor | None) -> None:
        self.training, self.x, self.y = training, x, y
        self.stream = torch.cuda.Stream(x.device)
        self.draws: Draws | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.left = WARM_UP

    def __call__(self, draws: Draws) -> None:
        self.stream.wait_stream(torch.cuda.current_stream(self.x.device))
        with torch.cuda.stream(self.stream):
            if self.left:
                self.training.step(self.x, self.y, draws)
                self.left -= 1
                if not self.left:
                    self._record(draws)
            elif self.graph is None or self.draws is None:
                self.training.step(self.x, self.y, draws)
            else:
                for fixed, new in zip(self.draws.tensors(), draws.tensors(), strict=True):
                    fixed.copy_(new)
                self.graph.replay()
        torch.cuda.current_stream(self.x.device).wait_stream(self.stream)

    def _record(self, draws: Draws) -> None:
        self.draws = Draws(*(tensor.clone() for tensor in draws.tensors()))
        graph = torch.cuda.CUDAGraph()
        with contextlib.suppress(RuntimeError):
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.training.step(self.x, self.y, self.draws)
            self.graph = graph

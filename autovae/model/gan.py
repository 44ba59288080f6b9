r"""Wasserstein GANs with gradient penalty: generators of images, plain and conditional on a class.

    critic:     min_f  E f(G(xi)) - E f(x) + lambda E (|grad f(m)| - 1)^2,   m on the line between a real and a made image
    generator:  min_G  -E f(G(xi)),    xi ~ N(0, I),  x and G(xi) in [0, 1]

| | layers |
|---|---|
| generator | latents (and the one-hot label) -> hidden layer -> 4w x H/4 x W/4 -> transposed convolution 2w -> image |
| critic | image, or the outer product of label and image -> convolutions w, 2w of stride 2 -> hidden layer -> a number |

What is kept is the exponential average of the generator's weights, which is steadier than the last ones. Both rates fall
linearly over the second half. Training is seeded block by block, kept by `stored`, and goes on after a kill with the same
result. References: Improved Training of Wasserstein GANs (Gulrajani et al., 2017); Conditional Generative Adversarial Nets
(Mirza, Osindero, 2014). Not here: how a generator becomes a prior (`export.prior.PriorModule.from_decoder`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autovae.model.stored import Store, pack_optimizer, unpack_optimizer
from autovae.streams import stream_seed

__all__ = ["Critic", "GANSettings", "Generator", "train_gan"]

VERSION = 1  # of the training below: raise it where the same settings no longer give the same network
BLOCK = 50  # generator steps between two places where training may go on
SAVE_EVERY = 20.0  # seconds

Shape = tuple[int, ...]


def _sizes(shape: Shape) -> tuple[int, int, int]:
    """Channels, and rows and columns of the coarsest grid."""
    channels, rows, columns = (1, *shape) if len(shape) == 2 else shape if len(shape) == 3 else (0, 0, 0)
    if min(rows, columns) < 8 or rows % 4 or columns % 4:
        raise ValueError(f"got points of shape {shape}; expected images whose sides are multiples of 4, at least 8")
    return channels, rows // 4, columns // 4


class Generator(nn.Module):
    """Images (N, *shape) in [0, 1] of latents (N, latent_dim), and of labels (N,) where there are classes."""

    def __init__(self, latent_dim: int, shape: Shape, width: int = 16, hidden: int = 256, classes: int = 0) -> None:
        super().__init__()
        channels, rows, columns = _sizes(shape)
        self.latent_dim, self.shape, self.classes = latent_dim, tuple(shape), classes
        self.body = nn.Sequential(
            nn.Linear(latent_dim + classes, hidden), nn.ReLU(),
            nn.Linear(hidden, 2 * width * rows * columns), nn.ReLU(), nn.Unflatten(1, (2 * width, rows, columns)),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Sigmoid(),
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
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < self.classes:
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
            nn.Conv2d(channels * max(classes, 1), width, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(),
            nn.Linear(2 * width * rows * columns, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        images = x.reshape(len(x), *self.image)
        if y is None:
            return self.body(images.contiguous(memory_format=torch.channels_last))[:, 0]
        # All but one block of the outer product are zero: every image meets the first kernels of its own class alone.
        first, *rest = self.body
        assert isinstance(first, nn.Conv2d)
        assert first.bias is not None
        kernels = first.weight.unflatten(1, (self.classes, -1)).transpose(0, 1).flatten(2)
        patches = functional.unfold(images, 4, padding=1, stride=2)
        h = torch.baddbmm(first.bias[:, None], kernels[y], patches)
        h = h.unflatten(2, (self.image[1] // 2, self.image[2] // 2)).contiguous(memory_format=torch.channels_last)
        for layer in rest:
            h = layer(h)
        return h[:, 0]


@dataclass(frozen=True)
class GANSettings:
    """How a GAN is trained: `steps` of the critic in all, `critic` of them for one of the generator."""

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
) -> Generator:
    """The generator of these points, read from the cache or trained and kept there; with labels y it is conditional.

    x (N, *shape) or (N, pixels) in [0, 1]; `digest` says which data they are. The generator is frozen, in evaluation
    mode. Raises `ValueError` for points outside [0, 1] or of a shape that cannot be made.
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
        training = _Training(settings, shape, classes)
        generator, known = training.average, store.read()
        if known is None:
            history = training.run(x.reshape(len(x), -1), y, store, say or (lambda text: None))
            generator.card = store.write(generator, {"seconds": round(training.seconds, 1), "distance": history})
        else:
            generator.load_state_dict(known[0])
            generator.card = known[1]
    return generator.eval().requires_grad_(False)


class _Training:
    """Generator, its average, critic and their optimisers, on the way."""

    def __init__(self, settings: GANSettings, shape: Shape, classes: int) -> None:
        self.settings, self.classes = settings, classes
        self.generator = Generator(settings.latent_dim, shape, settings.width, classes=classes)
        self.average = Generator(settings.latent_dim, shape, settings.width, classes=classes).requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.critic = Critic(shape, settings.width, classes=classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=settings.learning_rate, betas=(0.0, 0.9))
            for name, module in (("generator", self.generator), ("critic", self.critic))
        }
        self.seconds, self.first = 0.0, 0
        self.distance: list[float] = []

    def run(self, x: Tensor, y: Tensor | None, store: Store, say: Callable[[str], None]) -> list[float]:
        """Train to the end; the estimate of the Wasserstein distance of every block."""
        settings = self.settings
        total = math.ceil(settings.steps / settings.critic)
        self._load(store)
        saved = time.monotonic()
        for start in range(self.first, total, BLOCK):
            torch.manual_seed(stream_seed("gan block", settings.seed, start))
            began, gaps = time.perf_counter(), []
            for step in range(start, min(start + BLOCK, total)):
                for optimizer in self.optimizers.values():
                    for group in optimizer.param_groups:
                        group["lr"] = settings.learning_rate * min(1.0, 2 * (1 - step / total))
                gaps += [self._critic_step(x, y) for _ in range(settings.critic)]
                self._generator_step(step, y)
            self.seconds += time.perf_counter() - began
            self.distance.append(round(sum(gaps) / len(gaps), 4))
            done = min(start + BLOCK, total)
            say(f"GAN: {done * settings.critic}/{total * settings.critic} steps of the critic, "
                f"distance {self.distance[-1]:.2f}, {self.seconds:.0f} s")  # fmt: skip
            if not math.isfinite(self.distance[-1]):
                raise ValueError(f"the critic's loss is not a number after {done} steps; lower the learning rate")
            if time.monotonic() - saved > SAVE_EVERY:
                self._save(store, done)
                saved = time.monotonic()
        return self.distance

    def _batch(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        index = torch.randint(len(x), (self.settings.batch_size,))
        return x[index], None if y is None else y[index]

    def _critic_step(self, x: Tensor, y: Tensor | None) -> float:
        real, labels = self._batch(x, y)
        with torch.no_grad():
            made = self.generator(torch.randn(len(real), self.settings.latent_dim), labels).flatten(1)
        share = torch.rand(len(real), 1)
        mixed = torch.lerp(real, made, share).requires_grad_()
        both = None if labels is None else torch.cat([labels, labels])
        on_real, on_made = self.critic(torch.cat([real, made]), both).chunk(2)
        gap = on_real.mean() - on_made.mean()
        (slope,) = torch.autograd.grad(self.critic(mixed, labels).sum(), mixed, create_graph=True)
        loss = self.settings.penalty * (slope.norm(dim=1) - 1).square().mean() - gap
        self._descend("critic", loss)
        return float(gap.detach())

    def _generator_step(self, step: int, y: Tensor | None) -> None:
        count = self.settings.batch_size
        labels = None if y is None else y[torch.randint(len(y), (count,))]
        self.critic.requires_grad_(False)
        made = self.generator(torch.randn(count, self.settings.latent_dim), labels)
        self._descend("generator", -self.critic(made, labels).mean())
        self.critic.requires_grad_(True)
        keep = min(self.settings.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)

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

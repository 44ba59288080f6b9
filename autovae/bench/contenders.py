"""The contenders of the training benchmark: our populations, the peers' loops, and processes that share a device.

All train the reference network 784-400-400-(20+20) / 20-400-400-784 with Adam; `Contender.seconds` is a time per epoch
per VAE. The table of contenders is in `training`. Not here: rounds and ratios.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autovae.bench.rounds import CLOCKS, wait
from autovae.data.batches import grey
from autovae.data.datasets import Data, load
from autovae.data.errors import DataError
from autovae.data.minibatches import Minibatches
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.population import Population
from autovae.training.precision import fast_products
from autovae.training.train_state import TrainState

__all__ = [
    "EPOCH",
    "Contender",
    "Loop",
    "Ours",
    "Plain",
    "Processes",
    "example",
    "images",
    "mapped",
    "pictures",
    "pythae",
    "ready",
]

EPOCH = 60_000
IMAGES = 10_000


class Contender:
    """A way of training `members` VAEs under a setting of products; `now` is the clock of all contenders."""

    now = staticmethod(CLOCKS["wall"])

    def __init__(self, members: int, device: torch.device, products: str) -> None:
        self.members, self.device, self.products = members, device, products

    def settled(self) -> AbstractContextManager[str]:
        """The setting of its products."""
        return fast_products(self.products, self.device)

    def train(self, batch: int, steps: int) -> None:
        """Take so many steps of so many points."""
        raise NotImplementedError

    def seconds(self, batch: int, steps: int) -> float:
        """Seconds per epoch per VAE."""
        wait(self.device)
        began = self.now()
        self.train(batch, steps)
        wait(self.device)
        return (self.now() - began) * EPOCH / (batch * steps) / self.members


def images(points: int) -> Data:
    """Made-up grey images of which `points` train."""
    rng = np.random.default_rng(0)
    total = -(-points * 10 // 7)
    return load((rng.integers(0, 256, (total, 28, 28)) * (rng.random((total, 28, 28)) > 0.8)).astype(np.uint8))


def pictures() -> tuple[str, Data]:
    """(name, MNIST's first training images), or random images if MNIST is not present."""
    try:
        name, data = "mnist", load(load("mnist").train.x[: 2 * IMAGES].numpy())
    except DataError:
        name, data = "made up", images(IMAGES)
    return name, replace(data, train=replace(data.train, x=data.train.x[:IMAGES], y=None))


class Ours(Contender):
    """`Population`, one for each number of points a step, all from the same members."""

    def __init__(
        self,
        members: int,
        data: Data,
        device: torch.device,
        products: str,
        narrow: torch.dtype | None = None,
        **belief: Any,
    ) -> None:
        super().__init__(members, device, products)
        self.data, self.narrow = data, narrow
        specs = [VAESpec(batch_size=100, seed=seed, **belief) for seed in range(members)]
        self._members = [TrainState(build(spec, data.domain)) for spec in specs]
        self._populations: dict[int, Population] = {}

    def train(self, batch: int, steps: int) -> None:
        if batch not in self._populations:
            part = replace(self.data.train, x=self.data.train.x[: batch * steps])
            members = [self._at(member, batch) for member in self._members]
            self._populations[batch] = Population(members, Minibatches(self.data, part, self.device), self.narrow)
        population = self._populations[batch]
        epochs, left = divmod(batch * steps, population.points.points)
        if left:  # count exactly what is trained
            raise ValueError(
                f"{steps} steps of {batch} points are no whole epochs of {population.points.points} points"
            )
        for _ in range(epochs):
            population.train_epoch()

    @staticmethod
    def _at(member: TrainState, batch: int) -> TrainState:
        """The same member, weights and moments, with another number of points a step."""
        vae = build(member.spec.replace(batch_size=batch), member.vae.domain)
        vae.load_state_dict(member.vae.state_dict())
        return replace(member, vae=vae, history=[])


def _peers_products(device: torch.device) -> str:
    """Torch's default setting on a CPU."""
    return "tf32" if device.type == "cuda" else "float32"


class Loop(Contender):
    """A module's own loop: `loss` of prepared minibatches of x (N, ...), and an optimizer."""

    def __init__(
        self,
        x: Tensor,
        loss: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        members: int = 1,
        products: str | None = None,
    ) -> None:
        super().__init__(members, x.device, products or _peers_products(x.device))
        self.x, self.loss, self.optimizer = x, loss, optimizer
        self._at = 0

    def train(self, batch: int, steps: int) -> None:
        for _ in range(steps):
            self._at = 0 if self._at + batch > len(self.x) else self._at
            self.optimizer.zero_grad()
            self.loss(self.x[self._at : self._at + batch]).backward()
            self.optimizer.step()
            self._at += batch


class Plain(nn.Module):
    """PyTorch's VAE example on the reference network; `forward` gives the loss of a minibatch, from noise."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 784))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        loc, log_var = self.encoder(x).chunk(2, -1)
        out = self.decoder(loc + (0.5 * log_var).exp() * noise)
        loss = F.binary_cross_entropy_with_logits(out, x, reduction="sum")
        return (loss - 0.5 * (1 + log_var - loc.square() - log_var.exp()).sum()) / len(x)


def example(x: Tensor) -> Loop:
    torch.manual_seed(0)
    model = Plain().to(x.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    return Loop(
        x, lambda part: model(part, torch.randn(len(part), 20, device=x.device)), optimizer, products=_fastest(x)
    )


def _fastest(x: Tensor) -> str:
    return "tf32" if x.is_cuda else "fast"


def mapped(members: int, x: Tensor) -> Loop:
    models = [Plain().to(x.device) for _ in range(members)]
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    optimizer = torch.optim.Adam(list(leaves.values()), lr=1e-3, fused=True)

    def loss(parameters: dict[str, Tensor], part: Tensor, noise: Tensor) -> Tensor:
        return torch.func.functional_call(models[0], (parameters, buffers and {}), (part, noise))

    def of_all(part: Tensor) -> Tensor:
        noise = torch.randn(members, len(part), 20, device=x.device)
        return torch.func.vmap(loss, (0, None, 0))(leaves, part, noise).sum()

    return Loop(x, of_all, optimizer, members, _fastest(x))


def pythae(x: Tensor) -> Loop | None:
    """pythae's own model and loss with torch's Adam; None if it is not installed."""
    try:
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError:
        return None

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            BaseEncoder.__init__(self)
            self.body = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU())
            self.loc, self.log_var = nn.Linear(400, 20), nn.Linear(400, 20)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x.flatten(1))
            return ModelOutput(embedding=self.loc(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            BaseDecoder.__init__(self)
            layers = [nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid()]
            self.body = nn.Sequential(*layers)

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.body(z).view(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder()).to(x.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return Loop(x.unflatten(1, (1, 28, 28)), lambda part: model({"data": part}).loss, optimizer)


class Processes(Contender):
    """Processes that share a device and run the fused loop: two with half the threads each, four on CUDA."""

    def __init__(self, threads: int, device: torch.device) -> None:
        count = 4 if device.type == "cuda" else 2
        super().__init__(count, device, "tf32" if device.type == "cuda" else "fast")
        each = ["--worker", str(max(1, threads // count)), str(device)]
        command = [sys.executable, "-m", "autovae.bench.contenders", *each]
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]

    def train(self, batch: int, steps: int) -> None:
        self._tell(batch, steps)

    def seconds(self, batch: int, steps: int) -> float:
        """Of the slowest, over their number."""
        return self._tell(batch, steps) / self.members

    def _tell(self, batch: int, steps: int) -> float:
        for worker in self._workers:
            assert worker.stdin is not None  # opened above
            worker.stdin.write(f"{batch} {steps}\n")
            worker.stdin.flush()
        return max(float(worker.stdout.readline()) for worker in self._workers if worker.stdout is not None)

    def close(self) -> None:
        for worker in self._workers:
            worker.communicate("")


def _work(threads: int, device: torch.device) -> None:
    torch.set_num_threads(threads)
    loop = example(ready(pictures()[1]).to(device))
    with loop.settled():
        for line in sys.stdin:
            batch, steps = (int(word) for word in line.split())
            print(loop.seconds(batch, steps), flush=True)


def ready(data: Data) -> Tensor:
    """The peers' data, (N, 784) in [0, 1]."""
    return grey(data.train.x.flatten(1), data)


if __name__ == "__main__":
    _work(int(sys.argv[2]), torch.device(sys.argv[3]))

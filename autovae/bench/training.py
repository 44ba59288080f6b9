r"""Training speed against the peers: seconds per epoch per VAE on the reference network, in one run.

    autovae bench training            python -m autovae.bench.training

Work: 784-400-400-(20+20) / 20-400-400-784, 60,000 points, Adam, float32: 312 GFLOP an epoch. Every contender trains a
fraction of an epoch in each round, one after the other, so that a machine that gets slower slows all of them; ratios are
medians over rounds. Ours includes the minibatch's gather, dequantisation and noise; the peers get ready minibatches.

Images are MNIST's where it is at hand. All are measured fresh; after a thousand steps torch's Adam is slower where units
have died, ours is not (see `training.adam`).

| contender     | what                                                                                            |
|---------------|-------------------------------------------------------------------------------------------------|
| population    | `Population` of `members` VAEs, per member                                                      |
| mismatched    | the same population with logistic posteriors under the normal prior                             |
| mass_NAME     | a population of NAME heads (normal, logistic, beta) that follows masses of bins                 |
| density_NAME  | the same, following densities: `mass_vs_density_NAME` is the time of the one over the other     |
| bfloat16      | the same population with products of bfloat16 factors, weights in float32 (the peers' stay)     |
| single        | the same code with one member                                                                   |
| pythae        | pythae's VAE and torch's Adam, its training step without its DataLoader, torch's default setting |
| fused         | PyTorch's VAE example with logits and fused Adam, under torch's fastest setting that is exact   |
| vmap          | `torch.func.vmap` of that module over stacked parameters, fused Adam, per member                |
| processes     | the fused loop in two processes that share the threads (CUDA: four that share the GPU), per VAE |
| floor         | 312 GFLOP at torch's best rate of square products of 1024 to 4096, exact ones, in the same round |
"""

from __future__ import annotations

import csv
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autovae.data.batches import grey
from autovae.data.datasets import Data, load
from autovae.data.errors import DataError
from autovae.data.minibatches import Minibatches
from autovae.model.vae import build
from autovae.registry import lookup
from autovae.spec import VAESpec
from autovae.training.loop import choose_device
from autovae.training.population import Population
from autovae.training.precision import fast_products
from autovae.training.train_state import TrainState

__all__ = ["bench_training", "write_rows"]

EPOCH = 60_000
EPOCH_FLOP = EPOCH * 5.2e6
STEPS = {1000: 4, 100: 40}  # of a round: some ten seconds in all
IMAGES = 10_000
HEADS = ("normal", "logistic", "beta")  # measured with masses and with densities, at 1,000 points
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Contender:
    """`members` VAEs that a way of training goes on with, under a setting of products."""

    def __init__(self, members: int, device: torch.device, products: str) -> None:
        self.members, self.device, self.products = members, device, products

    def settled(self) -> AbstractContextManager[str]:
        """Where it is trained."""
        return fast_products(self.products, self.device)

    def train(self, batch: int, steps: int) -> None:
        """Take so many steps of so many points."""
        raise NotImplementedError

    def seconds(self, batch: int, steps: int) -> float:
        """Seconds per epoch per VAE."""
        _wait(self.device)
        began = _now()
        self.train(batch, steps)
        _wait(self.device)
        return (_now() - began) * EPOCH / (batch * steps) / self.members


_clock = ["wall"]  # what a run of the bench reads


def _now() -> float:
    return CLOCKS[_clock[0]]()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images(points: int) -> Data:
    """Made-up grey images of which `points` train."""
    rng = np.random.default_rng(0)
    total = -(-points * 10 // 7)
    return load((rng.integers(0, 256, (total, 28, 28)) * (rng.random((total, 28, 28)) > 0.8)).astype(np.uint8))


def pictures() -> tuple[str, Data]:
    """MNIST's first training images, or made-up ones where it is not at hand; which, and the images."""
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
        if left:  # what is counted must be what is trained
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
    """On a CPU torch's own setting, as where it is just installed."""
    return "tf32" if device.type == "cuda" else "float32"


class Loop(Contender):
    """A module's own loop: `loss` of minibatches of x (N, ...) that lie ready, and an optimizer."""

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
    """pythae's own model and loss with torch's Adam; None where it is not installed."""
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


def floor(device: torch.device) -> float:
    """Seconds of an epoch at the best product rate that is seen now."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = torch.randn(2, size, size, device=device)
        for _ in range(2 if size > 2048 else 4):
            _wait(device)
            began = _now()
            torch.mm(a, b)
            _wait(device)
            best = max(best, 2 * size**3 / (_now() - began))
    return EPOCH_FLOP / best


class Processes(Contender):
    """Processes that share a device and run the fused loop when told to: two with half the threads each, four on CUDA."""

    def __init__(self, threads: int, device: torch.device) -> None:
        count = 4 if device.type == "cuda" else 2
        super().__init__(count, device, "tf32" if device.type == "cuda" else "fast")
        each = ["--worker", str(max(1, threads // count)), str(device)]
        command = [sys.executable, "-m", "autovae.bench.training", *each]
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]

    def train(self, batch: int, steps: int) -> None:
        self._tell(batch, steps)

    def seconds(self, batch: int, steps: int) -> float:
        """Those of the slowest, over how many there are."""
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
    loop = example(_ready(pictures()[1]).to(device))
    with loop.settled():
        for line in sys.stdin:
            batch, steps = (int(word) for word in line.split())
            print(loop.seconds(batch, steps), flush=True)


def _ready(data: Data) -> Tensor:
    """What the peers train on, (N, 784) in [0, 1]."""
    return grey(data.train.x.flatten(1), data)


def bench_training(
    rounds: int = 5,
    device: str | None = "cpu",
    members: int | None = None,
    threads: int | None = None,
    products: str | None = None,
    clock: str = "wall",
    results: str | Path | None = "results/bench",
) -> dict[str, Any]:
    """Ratios above 1 are times faster than the peer; `seconds_*` are medians per epoch per VAE, `fastest_*` minima.

    clock = "processor" counts the processor's time for this program, which neighbours on a busy machine disturb less:
    for one thread on a CPU. `products`: those of our contenders, "fast" on a CPU, TF32 on CUDA unless another is named.
    """
    lookup(CLOCKS, clock, "clock")
    if clock == "processor" and threads != 1:
        raise ValueError(f"clock 'processor' adds up threads, so it is for threads = 1, got {threads}")
    where = choose_device(device)
    count = members or (128 if where.type == "cuda" else 8)
    products = products or ("tf32" if where.type == "cuda" else "fast")
    before = torch.get_num_threads()
    _clock[0] = clock
    name, data = pictures()
    values: dict[str, Any] = {"rounds": rounds, "device": str(where), "members": count, "clock": clock, "images": name}
    rows: list[dict[str, Any]] = []
    try:
        for used in [threads] if threads else sorted({1, before}) if where.type == "cpu" else [before]:
            torch.set_num_threads(used)
            with fast_products(products, where) as precision:
                pass
            seconds = _rounds(rounds, count, where, used, data, products)
            values |= {"threads": used, "precision": precision}
            head = {"device": str(where), "threads": used, "members": count, "clock": clock, "precision": precision}
            rows += [
                {**head, "batch": batch, "contender": name}
                | {"seconds_median": statistics.median(times), "seconds_min": min(times), "rounds": rounds}
                | {"over_pythae": _ratio(seconds, batch, "pythae", name)}
                for (batch, name), times in seconds.items()
            ]
    finally:
        torch.set_num_threads(before)
        _clock[0] = "wall"
    values |= _ratios(seconds)
    if results is not None:
        write_rows(Path(results) / f"training{'_cuda' if where.type == 'cuda' else ''}.csv", rows)
    return values


Seconds = dict[tuple[int, str], list[float]]  # of (batch, contender), a number a round


def _rounds(rounds: int, members: int, device: torch.device, threads: int, data: Data, products: str) -> Seconds:
    x = _ready(data).to(device)
    found: dict[str, Contender | None] = {
        "population": Ours(members, data, device, products),
        "bfloat16": Ours(members, data, device, products, torch.bfloat16),
        "mismatched": Ours(members, data, device, products, posterior="logistic"),
        **{
            f"{objective}_{head}": Ours(members, data, device, products, likelihood=head, objective=objective)
            for head in HEADS
            for objective in ("mass", "density")
        },
        "single": Ours(1, data, device, products),
        "pythae": pythae(x),
        "fused": example(x),
        "vmap": mapped(members, x),
    }
    processes = Processes(threads, device) if device.type == "cuda" or threads > 1 else None
    contenders = {name: one for name, one in {**found, "processes": processes}.items() if one is not None}
    try:
        return _measured(rounds, contenders, device, products)
    finally:
        if processes:
            processes.close()


def _measured(rounds: int, contenders: dict[str, Contender], device: torch.device, products: str) -> Seconds:
    scale = 1 if device.type == "cpu" else 10
    seconds: Seconds = {
        (batch, name): [] for batch in STEPS for name in contenders if batch == 1000 or not name.endswith(HEADS)
    }
    for batch, name in seconds:
        for _ in range(2 if device.type == "cuda" else 1):  # before and after the capture
            with contenders[name].settled():
                contenders[name].train(batch, scale * STEPS[batch])
    floors: list[float] = []
    for _ in range(rounds):
        with fast_products(products, device):
            floors.append(floor(device))
        for (batch, name), times in seconds.items():
            with contenders[name].settled():
                times.append(contenders[name].seconds(batch, scale * STEPS[batch]))
    return seconds | {(batch, "floor"): list(floors) for batch in STEPS}


def _ratio(seconds: Seconds, batch: int, peer: str, own: str) -> float | None:
    """How many times faster than a peer, the median over rounds; None where one of them was not measured."""
    pairs = zip(seconds.get((batch, peer), []), seconds.get((batch, own), []), strict=False)
    each = [theirs / mine for theirs, mine in pairs]
    return statistics.median(each) if each else None


def _ratios(seconds: Seconds) -> dict[str, Any]:
    ratio = functools.partial(_ratio, seconds)
    values: dict[str, Any] = {f"vs_pythae_batch{batch}": ratio(batch, "pythae", "population") for batch in STEPS}
    values |= {f"{own}_vs_pythae_batch{n}": ratio(n, "pythae", own) for own in ("single", "bfloat16") for n in STEPS}
    values |= {
        f"vs_{peer}_batch{n}": ratio(n, peer, "population") for peer in ("fused", "vmap", "processes") for n in STEPS
    }
    values |= {f"mismatched_vs_fused_batch{batch}": ratio(batch, "fused", "mismatched") for batch in STEPS}
    values |= {f"mass_vs_density_{head}": ratio(1000, f"mass_{head}", f"density_{head}") for head in HEADS}
    values |= {f"peak_fraction_batch{batch}": ratio(batch, "floor", "population") for batch in STEPS}
    for (batch, name), times in seconds.items():
        values[f"seconds_{name}_batch{batch}"] = statistics.median(times)
        values[f"fastest_{name}_batch{batch}"] = min(times)
    if (1000, "pythae") not in seconds:
        values["note"] = (
            "pythae is not installed: pip install pythae==0.1.2 (extra `bench`), best in an environment of its own"
        )
    return values


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """A table of a benchmark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _work(int(sys.argv[2]), torch.device(sys.argv[3]))
    else:
        import json

        print(json.dumps(bench_training(rounds=int((sys.argv[1:] or ["5"])[0])), indent=2))

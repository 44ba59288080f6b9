r"""Training speed against the peers: seconds per epoch per VAE on the reference network, in one run.

    autovae bench training            python -m autovae.reproductions.bench_training

Work: 784-400-400-(20+20) / 20-400-400-784, 60,000 points, Adam, float32: 312 GFLOP an epoch. Every contender trains a
fraction of an epoch in each round, one after the other, so that a machine that gets slower slows all of them; ratios are
medians over rounds. Ours includes the minibatch's gather, dequantisation and noise; the peers get ready minibatches.

| contender     | what                                                                                            |
|---------------|-------------------------------------------------------------------------------------------------|
| population    | `Population` of `members` VAEs, per member                                                      |
| bfloat16      | the same population with products of bfloat16 factors, weights in float32 (the peers' stay)      |
| single        | the same code with one member                                                                   |
| pythae        | pythae's VAE and torch's Adam, its training step without its DataLoader                         |
| example       | PyTorch's VAE example: one module, binary_cross_entropy, torch.optim.Adam                       |
| fused         | the example with logits and fused Adam                                                          |
| vmap          | `torch.func.vmap` of the plain module over stacked parameters, fused Adam, per member           |
| processes     | the fused loop in two processes that share the threads (CUDA: four that share the GPU), per VAE |
| floor         | 312 GFLOP at the best rate of square products of 1024 to 4096 in the same round                 |
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autovae.data.datasets import Data, load
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.tables import lookup
from autovae.training.feed import Feed
from autovae.training.loop import choose_device
from autovae.training.member import Member
from autovae.training.population import Population
from autovae.training.precision import fast_products

__all__ = ["bench_training", "write_rows"]

EPOCH = 60_000
EPOCH_FLOP = EPOCH * 5.2e6
STEPS = {1000: 2, 100: 10}  # of a round: a few seconds in all
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Contender = Callable[[], float]  # one fraction of an epoch; seconds per epoch per VAE


def images(points: int) -> Data:
    """Grey images of which `points` train; speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    total = -(-points * 10 // 7)
    return load((rng.integers(0, 256, (total, 28, 28)) * (rng.random((total, 28, 28)) > 0.8)).astype(np.uint8))


class Plain(nn.Module):
    """PyTorch's VAE example on the reference network; `forward` gives the loss of a minibatch, from noise."""

    def __init__(self, logits: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 784))
        self.logits = logits

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        loc, log_var = self.encoder(x).chunk(2, -1)
        out = self.decoder(loc + (0.5 * log_var).exp() * noise)
        if self.logits:
            loss = F.binary_cross_entropy_with_logits(out, x, reduction="sum")
        else:
            loss = F.binary_cross_entropy(out.sigmoid(), x, reduction="sum")
        return (loss - 0.5 * (1 + log_var - loc.square() - log_var.exp()).sum()) / len(x)


_clock = ["wall"]  # what a run of the bench reads


def _now() -> float:
    return CLOCKS[_clock[0]]()


def timed(train: Callable[[], None], points: int, members: int, device: torch.device) -> Contender:
    """Seconds per epoch per VAE of something that trains `members` VAEs on `points` points."""

    def run() -> float:
        _wait(device)
        began = _now()
        train()
        _wait(device)
        return (_now() - began) * EPOCH / points / members

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours(members: int, batch: int, steps: int, device: torch.device, narrow: torch.dtype | None = None) -> Contender:
    data = images(batch * steps)
    spec = VAESpec(batch_size=batch)
    group = [Member(build(spec.replace(seed=seed), data.domain)) for seed in range(members)]
    feed = Feed(data, device=device)
    population = Population(group, feed, narrow)

    def train() -> None:
        population.train_epoch()

    return timed(train, feed.points, members, device)


def example(batch: int, steps: int, device: torch.device, fused: bool) -> Contender:
    torch.manual_seed(0)
    model = Plain(logits=fused).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused or None)
    x = torch.rand(batch, 784, device=device)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(x, torch.randn(batch, 20, device=device)).backward()
            optimizer.step()

    return timed(train, batch * steps, 1, device)


def mapped(members: int, batch: int, steps: int, device: torch.device) -> Contender:
    models = [Plain(logits=True).to(device) for _ in range(members)]
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    optimizer = torch.optim.Adam(list(leaves.values()), lr=1e-3, fused=True)
    x = torch.rand(batch, 784, device=device)

    def loss(parameters: dict[str, Tensor], noise: Tensor) -> Tensor:
        return torch.func.functional_call(models[0], (parameters, buffers and {}), (x, noise))

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            noise = torch.randn(members, batch, 20, device=device)
            torch.func.vmap(loss)(leaves, noise).sum().backward()
            optimizer.step()

    return timed(train, batch * steps, members, device)


def pythae(batch: int, steps: int, device: torch.device) -> Contender | None:
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
    model = VAE(config, encoder=Encoder(), decoder=Decoder()).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = torch.rand(batch, 1, 28, 28, device=device)

    def train() -> None:
        for _ in range(steps):
            output = model({"data": x})
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()

    return timed(train, batch * steps, 1, device)


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


class Processes:
    """Processes that share a device and run the fused loop when told to: two with half the threads each, four on CUDA."""

    def __init__(self, threads: int, device: torch.device) -> None:
        count = 4 if device.type == "cuda" else 2
        each = ["--worker", str(max(1, threads // count)), str(device)]
        command = [sys.executable, "-m", "autovae.reproductions.bench_training", *each]
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]

    def run(self, batch: int, steps: int) -> float:
        """Seconds per epoch per VAE: those of the slowest, over how many there are."""
        for worker in self._workers:
            assert worker.stdin is not None  # opened above
            worker.stdin.write(f"{batch} {steps}\n")
            worker.stdin.flush()
        slowest = max(float(worker.stdout.readline()) for worker in self._workers if worker.stdout is not None)
        return slowest / len(self._workers)

    def close(self) -> None:
        for worker in self._workers:
            worker.communicate("")


def _work(threads: int, device: torch.device) -> None:
    torch.set_num_threads(threads)
    contenders: dict[tuple[int, int], Contender] = {}
    for line in sys.stdin:
        batch, steps = (int(word) for word in line.split())
        if (batch, steps) not in contenders:
            contenders[batch, steps] = example(batch, steps, device, fused=True)
            contenders[batch, steps]()
        print(contenders[batch, steps](), flush=True)


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
    for one thread on a CPU. `products` holds for all contenders: "fast" on a CPU, TF32 on CUDA, unless another is named.
    """
    lookup(CLOCKS, clock, "clock")
    if clock == "processor" and threads != 1:
        raise ValueError(f"clock 'processor' adds up threads, so it is for threads = 1, got {threads}")
    where = choose_device(device)
    count = members or (128 if where.type == "cuda" else 8)
    products = products or ("tf32" if where.type == "cuda" else "fast")
    before = torch.get_num_threads()
    _clock[0] = clock
    values: dict[str, Any] = {"rounds": rounds, "device": str(where), "members": count, "clock": clock}
    rows: list[dict[str, Any]] = []
    try:
        for used in [threads] if threads else sorted({1, before}) if where.type == "cpu" else [before]:
            torch.set_num_threads(used)
            with fast_products(products, where) as precision:
                seconds = _rounds(rounds, count, where, used)
            values |= {"threads": used, "precision": precision}
            rows += [
                {
                    "device": str(where),
                    "threads": used,
                    "clock": clock,
                    "precision": precision,
                    "batch": batch,
                    "contender": name,
                }
                | {"seconds_median": statistics.median(times), "seconds_min": min(times), "rounds": rounds}
                for (batch, name), times in seconds.items()
            ]
    finally:
        torch.set_num_threads(before)
        _clock[0] = "wall"
    values |= _ratios(seconds)
    if results is not None:
        write_rows(Path(results) / f"training{'_cuda' if where.type == 'cuda' else ''}.csv", rows)
    return values


def _rounds(rounds: int, members: int, device: torch.device, threads: int) -> dict[tuple[int, str], list[float]]:
    contenders: dict[tuple[int, str], Contender] = {}
    processes = Processes(threads, device) if device.type == "cuda" or threads > 1 else None
    for batch, steps in STEPS.items():
        steps = steps if device.type == "cpu" else 10 * steps
        candidates: dict[str, Contender | None] = {
            "population": ours(members, batch, steps, device),
            "bfloat16": ours(members, batch, steps, device, torch.bfloat16),
            "single": ours(1, batch, steps, device),
            "pythae": pythae(batch, steps, device),
            "example": example(batch, steps, device, fused=False),
            "fused": example(batch, steps, device, fused=True),
            "vmap": mapped(members, batch, steps, device),
        }
        if processes:
            candidates["processes"] = lambda batch=batch, steps=steps: processes.run(batch, steps)  # type: ignore[misc]
        contenders |= {(batch, name): run for name, run in candidates.items() if run is not None}
    seconds: dict[tuple[int, str], list[float]] = {key: [] for key in contenders}
    try:
        for run in contenders.values():
            run()
            if device.type == "cuda":
                run()  # after the capture
        for _ in range(rounds):
            bottom = floor(device)
            for key, run in contenders.items():
                seconds[key].append(run())
            for batch in STEPS:
                seconds.setdefault((batch, "floor"), []).append(bottom)
    finally:
        if processes:
            processes.close()
    return seconds


def _ratios(seconds: dict[tuple[int, str], list[float]]) -> dict[str, Any]:
    def ratio(batch: int, peer: str, own: str) -> float | None:
        pairs = zip(seconds.get((batch, peer), []), seconds[batch, own], strict=False)
        each = [theirs / mine for theirs, mine in pairs]
        return statistics.median(each) if each else None

    values: dict[str, Any] = {
        "vs_pythae_batch1000": ratio(1000, "pythae", "population"),
        "vs_pythae_batch100": ratio(100, "pythae", "population"),
        "single_vs_pythae_batch100": ratio(100, "pythae", "single"),
        "bfloat16_vs_pythae_batch1000": ratio(1000, "pythae", "bfloat16"),
        "bfloat16_vs_pythae_batch100": ratio(100, "pythae", "bfloat16"),
        "peak_fraction_batch1000": ratio(1000, "floor", "population"),
        "peak_fraction_batch100": ratio(100, "floor", "population"),
    }
    for peer in ("example", "fused", "vmap", "processes"):
        for batch in STEPS:
            values[f"vs_{peer}_batch{batch}"] = ratio(batch, peer, "population")
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

r"""Memory: what a population will take, predicted before it is built, and how many members fit.

Training P members holds, besides the data,

    state    P members x (weights, two moments, a block of noise; on CUDA gradients, too)
    step     what a step's forward and backward pass leave alive at their worst moment, for the members that are in a
             step at once: all of them on CUDA, one stack a thread on a CPU
    back     P members x two moments, when they are handed back on a CPU after the last step

so the most is state + max(step, back), and on CUDA the products' workspaces. State and step are measured, not
modelled, so that they hold for any network and bound: one member is made ready and takes a step with a quarter and with
half of its minibatch while every new tensor is counted; the peak grows linearly from there.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autovae.data.minibatches import Minibatches
from autovae.model.stacked import is_linear
from autovae.training.backend import CPUBackend, stack_sizes, step_work
from autovae.training.cuda import CUDABackend
from autovae.training.train_state import TrainState
from autovae.training.trainer import NOISE_AT_ONCE, Trainer

__all__ = ["Footprint", "available_memory", "footprint", "members_that_fit"]

WORKSPACE = 64 << 20  # of products on CUDA: 32 MiB for the stream, as two threads see it, on chips of this decade
USABLE = 0.85  # of the memory that is free: the rest is for fragmentation and the neighbours


class _Peak(TorchDispatchMode):
    """Counts the bytes of tensors made while it is active, and the most that were alive at once."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, some seconds, to keep it off what nobody compiles

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self._seen | before:
                    self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Footprint:
    """Bytes: of each member, of each that is in a step at once, of what those share, of each that is handed back, of all."""

    member: int
    step: int
    shared: int
    back: int = 0
    fixed: int = 0

    def total(self, members: int, at_once: int) -> int:
        """For so many members, of which `at_once` take a step at the same time."""
        worst = max(self.shared + min(members, at_once) * self.step, members * self.back)
        return self.fixed + members * self.member + worst


def footprint(member: TrainState, points: Minibatches, several_rates: bool = True) -> Footprint:
    """What training this member, and others of its shape, takes on the device of `points`, without the data."""
    spec, on_cuda = member.spec, points.device.type == "cuda"
    batch = min(spec.batch_size, points.points)
    width = torch.tensor([], dtype=points.dtype).element_size()
    learned = sum(p.numel() for p in member.vae.parameters() if p.requires_grad)
    with _Peak() as built:
        trainer = Trainer([member], points, CUDABackend() if on_cuda else CPUBackend())
    state = built.now + (width * learned if several_rates else 0)  # the scratch tensor of a step of rate 1
    sizes = (-(-batch // 4), -(-batch // 2))
    peaks = [_step_peak(trainer, size) for size in sizes]
    slope = (peaks[1] - peaks[0]) / max(1, sizes[1] - sizes[0])
    step = int(peaks[1] + slope * (batch - sizes[1]))
    stacks = 1 if on_cuda else torch.get_num_threads()
    shared = stacks * 3 * width * batch * points.domain.features
    return Footprint(state, step, shared, 0 if on_cuda else 2 * width * learned, WORKSPACE if on_cuda else 0)


def _step_peak(trainer: Trainer, size: int) -> int:
    points, spec = trainer.points, trainer.specs[0]
    batch = points.batch(torch.arange(size, device=points.device), trainer.kinds, trainer.edges)
    xi = torch.zeros(1, spec.draws, size, spec.latent_dim, dtype=points.dtype, device=points.device)
    with _Peak() as peak:
        trainer.advance(batch, xi)
    return peak.most


def available_memory(device: torch.device) -> int:
    """Bytes that a population may take on this device by default."""
    if device.type == "cuda":
        return int(USABLE * torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        return int(USABLE * 1024 * kilobytes)
    except (OSError, StopIteration):  # not Linux: as much as there is, the system decides
        return 1 << 62


def in_a_step(member: TrainState, members: int, device: torch.device) -> int:
    """How many of these members take a step at the same time."""
    if device.type == "cuda":
        return members
    sizes = stack_sizes(step_work(member), members, torch.get_num_threads())
    return sum(sizes[: torch.get_num_threads()])


def _surely_fits(group: Sequence[TrainState], points: Minibatches, room: int) -> bool:
    """Whether far more than these members fit: a small population need not be measured."""
    parts = (group[0].vae.encoder, group[0].vae.decoder)
    if not all(is_linear(part) for part in parts):
        return False
    spec, parameters = group[0].spec, list(group[0].vae.parameters())
    widths = points.domain.features + sum(p.shape[0] for p in parameters if p.dim() > 1)
    step = 12 * widths * (1 + spec.draws) * min(spec.batch_size, points.points)
    return 8 * 4 * len(group) * (7 * sum(p.numel() for p in parameters) + NOISE_AT_ONCE + step) < room


def members_that_fit(group: Sequence[TrainState], points: Minibatches, limit: int | None = None) -> int:
    """How many of these members of one shape train at once within `limit` bytes (None: what the device has free).

    Raises `ValueError` where not even one does.
    """
    room = available_memory(points.device) if limit is None else limit
    if limit is None and _surely_fits(group, points, room):
        return len(group)
    need = footprint(group[0], points, len({member.spec.learning_rate for member in group}) > 1)

    def total(count: int) -> int:
        return need.total(count, in_a_step(group[0], count, points.device))

    if total(1) > room:
        raise ValueError(
            f"one member of batch size {group[0].spec.batch_size} needs {total(1) / 1e6:.0f} MB to train, "
            f"the limit is {room / 1e6:.0f} MB; raise the limit, or lower batch_size, samples or hidden"
        )
    low, high = 1, len(group)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total(middle) <= room else (low, middle - 1)
    return low

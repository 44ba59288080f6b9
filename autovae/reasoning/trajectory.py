r"""Trajectories of HMC: integrator steps, run eagerly or replayed as one CUDA graph per step.

    p += eps/2 g;   L times: drift of (xi, p), g = gradient at xi, p += eps g (eps/2 after the last)

| integrator | drift | g |
|---|---|---|
| leapfrog | xi += eps V p | grad log p(xi, evidence) |
| rotation | (xi, p) rotated by eps | grad log p(evidence given xi); unit mass |

The rotation solves the prior N(0, I) exactly, so weak evidence causes no integration error.

A step on CUDA is about twenty kernels of a few microseconds each, bound by launch latency. `Fixed` runs the same steps on
preallocated tensors, so a step is captured once and replayed: xi, p and g are its state, the factors of the drift and the
size of the kick are copied in, and nothing synchronises with the host. Random numbers are drawn outside. Evidence that
cannot be captured (it reads values or copies from the host) runs eagerly.

Shapes: xi, p, g (chains, dim); step (chains, 1); inverse mass (dim,), or None for 1.
Not here: acceptance (`hmc`), warm-up (`adaptation`), the gradient (`gradient`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.reasoning.gradient import Gradient

__all__ = ["INTEGRATORS", "Fixed", "Integrator", "State", "Trajectory", "as_cuda_graph"]

Factors = tuple[Tensor, ...]


@dataclass
class State:
    """State of all chains: positions, log posterior (up to the prior's constant), the integrator's gradient."""

    xi: Tensor
    log_prob: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Integrator:
    """The parts of a step; they work in place on xi and momentum."""

    factors: Callable[[Tensor, Tensor | None], Factors]
    """(step, inverse mass) -> the factors of `drift`, (chains, 1) or (chains, dim) each"""
    drift: Callable[[Tensor, Tensor, Factors], None]
    """(xi, momentum, factors): between two kicks"""
    kicks: Callable[[Tensor, Tensor], Tensor]
    """(gradient of the evidence, xi) -> g of the kick; may overwrite the gradient"""
    unit_mass: bool


def _leapfrog(xi: Tensor, momentum: Tensor, factors: Factors) -> None:
    xi.addcmul_(momentum, factors[0])


def _rotate(xi: Tensor, momentum: Tensor, factors: Factors) -> None:
    cos, sin = factors
    turned = cos * xi + sin * momentum
    momentum.mul_(cos).addcmul_(xi, sin, value=-1)
    xi.copy_(turned)


INTEGRATORS: dict[str, Integrator] = {
    "leapfrog": Integrator(
        factors=lambda step, inverse_mass: (step if inverse_mass is None else step * inverse_mass,),
        drift=_leapfrog,
        kicks=lambda gradient, xi: gradient.sub_(xi),
        unit_mass=False,
    ),
    "rotation": Integrator(
        factors=lambda step, inverse_mass: (step.cos(), step.sin()),
        drift=_rotate,
        kicks=lambda gradient, xi: gradient,
        unit_mass=True,
    ),
}


class Trajectory:
    """Steps of one integrator along one gradient."""

    def __init__(self, integrator: Integrator, gradient: Gradient) -> None:
        self.integrator, self.gradient = integrator, gradient

    def at(self, xi: Tensor) -> State:
        """The state at a point."""
        value, slope = self.gradient(xi, True)
        return _state(xi, value, self.integrator.kicks(slope, xi))

    def follow(
        self, state: State, momentum: Tensor, step: Tensor, inverse_mass: Tensor | None, steps: int
    ) -> tuple[State, Tensor]:
        """State and momentum after `steps` steps; the arguments stay unchanged."""
        half = 0.5 * step
        factors = self.integrator.factors(step, inverse_mass)
        xi, momentum = state.xi.clone(), torch.addcmul(momentum, state.gradient, half)
        for left in range(steps - 1, -1, -1):
            value, slope = self.advance(xi, momentum, factors, step if left else half, left == 0)
        return _state(xi, value, slope), momentum

    def advance(
        self, xi: Tensor, momentum: Tensor, factors: Factors, kick: Tensor, need_value: bool
    ) -> tuple[Tensor | None, Tensor]:
        """One step in place: a drift and the kick after it; (log likelihood if needed, g) at its end."""
        self.integrator.drift(xi, momentum, factors)
        value, slope = self.gradient(xi, need_value)
        slope = self.integrator.kicks(slope, xi)
        momentum.addcmul_(slope, kick)
        return value, slope


def _state(xi: Tensor, value: Tensor | None, slope: Tensor) -> State:
    assert value is not None  # always computed at the end of a trajectory
    return State(xi, value - 0.5 * xi.square().sum(-1), slope)


Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""(work on preallocated tensors) -> a function that replays it."""


class Fixed(Trajectory):
    """The same steps on preallocated tensors, replayed from the capture of `record`.

    `state` fixes the shapes. Raises `RuntimeError` with the reason if a step cannot be captured or its replay differs from
    the eager step.
    """

    def __init__(self, integrator: Integrator, gradient: Gradient, state: State, record: Recorder) -> None:
        super().__init__(integrator, gradient)
        self._xi, self._slope, self._value = state.xi.clone(), state.gradient.clone(), state.log_prob.clone()
        self._momentum = torch.zeros_like(state.xi)
        self._kick = state.xi.new_empty(len(state.xi), 1)
        step = torch.full_like(self._kick, 1e-3)
        self._factors = tuple(factor.expand_as(state.xi).clone() for factor in integrator.factors(step, None))
        self._kick.copy_(step)
        self._steps = {need_value: record(self._step(need_value)) for need_value in (True, False)}
        self._check(state, step)

    def _step(self, need_value: bool) -> Callable[[], None]:
        @torch.no_grad()
        def step() -> None:
            value, slope = self.advance(self._xi, self._momentum, self._factors, self._kick, need_value)
            self._slope.copy_(slope)
            if value is not None:
                self._value.copy_(value)

        return step

    def follow(
        self, state: State, momentum: Tensor, step: Tensor, inverse_mass: Tensor | None, steps: int
    ) -> tuple[State, Tensor]:
        half = 0.5 * step
        self._xi.copy_(state.xi)
        torch.addcmul(momentum, state.gradient, half, out=self._momentum)
        for fixed, factor in zip(self._factors, self.integrator.factors(step, inverse_mass), strict=True):
            fixed.copy_(factor)
        self._kick.copy_(step)
        for _ in range(steps - 1):
            self._steps[False]()
        self._kick.copy_(half)
        self._steps[True]()
        return _state(self._xi.clone(), self._value, self._slope.clone()), self._momentum.clone()

    def _check(self, state: State, step: Tensor) -> None:
        """Compare two replayed steps with two eager ones."""
        momentum = torch.zeros_like(state.xi)
        with torch.no_grad():
            found, expected = (way(self, state, momentum, step, None, 2) for way in (Fixed.follow, Trajectory.follow))
        sides = zip((*vars(found[0]).values(), found[1]), (*vars(expected[0]).values(), expected[1]), strict=True)
        if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) for a, b in sides):
            raise RuntimeError("the captured step differs from the eager one: does the evidence draw random numbers?")


_broken: list[torch.cuda.CUDAGraph] = []  # kept alive: the allocator still refers to graphs after a failed capture


def as_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Capture `work` as one CUDA graph; returns its replay. `work` must not synchronise or allocate its inputs.

    Raises `RuntimeError` with the reason if capture fails; streams and generators are then restored.
    """
    present, side = torch.cuda.current_stream(), torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    side.wait_stream(present)
    try:
        with torch.cuda.stream(side):
            for _ in range(2):  # warm-up: evidence moves to the device, libraries choose kernels
                work()
            with _waiting_refused():  # detect it here: an error during capture breaks the graph
                work()
            try:
                with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                    work()
            except RuntimeError:
                _broken.append(graph)
                _end_of_a_broken_recording(side)
                raise
    finally:
        present.wait_stream(side)
    return graph.replay


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Raise `RuntimeError` on any synchronisation with the host."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sync debug mode warns that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _end_of_a_broken_recording(side: torch.cuda.Stream) -> None:
    """Reset the default generator, which a failed capture leaves in capture mode, by a successful capture."""
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=side, capture_error_mode="thread_local"):
        torch.zeros((), device=side.device).add_(1)

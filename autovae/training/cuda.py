r"""CUDA's way to train stacks: fused kernels between products, gradients in fixed tensors, one captured graph an epoch.

Products. With h_0 = x, a_l = h_(l-1) W_l + b_l and h_l = f(a_l), the backward pass from g = d loss / d a_L is

    dW_l = h_(l-1)^T g        db_l = sum_N g        g <- (g W_l^T) f'(a_(l-1))

Rectifiers, biases and their sums over points are one kernel each (`kernels`); other activations are torch's. Gradients
are written into tensors that stay, as a captured graph wants. Products may take bfloat16 factors: the optimizer writes
copies of the weights in that type as it moves the float32 ones.

Graph. A step of a small network is some hundred kernels of a few microseconds; started one by one the chip waits for the
host. Captured once, they start as one. The graph reads the minibatch's indices and the members' noise from fixed
tensors; within an epoch the host only fills these, in order on the stream, and asks nothing back. The first minibatches
are trained one by one on the capturing stream, as capture wants it, and count like any other; so does the last of an
epoch where it is smaller.
Without Triton, and for float64, torch's operations serve, captured all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autovae.beliefs.likelihoods import Likelihood
from autovae.model.operations import TorchOperations
from autovae.model.stacked import LinearStack
from autovae.model.vae import VAEStack
from autovae.training.adam import BETAS, EPSILON, Adam, StackedAdam
from autovae.training.train_state import TrainState
from autovae.training.trainer import Trainer

try:
    from autovae.training import kernels
except ImportError:  # Triton comes with torch's CUDA builds
    kernels = None  # type: ignore[assignment]

__all__ = ["CUDABackend", "CapturedEpoch", "FusedAdam", "FusedOperations"]

WARM_UP = 3  # eager steps before a capture: libraries choose their kernels and set aside their memory
ALIGNED = 8  # bfloat16 numbers that products read at once: 20 latents take twice the time of 24


class CUDABackend:
    """All members of a population as one stack on one device."""

    def __init__(self, narrow: torch.dtype | None = None) -> None:
        self._narrow = narrow
        self._captured: dict[Trainer, CapturedEpoch] = {}

    def prepare(self, stack: VAEStack, rates: Sequence[float], steps: int) -> Adam:
        parameters = [p for p in stack.parameters() if p.requires_grad]
        if kernels is None or parameters[0].dtype != torch.float32:
            stack.use(TorchOperations(self._narrow))
            return StackedAdam(parameters, rates, steps)
        operations = FusedOperations(self._narrow)
        operations.own(stack.use(operations))
        return FusedAdam(parameters, rates, steps, operations)

    def stack_sizes(self, members: Sequence[TrainState]) -> list[int]:
        return [len(members)]

    def train_epoch(self, trainers: Sequence[Trainer]) -> None:
        for trainer in trainers:
            if trainer not in self._captured:
                self._captured[trainer] = CapturedEpoch(trainer)
            self._captured[trainer].train()


class _Buffers:
    """A linear stack's gradients in tensors that stay, and its weights in the type of the products.

    The first backward pass of a step overwrites the gradients, later ones add to them (pseudo-inputs of a learned prior
    go through the encoder, too). Without the member axis where there is one member: one product is faster than a batch
    of one.
    """

    def __init__(self, stack: LinearStack, narrow: torch.dtype | None) -> None:
        self.stack, self.narrow, self.written = stack, narrow, False
        self.one = stack.size == 1
        parameters = [p for layer in stack.layers() for p in layer]
        for p in parameters:
            p.grad = torch.zeros_like(p)
        gradients = [self._flat(p.grad) for p in parameters if p.grad is not None]
        self.of_weights, self.of_biases = gradients[::2], gradients[1::2]
        values, self.spare = [p.detach() for p in parameters], 0
        self.copies: dict[Tensor, Tensor] = {}
        if narrow is not None:  # the first weight gets rows of zeros, and its input as many columns
            self.spare = -values[0].shape[1] % ALIGNED
            values = [value.to(narrow) for value in values]
            values[0] = nn.functional.pad(values[0], (0, 0, 0, self.spare))
            self.copies = {p: value[:, : p.shape[1]] for p, value in zip(parameters, values, strict=True)}
        flat = [self._flat(value) for value in values]
        self.layers = list(zip(flat[::2], values[1::2], strict=True))

    def _flat(self, t: Tensor) -> Tensor:
        return t.squeeze(0) if self.one else t

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.mm(a, b) if self.one else torch.bmm(a, b)

    def put(self, depth: int, h: Tensor, g: Tensor, sums: Tensor | None) -> None:
        """A layer's gradients: h^T g, and `sums`, those of g over points where they were found on the way."""
        weight, bias = self.of_weights[depth], self.of_biases[depth]
        if sums is None:
            sums = torch.sum(g, -2, keepdim=True, dtype=bias.dtype)
        if self.written:
            weight += self.product(h.mT, g)
            bias += sums
            return
        bias.copy_(sums)
        multiply = torch.mm if self.one else torch.bmm
        if h.dtype == weight.dtype:
            multiply(h.mT, g, out=weight)
        elif h.is_cuda:
            multiply(h.mT, g, weight.dtype, out=weight)
        else:  # Triton's interpreter: no product of narrow factors into a wide tensor
            weight.copy_(self.product(h.mT, g))


class FusedOperations:
    """`mlp` and `linear_in_x` by Triton's kernels, for stacks whose parameters are all learned."""

    def __init__(self, narrow: torch.dtype | None = None) -> None:
        self.narrow = narrow
        self.buffers: dict[LinearStack, _Buffers] = {}
        self._reference = TorchOperations(narrow)

    def own(self, stacks: Sequence[LinearStack]) -> None:
        """From now on these stacks' gradients stay in their tensors."""
        learned = [stack for stack in stacks if all(p.requires_grad for p in stack.parameters())]
        self.buffers |= {stack: _Buffers(stack, self.narrow) for stack in learned}

    def mlp(self, x: Tensor, stack: LinearStack) -> Tensor:
        if stack not in self.buffers:
            return self._reference.mlp(x, stack)
        # Gradients go to the buffers; one parameter makes autograd come back this way.
        result: Tensor = _Chain.apply(x, self.buffers[stack], next(stack.parameters()))
        return result

    def linear_in_x(self, head: Likelihood, x: Tensor, eta: Tensor) -> Tensor:
        if head.name not in kernels.HEADS:
            return head.log_prob_sum(x, eta.float())
        result: Tensor = _LinearInX.apply(x, eta, head.name)
        return result


class _Chain(torch.autograd.Function):
    """A linear stack, forward and backward, as the module's docstring has it. Tensors are (P, N, .), or (N, .)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, buffers: _Buffers, first: Tensor) -> Tensor:  # type: ignore[override]
        stack, one = buffers.stack, buffers.one
        ctx.buffers, ctx.shared, ctx.wide = buffers, x.dim() == 2, x.dtype
        h = x if buffers.narrow is None else x.to(buffers.narrow)
        h = nn.functional.pad(h, (0, buffers.spare)) if buffers.spare else h
        if one and not ctx.shared:
            h = h.squeeze(0)
        elif ctx.shared and not one:
            h = h.expand(stack.size, -1, -1)
        kept = [h]
        for depth, (weight, bias) in enumerate(buffers.layers):
            h = buffers.product(h, weight)
            rectify = stack.rectifies(depth)
            kernels.add_bias_(h.view(stack.size, -1, h.shape[-1]), bias, rectify)
            if depth < len(buffers.layers) - 1:
                a, h = h, h if rectify else stack.activate(depth, h)
                kept += [h, a]
        ctx.save_for_backward(*kept)
        return h.unsqueeze(0) if one else h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:  # type: ignore[override]
        buffers, kept = ctx.buffers, ctx.saved_tensors
        stack, one = buffers.stack, buffers.one
        g = (gradient.squeeze(0) if one else gradient).to(kept[0].dtype).contiguous()
        sums: Tensor | None = None
        for depth in reversed(range(len(buffers.layers))):
            below = kept[2 * depth - 1] if depth else kept[0][..., : kept[0].shape[-1] - buffers.spare]
            buffers.put(depth, below, g, sums)
            if not depth and not ctx.needs_input_grad[0]:
                break
            g, sums = buffers.product(g, buffers.layers[depth][0].mT), None
            if depth and stack.rectifies(depth - 1):
                sums = kernels.rectify_back(
                    g.view(stack.size, -1, g.shape[-1]), below.view(stack.size, -1, g.shape[-1])
                )
                sums = sums.squeeze(0) if one else sums
            elif depth:
                g = _pull(stack, depth - 1, kept[2 * depth], g)
        buffers.written = True
        if not ctx.needs_input_grad[0]:
            return None, None, None
        to_x = g[..., : g.shape[-1] - buffers.spare].to(ctx.wide)
        if ctx.shared:
            return to_x if one else to_x.sum(0), None, None
        return to_x.unsqueeze(0) if one else to_x, None, None


def _pull(stack: LinearStack, depth: int, a: Tensor, gradient: Tensor) -> Tensor:
    """The gradient before the activations at this depth, whose input was a."""
    with torch.enable_grad():
        leaf = a.detach().requires_grad_()
        (result,) = torch.autograd.grad(stack.activate(depth, leaf), leaf, gradient)
    return result.contiguous()


class _LinearInX(torch.autograd.Function):
    """sum x eta - A(eta) over the last axis by one kernel, for x (B, X) and eta (..., B, X)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eta: Tensor, head: str) -> Tensor:  # type: ignore[override]
        value, slope = kernels.linear_in_x(x.contiguous(), eta.contiguous(), head)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors  # not used elsewhere, so it is overwritten
        return None, kernels.scale_rows_(slope, gradient.contiguous()), None


class FusedAdam:
    """Adam with a rate for every member in one pass over each tensor; it writes the copies of narrow products, too.

    The number of steps lives on the device, so that a step can be captured.
    """

    def __init__(self, parameters: Sequence[Tensor], rates: Sequence[float], steps: int, operations: FusedOperations):
        self.parameters, self._buffers = list(parameters), list(operations.buffers.values())
        self._copies = {p: copy for buffers in self._buffers for p, copy in buffers.copies.items()}
        self._stay = [p.grad is not None for p in self.parameters]  # overwritten by backward passes, not added to
        self.means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        device = self.parameters[0].device
        self._rates = torch.tensor(list(rates), device=device)
        self._steps = torch.tensor(float(steps), device=device)
        self._betas = torch.tensor(BETAS, dtype=torch.float64, device=device)
        self._powers, self._corrections = self._betas**steps, torch.empty(2, device=device)

    @property
    def steps(self) -> int:
        return int(self._steps)

    @torch.no_grad()
    def step(self) -> None:
        self._steps += 1
        self._powers *= self._betas
        torch.sub(1, self._powers, out=self._corrections)
        rule = (self._rates, self._corrections, BETAS, EPSILON)
        for p, mean, square, stays in zip(self.parameters, self.means, self.squares, self._stay, strict=True):
            if p.grad is not None:
                kernels.adam_(p.detach(), p.grad.contiguous(), mean, square, self._copies.get(p), *rule)
            if not stays:
                p.grad = None
        for buffers in self._buffers:
            buffers.written = False


@functools.cache
def _capturing_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream a device for all captures: libraries keep a workspace of tens of megabytes for every stream."""
    return torch.cuda.Stream(device)


class CapturedEpoch:
    """The step of one trainer as a graph: gather, noise in, forward, backward, Adam, sums, replayed per minibatch."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._stream = _capturing_stream(trainer.points.device)
        self._dequantiser = trainer.points.dequantiser()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0

    def train(self) -> None:
        """All minibatches of the trainer's present epoch."""
        trainer, points = self.trainer, self.trainer.points
        spec = trainer.specs[0]
        order = points.order(spec.batch_size, spec.data_seed, trainer.epoch)
        full = len(order[0])
        points.start(self._dequantiser, spec.data_seed, trainer.epoch)
        self._stream.wait_stream(torch.cuda.current_stream(points.device))
        with torch.cuda.stream(self._stream):
            trainer.start_epoch()
            for index in order:
                if len(index) == full and self._warm >= WARM_UP:
                    self._replay(index)
                else:
                    trainer.step(points.batch(index, trainer.kinds, trainer.edges, self._dequantiser))
                    self._warm += 1
        torch.cuda.current_stream(points.device).wait_stream(self._stream)

    def _replay(self, index: Tensor) -> None:
        xi = self.trainer.noise()
        if self._graph is None:
            self._index, self._xi = index.clone(), xi.clone()
            self._graph = self._capture()
        else:
            self._index.copy_(index)
            self._xi.copy_(xi)
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        trainer = self.trainer
        graph = torch.cuda.CUDAGraph()
        if "dequantised" in trainer.kinds:
            graph.register_generator_state(self._dequantiser)
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            batch = trainer.points.batch(self._index, trainer.kinds, trainer.edges, self._dequantiser)
            trainer.advance(batch, self._xi)
        return graph

"""A whole step of plain VAEs in one call: encoder, latents, decoder, head, the way back, and Adam.

On a minibatch of 100 points the interpreter takes as long as the work where it hands over one operation after the other;
here everything but the minibatch and its noise stays where it is, and is described to C once. It is the same kernels in the
same order as without this, on the same numbers.
Not here: which VAEs are plain, and what the loss makes of a step (`training.plain`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae import native
from autovae.native.chains import Chain, Steps, places_of

__all__ = ["Part", "WholeStep"]

_whole, _at, _real = ctypes.c_long, ctypes.c_void_p, ctypes.c_double


class _Whole(ctypes.Structure):
    _fields_ = [("depth", _whole), ("layers", _at), ("outputs", _at), ("slopes", _at), ("sums", _at)]


class _Plan(ctypes.Structure):
    _fields_ = [
        *((name, _whole) for name in ("members", "samples", "points", "latents", "features", "head")),
        ("encoder", _Whole),
        ("decoder", _Whole),
        *((name, _at) for name in ("scale", "z", "kl", "value", "slope", "of_z", "of_raw", "of_value", "of_kl")),
        *((name, _whole) for name in ("count", "first")),
        *((name, _at) for name in ("tasks", "rates")),
        *((name, _real) for name in ("beta1", "beta2")),
        *((name, ctypes.c_float) for name in ("limit", "epsilon")),
    ]


@dataclass(frozen=True)
class Part:
    """Encoder or decoder: its chain, where the gradients of its biases go, and its weights' places in Adam's step."""

    chain: Chain
    sums: Sequence[Tensor]
    places: Sequence[int]


@dataclass(frozen=True)
class _Prepared:
    """What C is told of minibatches of so many points, what it finds, and all that has to stay for it."""

    plan: _Plan
    value: Tensor
    kl: Tensor
    kept: list[object]


class WholeStep:
    """Steps of P VAEs, K samples a point, on minibatches of at most `points` points.

    head: one of `native.HEADS`. limit: of the log scale, as `native.normal_latents` has it.
    """

    def __init__(
        self,
        encoder: Part,
        decoder: Part,
        adam: Steps,
        head: str,
        samples: int,
        points: int,
        limit: float,
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        self._encoder, self._decoder, self._adam = encoder, decoder, adam
        self._samples, self._points, self._latents = samples, points, decoder.chain.widths[0]
        self._head, self._numbers = native.HEADS[head], (*betas, limit, epsilon)
        rows, of_latents = encoder.chain.members * points, self._latents

        def room(rows: int, widths: Sequence[int]) -> list[Tensor]:
            return [torch.empty(rows * width) for width in widths]

        self._encoded, self._encoded_back = room(rows, encoder.chain.widths[1:]), room(rows, encoder.chain.widths[1:-1])
        self._scale, self._of_raw, self._kl = room(rows, [of_latents, 2 * of_latents, 1])
        rows, widths = samples * rows, decoder.chain.widths
        self._decoded, self._decoded_back = room(rows, widths[1:]), room(rows, widths[1:-1])
        self._z, self._of_z, self._value, self._slope = room(rows, [of_latents, of_latents, 1, widths[-1]])
        self._prepared: dict[int, _Prepared] = {}

    def knows(self, points: int) -> bool:
        """Whether minibatches of so many points were prepared."""
        return points in self._prepared

    def prepare(self, of_value: Tensor, of_kl: Tensor) -> None:
        """For minibatches of B points: what is followed has the slopes of_value (P, K, B) and of_kl (P, B), always."""
        encoder, decoder, (members, samples, points) = self._encoder, self._decoder, of_value.shape
        if points > self._points or samples != self._samples or of_kl.shape != (members, points):
            raise ValueError(
                f"got slopes of shapes {tuple(of_value.shape)} and {tuple(of_kl.shape)} for {self._samples} samples and at "
                f"most {self._points} points"
            )

        def shaped(room: Sequence[Tensor], rows: int, widths: Sequence[int]) -> list[Tensor]:
            return [t[: members * rows * w].view(members, rows, w) for t, w in zip(room, widths, strict=True)]

        rows, wide = samples * points, encoder.chain.widths
        encoded, encoded_back = shaped(self._encoded, points, wide[1:]), shaped(self._encoded_back, points, wide[1:-1])
        (of_raw,) = shaped([self._of_raw], points, wide[-1:])
        x, wide = torch.empty(points, wide[0]).expand(members, -1, -1), decoder.chain.widths
        decoded, decoded_back = shaped(self._decoded, rows, wide[1:]), shaped(self._decoded_back, rows, wide[1:-1])
        z, slope = shaped([self._z, self._slope], rows, [wide[0], wide[-1]])
        inputs, slopes = [x, *encoded[:-1], z, *decoded[:-1]], [*encoded_back, of_raw, *decoded_back, slope]
        factors = dict(zip([*encoder.places, *decoder.places], zip(inputs, slopes, strict=True), strict=True))
        tasks, (of_value, of_kl) = self._adam.along(factors), (of_value.contiguous(), of_kl.contiguous())
        kept: list[object] = [of_value, of_kl, tasks]
        plan = _Plan(members, samples, points, self._latents, wide[-1], self._head)
        for name, part, outputs, slopes in (
            ("encoder", encoder, encoded, encoded_back),
            ("decoder", decoder, decoded, decoded_back),
        ):
            for tensor, width in zip(part.sums, part.chain.widths[1:], strict=True):
                native.address(tensor, members * width)
            found = places_of(outputs), places_of(slopes), places_of(part.sums)
            described = ctypes.addressof(part.chain.described)
            setattr(plan, name, _Whole(len(outputs), described, *(ctypes.addressof(array) for array in found)))
            kept += [part, *found]
        for name in ("scale", "z", "kl", "value", "slope", "of_z", "of_raw"):
            setattr(plan, name, getattr(self, f"_{name}").data_ptr())
        plan.of_value, plan.of_kl = of_value.data_ptr(), of_kl.data_ptr()
        plan.count, plan.first, plan.tasks = len(tasks), encoder.places[0], ctypes.addressof(tasks)
        plan.rates = self._adam.rates.data_ptr()
        plan.beta1, plan.beta2, plan.limit, plan.epsilon = self._numbers
        value = self._value[: members * rows].view(members, samples, points)
        kl = self._kl[: members * points].view(members, points)
        self._prepared[points] = _Prepared(plan, value, kl, kept)

    def take(self, x: Tensor, target: Tensor, xi: Tensor, corrections: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """One step; log p(x|z) (P, K, B) and the KL (P, B) before it, which the next step overwrites.

        x and target (B, X) and (B, F), noise xi (P, K, B, D); corrections: 1 - beta^t for both betas.
        """
        prepared, points = self._prepared[len(x)], len(x)
        plan, (first, second) = prepared.plan, corrections
        if xi.shape != (plan.members, plan.samples, points, plan.latents):
            raise ValueError(f"got noise of shape {tuple(xi.shape)} for {plan.members} members and {points} points")
        failed = native.compiled().whole_step(
            ctypes.addressof(plan), native.address(x, points * self._encoder.chain.widths[0]),
            native.address(target, points * plan.features), *native.samples_of(xi), 1 / first, second**0.5,
            torch.get_num_threads(),
        )  # fmt: skip
        native.had_room(failed)
        self._adam.moved()
        return prepared.value, prepared.kl

"""A whole step of plain VAEs in one call: encoder, latents, decoder, head, the way back, and Adam.

On a minibatch of 100 points the interpreter takes half as long as the work where it hands over one operation after the other;
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

__all__ = ["Part", "Room", "WholeStep"]

_long, _at, _real = ctypes.c_long, ctypes.c_void_p, ctypes.c_double


class _ChainPlan(ctypes.Structure):
    _fields_ = [("depth", _long), ("layers", _at), ("outputs", _at), ("slopes", _at), ("sums", _at)]


class _Plan(ctypes.Structure):
    _fields_ = [
        *((name, _long) for name in ("members", "samples", "points", "latents", "features", "head")),
        ("encoder", _ChainPlan),
        ("decoder", _ChainPlan),
        *((name, _at) for name in ("scale", "z", "kl", "value", "slope", "of_z", "of_raw", "of_value", "of_kl")),
        *((name, _long) for name in ("count", "first")),
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


class Room:
    """Memory that steps use by turns: nobody needs what he left there."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def floats(self, name: str, count: int) -> Tensor:
        """Numbers of that name; whoever had fewer of them before keeps his."""
        if name not in self._held or self._held[name].numel() < count:
            self._held[name] = torch.empty(count)
        return self._held[name][:count]

    def clear(self) -> None:
        self._held.clear()


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
        room: Room,
    ) -> None:
        self._encoder, self._decoder, self._adam = encoder, decoder, adam
        self._samples, self._points, self._room = samples, points, room
        self._head, self._numbers = native.HEADS[head], (*betas, limit, epsilon)
        self._prepared: dict[int, _Prepared] = {}

    def knows(self, points: int) -> bool:
        """Whether minibatches of so many points were prepared."""
        return points in self._prepared

    def leave(self) -> None:
        """Give the room back, and forget what was prepared in it."""
        self._prepared.clear()
        self._room.clear()

    def _shaped(self, name: str, members: int, rows: int, points: int, widths: Sequence[int]) -> list[Tensor]:
        """Room of these widths for the members' rows, which are some for each of `points` points."""
        most = members * rows // points * self._points
        held = [self._room.floats(f"{name}_{place}", most * width) for place, width in enumerate(widths)]
        return [t[: members * rows * width].view(members, rows, width) for t, width in zip(held, widths, strict=True)]

    def prepare(self, of_value: Tensor, of_kl: Tensor) -> None:
        """For minibatches of B points: what is followed has the slopes of_value (P, K, B) and of_kl (P, B), always."""
        encoder, decoder, (members, samples, points) = self._encoder, self._decoder, of_value.shape
        if points > self._points or samples != self._samples or of_kl.shape != (members, points):
            raise ValueError(
                f"got slopes of shapes {tuple(of_value.shape)} and {tuple(of_kl.shape)} for {self._samples} samples and at "
                f"most {self._points} points"
            )

        def of_points(name: str, *widths: int) -> list[Tensor]:
            return self._shaped(name, members, points, points, widths)

        def of_rows(name: str, *widths: int) -> list[Tensor]:
            return self._shaped(name, members, samples * points, points, widths)

        wide, out = encoder.chain.widths, decoder.chain.widths
        encoded, encoded_back = of_points("encoded", *wide[1:]), of_points("encoded_back", *wide[1:-1])
        scale, of_raw, kl = of_points("latents", out[0], wide[-1], 1)
        decoded, decoded_back = of_rows("decoded", *out[1:]), of_rows("decoded_back", *out[1:-1])
        z, of_z, value, slope = of_rows("head", out[0], out[0], 1, out[-1])
        x = torch.empty(points, wide[0]).expand(members, -1, -1)
        inputs, slopes = [x, *encoded[:-1], z, *decoded[:-1]], [*encoded_back, of_raw, *decoded_back, slope]
        factors = dict(zip([*encoder.places, *decoder.places], zip(inputs, slopes, strict=True), strict=True))
        tasks, (of_value, of_kl) = self._adam.along(factors), (of_value.contiguous(), of_kl.contiguous())
        kept: list[object] = [of_value, of_kl, tasks, slopes]
        plan = _Plan(members, samples, points, out[0], out[-1], self._head)
        for name, part, outputs, back in (
            ("encoder", encoder, encoded, encoded_back),
            ("decoder", decoder, decoded, decoded_back),
        ):
            for tensor, width in zip(part.sums, part.chain.widths[1:], strict=True):
                native.address(tensor, members * width)
            found = places_of(outputs), places_of(back), places_of(part.sums)
            described = ctypes.addressof(part.chain.described)
            setattr(plan, name, _ChainPlan(len(outputs), described, *(ctypes.addressof(array) for array in found)))
            kept += [part, outputs, *found]
        forward = (("scale", scale), ("z", z), ("kl", kl), ("value", value), ("slope", slope))
        for name, tensor in (*forward, ("of_z", of_z), ("of_raw", of_raw)):
            setattr(plan, name, tensor.data_ptr())
            kept.append(tensor)
        plan.of_value, plan.of_kl = of_value.data_ptr(), of_kl.data_ptr()
        plan.count, plan.first, plan.tasks = len(tasks), encoder.places[0], ctypes.addressof(tasks)
        plan.rates = self._adam.rates.data_ptr()
        plan.beta1, plan.beta2, plan.limit, plan.epsilon = self._numbers
        self._prepared[points] = _Prepared(plan, value.view(members, samples, points), kl.squeeze(-1), kept)

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

r"""The most used belief, a normal posterior under a normal prior, from a network's outputs to z and the KL in one pass.

    scale = exp(s)    z = m + scale xi    KL = sum_d (m^2 + scale^2 - 1) / 2 - s        s kept within +-LOG_SCALE_LIMIT

is `pairing`'s map, noise and divergence for this pair: some thirty small operations with their slopes, which on a small
minibatch take longer than their numbers do. Slopes, with g_z and g_KL those of z and of the KL,

    d m = sum_k g_z + g_KL m        d s = scale sum_k g_z xi + g_KL (scale^2 - 1)

Not here: which members are such (`pairing`); every other pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autovae import native
from autovae.fused import kernels_for

__all__ = ["LOG_SCALE_LIMIT", "NormalLatents", "in_one_pass"]

# A scale of exp(+-12) is past anything a latent can use; beyond it float32 products overflow in the tails.
LOG_SCALE_LIMIT = 12.0


def in_one_pass(raw: Tensor) -> bool:
    """Whether there is a kernel for these outputs."""
    return raw.device.type == "cpu" and kernels_for(raw) is not None


class NormalLatents(torch.autograd.Function):
    """z (P, K B, D) and KL (P, B) from raw outputs (P, B, 2 D) and noise (P, K, B, D), by `native`'s kernel."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        raw = raw.contiguous()
        scale, z, kl = native.normal_latents(raw, xi, LOG_SCALE_LIMIT)
        ctx.save_for_backward(raw, xi, scale)
        return z, kl

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_z: Tensor, of_kl: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        raw, xi, scale = ctx.saved_tensors
        return native.normal_latents_back(raw, xi, LOG_SCALE_LIMIT, scale, of_z.contiguous(), of_kl.contiguous()), None

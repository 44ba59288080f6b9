"""Whether the fused kernels of a training step serve a tensor: on CUDA, where Triton is, in float32 or bfloat16."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["kernels_for"]


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        return importlib.import_module("autovae.kernels")
    except ImportError:
        return None


def kernels_for(values: Tensor) -> ModuleType | None:
    """`autovae.kernels`, or None where torch's own operations have to do."""
    if not values.is_cuda or values.dtype not in (torch.float32, torch.bfloat16):
        return None
    return _kernels()

"""Whether the fused kernels of a training step serve a tensor, and which.

CUDA       float32 and bfloat16, where Triton is: `autovae.kernels`
processor  float32, where the machine has a C compiler: `autovae.native`
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

__all__ = ["in_memory", "kernels_for"]


@functools.cache
def _triton() -> ModuleType | None:
    try:
        return importlib.import_module("autovae.kernels")
    except ImportError:
        return None


@functools.cache
def _native() -> ModuleType | None:
    native = importlib.import_module("autovae.native")
    return native if native.serves() else None


def in_memory(values: Tensor) -> bool:
    """Whether there are numbers in memory behind this tensor: not in a trace, in torch.func, in a stand-in."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return type(values) in (Tensor, nn.Parameter) and not is_functorch_wrapped_tensor(values)


def kernels_for(values: Tensor) -> ModuleType | None:
    """The module of kernels, or None where torch's own operations have to do."""
    if values.is_cuda:
        return _triton() if values.dtype in (torch.float32, torch.bfloat16) else None
    if values.device.type != "cpu" or values.dtype != torch.float32 or not in_memory(values):
        return None
    return _native()

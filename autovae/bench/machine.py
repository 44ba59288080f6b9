"""The machine that took the seconds of a table."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

__all__ = ["machine"]


def machine(device: torch.device | str = "cpu") -> str:
    """The processor and how many cores this process may use; the graphics card before it where that did the work."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = f"{name}, {cores} cores"
    if torch.device(device).type != "cuda":
        return processor
    return f"{torch.cuda.get_device_name(device)} beside {processor}"

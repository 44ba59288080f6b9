"""One thread per test: tests are many small products, which two threads that wait for each other make ten times slower."""

from __future__ import annotations

import torch

torch.set_num_threads(1)

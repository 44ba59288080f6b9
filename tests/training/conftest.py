"""A small data set and small specs for the tests of training."""

from __future__ import annotations

import numpy as np
import pytest

from autovae.data.datasets import Data, load
from autovae.spec import VAESpec


@pytest.fixture(scope="session")
def digits() -> Data:
    """200 points of 4 x 4 grey pixels, of which 140 train."""
    rng = np.random.default_rng(0)
    shade = rng.random((200, 1, 1)) * 8
    return load((shade + rng.integers(0, 8, (200, 4, 4))).astype(np.uint8))


@pytest.fixture
def spec() -> VAESpec:
    return VAESpec(hidden=(12, 10), latent_dim=3, batch_size=32, epochs=3, learning_rate=1e-2)

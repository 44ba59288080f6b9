"""Networks, the VAE and its stack, bounds and gradient estimators."""

from autovae.model import bounds

__all__ = ["bounds"]

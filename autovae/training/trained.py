"""What a fit returns: the model with its history, its spec and its data."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from autovae.data.batches import network_input
from autovae.data.datasets import Data
from autovae.model.vae import VAE
from autovae.spec import VAESpec

__all__ = ["DivergedError", "Trained"]


class DivergedError(ArithmeticError):
    """The training loss is no longer a number."""


@dataclass(frozen=True, repr=False)
class Trained:
    """A fitted VAE: the model (plain torch modules), its history (a row an epoch), its spec and its data."""

    model: VAE
    history: list[dict[str, float]]
    spec: VAESpec
    data: Data = field(compare=False)

    @property
    def diverged(self) -> bool:
        """Whether training ended with a loss that is not a number."""
        return bool(self.history) and self.history[-1]["loss"] != self.history[-1]["loss"]

    def __repr__(self) -> str:
        loss = f", loss {self.history[-1]['loss']:.4f} nats" if self.history else ""
        return f"Trained({self.spec.belief}, {self.data.name}, {len(self.history)} epochs{loss})"

    def _repr_html_(self) -> str:
        from html import escape

        rows = [
            ("belief", self.spec.belief),
            ("data", f"{self.data.name}, {self.data.domain.shape}"),
            ("latents", str(self.spec.latent_dim)),
            ("epochs", str(len(self.history))),
        ]
        if self.history:
            rows += [(name, f"{value:.4f}") for name, value in self.history[-1].items() if name != "epoch"]
        cells = "".join(f"<tr><th style='text-align:left'>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
        return f"<table>{cells}</table>"

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x | z] at the posterior's location, for points x (N, *shape) as the data set holds them."""
        stack = self.model.stacked.eval()
        z = stack.centre(*stack.encode(network_input(x.flatten(1), self.data)))
        return stack.mean(stack.decode(z))[0, 0].view(len(x), *self.data.domain.shape)

r"""Masked autoregressive flows for P members at once: learned invertible maps of latent space, by zuko.

One layer maps u to y, feature by feature, with shift and scale from the features before it (and a context c):

    y_i = u_i exp(s_i(u_<i, c)) + t_i(u_<i, c)          log |det dy/du| = sum_i s_i

A flow is several layers in alternating order. `forward` is one pass per layer. `inverse` solves feature by feature,
`passes` passes per layer: with passes = D (the default) the map is fully autoregressive and its inverse costs D times as
much; with passes = 2 the features form two halves (coupling) and both directions are cheap.

| use                | forward                        | name                                                           |
|--------------------|--------------------------------|----------------------------------------------------------------|
| density of z       | z -> standard normal noise     | MAF (Papamakarios, Pavlakou, Murray, 2017)                     |
| flow posterior     | base draw -> z                 | IAF (Kingma and others, 2016); RealNVP at passes = 2           |

|s| is bounded (zuko: slope within [1e-3, 1e3]) and the hyper networks grow linearly, so |y| <= C (1 + |u|): a flow
does not change which moments are finite. The last layer of every hyper network starts at zero, hence a new flow is the
identity. The parameters of all members are stacked, (P, ...), and train together.

zuko is imported when a flow is built (extra `reasoning`). Not here: flow priors (`learned_priors`), flow posteriors
(`posteriors`).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

__all__ = ["Flow", "import_zuko"]

LAYERS = 3
HIDDEN = (64, 64)


def import_zuko() -> ModuleType:
    """zuko, or `ImportError` that says how to install it."""
    try:
        import zuko
    except ImportError:
        raise ImportError(
            "flows need the package zuko, which is not installed; install it with: pip install 'autovae[reasoning]'"
        ) from None
    return zuko


class _Layers(nn.Module):
    """zuko's transform of one member, as a module: (u, c) -> (y, log det) side by side."""

    def __init__(self, dim: int, context: int, passes: int, layers: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        zuko = import_zuko()
        up = torch.arange(dim)
        self.transform = zuko.lazy.LazyComposedTransform(
            *(
                zuko.flows.MaskedAutoregressiveTransform(
                    dim,
                    context,
                    passes=passes,
                    order=up.flip(0) if layer % 2 else up,
                    hidden_features=hidden,
                    activation=nn.SiLU,
                )
                for layer in range(layers)
            )
        )

    def forward(self, u: Tensor, c: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        transform = self.transform(c)
        y, log_det = (transform.inv if inverse else transform).call_and_ladj(u)
        return y, log_det


class Flow(nn.Module):
    """P flows of D features; tensors are (P, N, D), a context is (P, N, E), log determinants are (P, N)."""

    def __init__(
        self,
        dim: int,
        context: int = 0,
        passes: int | None = None,
        layers: int = LAYERS,
        hidden: tuple[int, ...] = HIDDEN,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.context, self.layers, self.hidden = dim, context, layers, tuple(hidden)
        self.passes = dim if passes is None else passes
        with torch.random.fork_rng(devices=[]):  # zuko draws its weights from the global generator: restore it
            template = _Layers(dim, context, self.passes, layers, self.hidden)
        draw_weights(template, generator)
        self._template = [template.requires_grad_(False)]  # in a list, so that it is not registered as a submodule
        self._places = {name: name.replace(".", "_") for name, _ in template.named_parameters()}
        self._masks = {name: name.replace(".", "_") for name, _ in template.named_buffers()}
        for name, value in template.named_parameters():
            self.register_parameter(self._places[name], nn.Parameter(value.detach().clone()[None]))
        for name, mask in template.named_buffers():
            self.register_buffer(self._masks[name], mask, persistent=False)

    def forward(self, u: Tensor, context: Tensor | None = None, stopped: bool = False) -> tuple[Tensor, Tensor]:
        """(y, log |det dy/du|); `stopped` treats the parameters as constants."""
        return self._call(u, context, False, stopped)

    def inverse(self, y: Tensor, context: Tensor | None = None, stopped: bool = False) -> tuple[Tensor, Tensor]:
        """(u, log |det du/dy|)."""
        return self._call(y, context, True, stopped)

    def _call(self, u: Tensor, context: Tensor | None, inverse: bool, stopped: bool) -> tuple[Tensor, Tensor]:
        own: dict[str, Tensor] = {name: getattr(self, place) for name, place in self._places.items()}
        values = {name: value.detach() for name, value in own.items()} if stopped else own
        masks = {name: getattr(self, place) for name, place in self._masks.items()}
        template = self._template[0]

        def call(values: dict[str, Tensor], u: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
            return functional_call(template, {**values, **masks}, (u, c, inverse))

        if len(u) == 1:  # half the time of vmap over one
            only = {name: value[0] for name, value in values.items()}
            y, log_det = call(only, u[0], None if context is None else context[0])
            return y[None], log_det[None]
        return torch.func.vmap(call, (0, 0, None if context is None else 0))(values, u, context)

    def extra_repr(self) -> str:
        return f"{self.dim} features, context {self.context}, {self.layers} layers of {self.passes} passes"


def _linears(module: nn.Module) -> Iterator[nn.Linear]:
    return (part for part in module.modules() if isinstance(part, nn.Linear))


@torch.no_grad()
def draw_weights(layers: _Layers, generator: Generator | None) -> None:
    """Draw the hidden layers by torch's default law, and set the output layers (shift and scale) to zero."""
    for transform in layers.transform.transforms:
        linears = list(_linears(transform))
        for linear in linears[:-1]:
            bound = linear.in_features**-0.5
            for value in (linear.weight, linear.bias):
                draw = torch.rand(value.shape, generator=generator, dtype=torch.float64)
                value.copy_((2 * draw - 1) * bound)
        for value in linears[-1].parameters() if linears else transform.parameters():
            value.zero_()

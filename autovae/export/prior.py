r"""PriorModule: a frozen generator with a standard-normal source, the prior of a Bayesian question.

    xi ~ N(0, I)  --transport-->  u  --families-->  z  --decoder-->  params  --likelihood-->  x = E[x | z]

| letter | means |
|---|---|
| xi | the source, standard normal, (..., latent_dim); every inference runs in this space |
| u | the source after an optional `Transport` (a fitted answer or density); equal to xi without one |
| z | the latent, z_i = F_i^-1(Phi(u_i)) with F_i the CDF of the prior family of latent i |
| x | the mean of the likelihood head in data units, (..., *shape), or a wrapped generator's raw output |

Families may differ between latents; each family is one vectorised call. The maps
go through log-CDFs (`beliefs.families`), never icdf(cdf(xi)), which overflows in float32 at |xi| = 5.5.

log p(z) = sum_i log f_i(z_i), plus log N(T^-1(u)) - log N(u) + log |det dT^-1/du| with a transport.

A prior module stays in evaluation mode and its weights stay frozen: inference never trains the generator.
Not here: files (`export.card`), constraints and inference (`reasoning`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autovae.beliefs.families import FAMILIES
from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.export.transports import Blocks, Chain, Transport
from autovae.registry import lookup

__all__ = ["PriorModule", "expand_families"]

Families = str | Sequence[str] | Mapping[str, int]


def expand_families(families: Families, latent_dim: int | None) -> tuple[str, ...]:
    """One family name per latent, from a name, a list of names, or counts such as {"logistic": 14, "cauchy": 6}."""
    if isinstance(families, str):
        if latent_dim is None:
            raise ValueError(
                f"got families={families!r} and no latent_dim, and the generator does not start with a Linear layer; "
                "pass latent_dim=... or one family name per latent"
            )
        names = (families,) * latent_dim
    elif isinstance(families, Mapping):
        names = tuple(name for name, count in families.items() for _ in range(int(count)))
    else:
        names = tuple(families)
    for name in dict.fromkeys(names):
        lookup(FAMILIES, name, "family")
    if not names or (latent_dim is not None and len(names) != latent_dim):
        raise ValueError(f"got {len(names)} families for {latent_dim} latents; expected one family per latent")
    return names


class PriorModule(nn.Module):
    """A frozen generator with a standard-normal source: sample, log_prob, decode, and the maps xi <-> z.

    `decoder` maps z (batch, latent_dim) to the likelihood's parameters, or to anything where `likelihood` is None.
    `scale` is the likelihood's scale in model units, or "pixel" where the decoder gives it: its output is then
    (params, log scale) side by side and the scale is scale_floor + exp(log scale). `fold` is the range in model units
    onto whose ends a head trained on masses folds its tails. Data units are unit * x + offset
    (the standardisation, undone); `shape` is the event shape of x. `card` is plain data about where the module is from.
    """

    scale: Tensor | None
    offset: Tensor
    unit: Tensor
    _order: Tensor | None
    _inverse: Tensor | None

    def __init__(
        self,
        decoder: nn.Module,
        families: Sequence[str] | Mapping[str, int],
        *,
        likelihood: str | None = None,
        scale: Tensor | float | str | None = None,
        scale_floor: float = 0.0,
        fold: tuple[float, float] | None = None,
        offset: Tensor | float = 0.0,
        unit: Tensor | float = 1.0,
        shape: Sequence[int] | None = None,
        transport: Transport | None = None,
        objects: int = 1,
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        names = expand_families(families, None)
        if likelihood is not None:
            lookup(LIKELIHOODS, likelihood, "likelihood")
        if transport is not None and transport.dim != len(names) * objects:
            raise ValueError(
                f"got a transport of size {transport.dim} for {len(names) * objects} latents; expected equal sizes"
            )
        self.decoder = decoder
        self.object_families = names
        self.likelihood = likelihood
        self.shape = None if shape is None else tuple(int(size) for size in shape)
        self.objects = int(objects)
        self.card = dict(card or {})
        self.transport = transport
        reference = _reference(decoder, offset)
        if isinstance(scale, str) and scale != "pixel":
            raise ValueError(f'got scale={scale!r}; expected a number, a tensor, "pixel" or None')
        self.scale_per_pixel, self.scale_floor = scale == "pixel", float(scale_floor)
        self.fold = None if fold is None else (float(fold[0]), float(fold[1]))
        fixed = None if scale is None or isinstance(scale, str) else _like(scale, reference)
        self.register_buffer("scale", fixed)
        self.register_buffer("offset", self._event(_like(offset, reference)))
        self.register_buffer("unit", self._event(_like(unit, reference)))
        self._counts = {name: self.families.count(name) for name in dict.fromkeys(names)}
        order = torch.tensor([i for name in self._counts for i, other in enumerate(self.families) if other == name])
        ordered = bool((order.diff() > 0).all())
        self.register_buffer("_order", None if ordered else order.to(reference.device), persistent=False)
        self.register_buffer("_inverse", None if ordered else order.argsort().to(reference.device), persistent=False)
        self.requires_grad_(False)
        self.train(False)

    @classmethod
    def from_decoder(
        cls, decoder: nn.Module, families: Families = "normal", latent_dim: int | None = None, **settings: Any
    ) -> PriorModule:
        """Wrap any torch generator: it is put in eval mode and frozen, and `decode` returns its output unchanged.

        `latent_dim` is taken from `families` or from the generator's first layer if that is Linear. A generator
        that refuses latents of that size, whose output still changes between two calls in eval mode, or whose output
        for one latent depends on the others in the batch, is refused with a `ValueError`.
        """
        if latent_dim is None and isinstance(families, str):
            latent_dim = _first_linear_size(decoder)
        names = expand_families(families, latent_dim)
        decoder.eval()
        decoder.requires_grad_(False)
        _check_generator(decoder, len(names))
        return cls(decoder, names, **settings)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], source: str = "prior") -> PriorModule:
        """The prior of a local folder, or of a model of the Hugging Face hub ("owner/name", extra `hub`).

        `source` is "prior" or an ex-post density kept in the folder. Raises `ValueError` for an incomplete folder.
        """
        from autovae.export.card import load_prior
        from autovae.export.hub import local_folder

        return load_prior(local_folder(name), source)

    def save(self, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> Path:
        """Write safetensors, card and README to `folder`; `about` (plain values) goes into the card.

        Raises `ValueError` for a wrapped generator: only networks of the table NETWORKS can be rebuilt.
        """
        from autovae.export.card import save_prior

        return save_prior(self, folder, about)

    @property
    def families(self) -> tuple[str, ...]:
        """The prior family of every latent, all objects together."""
        return self.object_families * self.objects

    @property
    def latent_dim(self) -> int:
        return len(self.object_families) * self.objects

    @property
    def dtype(self) -> torch.dtype:
        return self.offset.dtype

    @property
    def device(self) -> torch.device:
        return self.offset.device

    def train(self, mode: bool = True) -> PriorModule:
        """A prior stays in evaluation mode, whatever its parent module does."""
        return super().train(False)

    # -- the source ---------------------------------------------------------------------------------------------

    def from_normal(self, xi: Tensor) -> Tensor:
        """z of the source xi, both (..., latent_dim)."""
        self._check_size(xi, "xi")
        if self.transport is not None:
            xi, _ = self.transport(xi)
        return self._by_family("from_normal", xi)

    def to_normal(self, z: Tensor) -> Tensor:
        """The source xi of z: the inverse of `from_normal`."""
        self._check_size(z, "z")
        u = self._by_family("to_normal", z)
        return u if self.transport is None else self.transport.inverse(u)[0]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n latents from the prior, (n, latent_dim)."""
        return self.from_normal(self.sample_normal(n, generator=generator))

    def sample_normal(self, *size: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal draws of the source, (*size, latent_dim), made where the generator lives."""
        device = self.device if generator is None else generator.device
        xi = torch.randn(*size, self.latent_dim, generator=generator, dtype=self.dtype, device=device)
        return xi.to(self.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (..., latent_dim) -> (...)."""
        self._check_size(z, "z")
        log_density = self.log_densities(z).sum(-1)
        if self.transport is None:
            return log_density
        u = self._by_family("to_normal", z)
        xi, log_det = self.transport.inverse(u)
        return log_density + 0.5 * (u.square() - xi.square()).sum(-1) + log_det

    def log_densities(self, z: Tensor) -> Tensor:
        """log f_i(z_i) of every latent under its own family, (..., latent_dim)."""
        return self._by_family("log_prob", z)

    # -- the data -----------------------------------------------------------------------------------------------

    def decode(self, z: Tensor) -> Any:
        """x of z: (..., latent_dim) -> (..., *shape), (..., objects, *shape) for a product prior.

        With a likelihood, the mean of x in data units; for a wrapped generator its output, unchanged.
        """
        self._check_size(z, "z")
        params = self.decoder(z.reshape(-1, len(self.object_families)))
        if not isinstance(params, Tensor) and (z.ndim != 2 or self.objects > 1):
            raise ValueError(
                f"the generator returned a {type(params).__name__} and z has shape {tuple(z.shape)}; expected z of "
                "shape (batch, latent_dim), or wrap the generator so that it returns one tensor"
            )
        return self.data_of(params, tuple(z.shape[:-1])) if isinstance(params, Tensor) else params

    def data_of(self, params: Tensor, batch: tuple[int, ...]) -> Tensor:
        """x (*batch, *shape) of the decoder's output for the latents of all objects, flat over the batch."""
        if self.likelihood is None:
            return self._shaped(params, batch)
        head, (params, scale) = LIKELIHOODS[self.likelihood], self._head(params)
        mean = head.mean(params, scale) if self.fold is None else head.folded_mean(params, scale, *self.fold)
        return self._shaped(mean, batch) * self.unit + self.offset

    def observe(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x given z in data units, (..., latent_dim) -> (..., *shape): the likelihood's noise included."""
        if self.likelihood is None:
            raise ValueError("the prior has no likelihood, its generator is deterministic; call decode instead")
        self._check_size(z, "z")
        params, scale = self._head(self.decoder(z.reshape(-1, len(self.object_families))))
        x = LIKELIHOODS[self.likelihood].sample(params, scale, generator)
        if self.fold is not None:
            x = x.clamp(*self.fold)
        return self._shaped(x, tuple(z.shape[:-1])) * self.unit + self.offset

    def _head(self, params: Tensor) -> tuple[Tensor, Tensor | None]:
        """Parameters and scale of the likelihood, in model units."""
        if not self.scale_per_pixel:
            return params, self.scale
        params, log_scale = params.chunk(2, dim=-1)
        return params, self.scale_floor + log_scale.clamp(max=10.0).exp()

    def _shaped(self, x: Tensor, batch: tuple[int, ...]) -> Tensor:
        objects = (self.objects,) if self.objects > 1 else ()
        return x.reshape(*batch, *objects, *(self.shape if self.shape is not None else x.shape[1:]))

    def _event(self, value: Tensor) -> Tensor:
        """A flat number per feature in the event shape."""
        flat = self.shape is not None and value.ndim == 1 and value.numel() == math.prod(self.shape)
        return value.reshape(self.shape) if flat and self.shape is not None else value

    def forward(self, xi: Tensor) -> Any:
        """x of the source xi."""
        return self.decode(self.from_normal(xi))

    # -- new priors from this one -------------------------------------------------------------------------------

    def replicate(self, n: int) -> PriorModule:
        """The product prior of n independent objects: their latents side by side, decode (batch, n, *shape)."""
        if n < 1:
            raise ValueError(f"got n={n}; expected at least one object")
        transport = self.transport
        if transport is not None and n > 1:
            transport = Blocks(transport, n)
        return self._with(transport=transport, objects=self.objects * n)

    def transported(self, transport: Transport, **card: Any) -> PriorModule:
        """This prior behind another source: xi -> transport -> the previous source."""
        chain = transport if self.transport is None else Chain([transport, self.transport])
        return self._with(transport=chain, objects=self.objects, card={**self.card, **card})

    def _with(self, transport: Transport | None, objects: int, card: dict[str, Any] | None = None) -> PriorModule:
        return PriorModule(
            self.decoder,
            self.object_families,
            likelihood=self.likelihood,
            scale="pixel" if self.scale_per_pixel else self.scale,
            scale_floor=self.scale_floor,
            fold=self.fold,
            offset=self.offset,
            unit=self.unit,
            shape=self.shape,
            transport=transport,
            objects=objects,
            card=self.card if card is None else card,
        )

    # -- inside -------------------------------------------------------------------------------------------------

    def _by_family(self, method: str, values: Tensor) -> Tensor:
        """One call per family on its latents, gathered side by side and put back where they belong."""
        if len(self._counts) == 1:
            (name,) = self._counts
            return values if name == "normal" and method != "log_prob" else getattr(FAMILIES[name], method)(values)
        if self._order is not None:
            values = values.index_select(-1, self._order)
        pieces = values.split(list(self._counts.values()), -1)
        joined = torch.cat([getattr(FAMILIES[n], method)(v) for n, v in zip(self._counts, pieces, strict=True)], -1)
        return joined if self._inverse is None else joined.index_select(-1, self._inverse)

    def _check_size(self, values: Tensor, name: str) -> None:
        if values.ndim < 1 or values.shape[-1] != self.latent_dim:
            raise ValueError(
                f"got {name} of shape {tuple(values.shape)}; expected (..., {self.latent_dim}), "
                f"the prior has {self.latent_dim} latents"
            )

    def extra_repr(self) -> str:
        parts = [f"{name} x {len(list(run))}" for name, run in groupby(self.object_families)]
        objects = f", objects={self.objects}" if self.objects > 1 else ""
        return f"families=[{', '.join(parts)}], likelihood={self.likelihood}, shape={self.shape}{objects}"


def _reference(module: nn.Module, otherwise: Tensor | float = 0.0) -> Tensor:
    """The first floating tensor of a module: its dtype and device are those of the prior."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor
    return otherwise if isinstance(otherwise, Tensor) and otherwise.is_floating_point() else torch.zeros(())


def _like(value: Tensor | float, reference: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=reference.dtype, device=reference.device).detach().clone()


def _first_linear_size(module: nn.Module) -> int | None:
    """in_features of the first layer with weights, where that is Linear."""
    for part in module.modules():
        if next(iter(part.parameters(recurse=False)), None) is not None:
            return part.in_features if isinstance(part, nn.Linear) else None
    return None


def _check_generator(decoder: nn.Module, latent_dim: int) -> None:
    reference = _reference(decoder)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, latent_dim, generator=generator).to(reference)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            first, second, alone = decoder(z), decoder(z), decoder(z[:1])
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"the generator does not take latents of shape (batch, {latent_dim}): {error}; "
                "pass the latent_dim it was trained with, or wrap it so that it takes (batch, latent_dim)"
            ) from error
    if not isinstance(first, Tensor):
        return
    tolerance = 1e-9 if reference.dtype == torch.float64 else 1e-4
    if not _close(first, second, 1e-2 * tolerance):
        raise ValueError(
            "the generator's output changes between two calls in eval mode (noise injection, dropout by hand?); "
            "expected a deterministic function of z: make the noise part of the latents"
        )
    if alone.shape[:1] != (1,) or first.shape[:1] != (3,) or not _close(first[:1], alone, tolerance):
        raise ValueError(
            "the generator's output for one latent depends on the others in the batch (batch normalisation without "
            "running statistics?) or has no batch dimension; expected x of shape (batch, ...), one per latent"
        )


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    limit = tolerance * max(1.0, float(a.abs().max())) if math.isfinite(float(a.abs().max())) else tolerance
    return bool((a - b).abs().max() <= limit)

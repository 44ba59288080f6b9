r"""Kullback-Leibler divergences between location-scale families: the table, and the functions that use it.

KL[posterior, prior] tells how KL(q || p) is computed, for q the law of loc + scale * eps and p the standard prior. The
table holds the known closed forms and rules. `cell_of` derives every other pair from tails and laws: infinite for every
loc and scale (`autovae.finiteness`), by moments under a normal prior, by symmetry from the pair of mirrored families,
else by integration (`integration`).

| kind       | computed by                                            | error, float64           |
|------------|--------------------------------------------------------|--------------------------|
| elementary | closed form of exp, log, atan, sin                     | 1e-12, in the dtype given (two t cells in float64) |
| special    | closed form of a special function                      | 1e-10, in float64         |
| quadrature | a fixed rule whose nodes depend on (loc, scale) smoothly | 1e-10, in float64         |
| infinite   | -                                                      | exact                    |

(errors relative to max(KL, 1e-3).) A conditional cell, finite only in a region of loc and scale, keeps its kind and
returns inf outside (`regions`). By affine invariance a prior at (m, s) is the standard one at ((loc - m) / s, scale / s).

`kl` checks its arguments, which reads them back from the device; `kl_unchecked`, for training, does not.

To add a closed form: a function of (mu, sigma, log sigma) and its row in KL.
Not here: which pairs are finite (`autovae.finiteness`), regions of conditional pairs (`regions`), Rényi divergences
(`renyi`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autovae.beliefs import elementary as closed
from autovae.beliefs import kl_special as special
from autovae.beliefs import quadrature
from autovae.beliefs.cross_entropy import Divergence, Rule, from_energy, from_rule, from_value
from autovae.beliefs.families import FAMILIES, LocationScale, mirrored_pair
from autovae.beliefs.integration import energy_rule
from autovae.beliefs.regions import FREE, Region, region_of
from autovae.finiteness import finiteness
from autovae.registry import lookup

__all__ = ["KL", "Cell", "cell_of", "jeffreys", "kl", "kl_kind", "kl_unchecked", "standardised"]

INF = math.inf


@dataclass(frozen=True)
class Cell:
    """How one divergence is computed."""

    kind: str  # "elementary", "special" or "quadrature"
    value: Divergence
    coarse: Divergence | None = None  # for float32 where it differs; computed in float64 all the same
    in_double: bool = True  # computed in float64 for every input; else in the dtype of the input


def elementary(value: Divergence) -> Cell:
    return Cell("elementary", value, in_double=False)


def by_rule(kind: str, posterior: str, prior: str, rule: Rule) -> Cell:
    return Cell(kind, from_rule(posterior, prior, rule, True), from_rule(posterior, prior, rule, False))


# posterior: how its energy is found under all priors that share it
LOG_SQUARE: dict[str, Callable[[str, str], Cell]] = {
    "normal": lambda q, p: by_rule("special", q, p, special.normal_log_square),
    "laplace": lambda q, p: by_rule("special", q, p, special.laplace_log_square),
    "cauchy": lambda q, p: elementary(from_value(q, p, closed.cauchy_log_square)),
    "logistic": lambda q, p: by_rule("special", q, p, special.logistic_log_square),
    "gumbel": lambda q, p: by_rule("quadrature", q, p, quadrature.gumbel_log_square),
    "uniform": lambda q, p: elementary(from_value(q, p, closed.uniform_log_square)),
    "exponential": lambda q, p: by_rule("special", q, p, special.exponential_log_square),
    "hypsecant": lambda q, p: by_rule("special", q, p, special.hypsecant_log_square),
    "student_t3": lambda q, p: elementary(from_value(q, p, closed.t3_log_square)),
    "student_t5": lambda q, p: elementary(from_value(q, p, closed.t5_log_square)),
}
LOG_COSH: dict[str, Callable[[str, str], Cell]] = {
    "normal": lambda q, p: by_rule("quadrature", q, p, quadrature.normal_log_cosh),
    "laplace": lambda q, p: by_rule("special", q, p, special.laplace_log_cosh),
    "logistic": lambda q, p: by_rule("quadrature", q, p, quadrature.logistic_log_cosh),
    "gumbel": lambda q, p: by_rule("quadrature", q, p, quadrature.gumbel_log_cosh),
    "uniform": lambda q, p: by_rule("special", q, p, special.uniform_log_cosh),
    "exponential": lambda q, p: by_rule("special", q, p, special.exponential_log_cosh),
    "hypsecant": lambda q, p: by_rule("quadrature", q, p, quadrature.hypsecant_log_cosh),
    "student_t3": lambda q, p: by_rule("special", q, p, special.student_log_cosh(3)),
    "student_t5": lambda q, p: by_rule("special", q, p, special.student_log_cosh(5)),
}

KL: dict[tuple[str, str], Cell] = {
    **{(q, p): cell(q, p) for p in ("cauchy", "student_t3", "student_t5") for q, cell in LOG_SQUARE.items()},
    **{(q, p): cell(q, p) for p in ("logistic", "hypsecant") for q, cell in LOG_COSH.items()},
    #
    ("normal", "normal"): elementary(closed.normal_normal),
    #
    ("normal", "laplace"): by_rule("special", "normal", "laplace", special.normal_abs),
    ("laplace", "laplace"): elementary(closed.laplace_laplace),
    ("logistic", "laplace"): elementary(closed.logistic_laplace),
    ("gumbel", "laplace"): by_rule("special", "gumbel", "laplace", special.gumbel_abs),
    ("uniform", "laplace"): elementary(closed.uniform_laplace),
    ("exponential", "laplace"): elementary(closed.exponential_laplace),
    ("hypsecant", "laplace"): by_rule("special", "hypsecant", "laplace", special.hypsecant_abs),
    ("student_t3", "laplace"): elementary(closed.student_laplace(3)),
    ("student_t5", "laplace"): elementary(closed.student_laplace(5)),
    #
    ("normal", "gumbel"): elementary(closed.by_moment("normal", closed.normal_moment)),
    ("laplace", "gumbel"): elementary(closed.by_moment("laplace", closed.laplace_moment)),
    ("logistic", "gumbel"): elementary(closed.by_moment("logistic", closed.logistic_moment)),
    ("hypsecant", "gumbel"): elementary(closed.by_moment("hypsecant", closed.hypsecant_moment)),
    ("uniform", "gumbel"): elementary(closed.by_moment("uniform", closed.uniform_moment)),
    ("exponential", "gumbel"): elementary(closed.by_moment("exponential", closed.exponential_moment)),
    ("gumbel", "gumbel"): Cell("special", special.gumbel_gumbel),
    #
    ("uniform", "uniform"): elementary(closed.uniform_uniform),
    ("uniform", "exponential"): elementary(closed.uniform_exponential),
    ("exponential", "exponential"): elementary(closed.exponential_exponential),
    # Near q = p the constants of the general form cancel; these forms avoid them.
    ("cauchy", "cauchy"): elementary(closed.cauchy_cauchy),
    ("student_t3", "student_t3"): elementary(closed.t3_t3),
    ("student_t5", "student_t5"): elementary(closed.t5_t5),
    # These two come within 0.004 of zero, where float32 has no digits left.
    ("student_t3", "student_t5"): Cell("elementary", from_value("student_t3", "student_t5", closed.t3_log_square)),
    ("student_t5", "student_t3"): Cell("elementary", from_value("student_t5", "student_t3", closed.t5_log_square)),
}


def kl(
    posterior: str,
    prior: str,
    loc: Tensor | float,
    scale: Tensor | float,
    prior_loc: Tensor | float | None = None,
    prior_scale: Tensor | float | None = None,
) -> Tensor:
    """KL(q || p) elementwise, q the law of loc + scale * eps, p the standard prior or that at (prior_loc, prior_scale).

    Shapes broadcast. Returns inf where the divergence is infinite, with zero gradients there.
    Raises ValueError for unknown families, scales <= 0, non-finite values and shapes that do not broadcast.
    """
    return kl_unchecked(posterior, prior, *standardised(posterior, prior, loc, scale, prior_loc, prior_scale))


def kl_kind(posterior: str, prior: str) -> str:
    """How KL(posterior || prior) is computed: "elementary", "special", "quadrature" or "infinite".

    Conditional cells keep their kind. Raises ValueError for an unknown family.
    """
    lookup(FAMILIES, posterior, "posterior family")
    lookup(FAMILIES, prior, "prior family")
    cell = cell_of(posterior, prior)
    return cell.kind if cell else "infinite"


def jeffreys(posterior: str, prior: str, loc: Tensor | float, scale: Tensor | float) -> Tensor:
    """KL(q || p) + KL(p || q) elementwise, p the standard prior: the symmetric divergence."""
    mu, sigma = standardised(posterior, prior, loc, scale)
    return kl_unchecked(posterior, prior, mu, sigma) + kl_unchecked(prior, posterior, -mu / sigma, 1 / sigma)


def kl_unchecked(posterior: str, prior: str, loc: Tensor, scale: Tensor, *, log_scale: Tensor | None = None) -> Tensor:
    """`kl` against the standard prior without checks of values: no read-back from the device, no branch on data.

    Pass `log_scale` if it is available, to save a logarithm.
    """
    cell = cell_of(posterior, prior)
    if cell is None:
        total = loc + scale
        return torch.where(torch.zeros_like(total, dtype=torch.bool), total, INF)  # inf with a gradient, which is 0
    dtype, value = torch.promote_types(loc.dtype, scale.dtype), cell.value
    if cell.in_double and dtype != torch.float64:
        loc, scale, log_scale = loc.double(), scale.double(), None
        value = cell.coarse or cell.value
    elif dtype in (torch.float16, torch.bfloat16):
        loc, scale, log_scale = loc.float(), scale.float(), None
    region = _region(posterior, prior)
    if region is FREE:
        return value(loc, scale, torch.log(scale) if log_scale is None else log_scale).to(dtype)
    finite = region.contains(loc, scale)
    # Outside the region the formulas may be NaN or infinite with NaN slopes: evaluate them at a safe point instead.
    safe = _SAFE[region]
    mu, sigma = torch.where(finite, loc, safe[0]), torch.where(finite, scale, safe[1])
    return torch.where(finite, value(mu, sigma, torch.log(sigma)), INF).to(dtype)


# --- pairs without a row ---

_DERIVED: dict[tuple[LocationScale, LocationScale], Cell] = {}
_REGIONS: dict[tuple[LocationScale, LocationScale], Region] = {}
_SAFE: dict[Region, tuple[float, float]] = {}


def cell_of(posterior: str, prior: str) -> Cell | None:
    """How KL(posterior || prior) is computed: its row, or derived from tails and laws. None if it is infinite."""
    row = KL.get((posterior, prior))
    if row is not None:
        return row
    if finiteness(posterior, prior) == "infinite":
        return None
    laws = FAMILIES[posterior], FAMILIES[prior]
    if laws not in _DERIVED:
        _DERIVED[laws] = _derive(posterior, prior)
    return _DERIVED[laws]


def _derive(posterior: str, prior: str) -> Cell:
    q, p = FAMILIES[posterior], FAMILIES[prior]
    if p.is_source and math.isfinite(q.variance):
        return elementary(closed.any_normal(posterior))
    mirror = mirrored_pair(posterior, prior)
    if mirror is not None and mirror in KL:
        return _mirrored(KL[mirror])
    offset = None if q is p else -q.entropy
    return Cell(
        "quadrature", from_energy(energy_rule(q, p, True), offset), from_energy(energy_rule(q, p, False), offset)
    )


def _mirrored(cell: Cell) -> Cell:
    """The divergence of -z, from that of z."""

    def mirrored(value: Divergence) -> Divergence:
        return lambda mu, sigma, r: value(-mu, sigma, r)

    return replace(cell, value=mirrored(cell.value), coarse=mirrored(cell.coarse) if cell.coarse else None)


def _region(posterior: str, prior: str) -> Region:
    laws = FAMILIES[posterior], FAMILIES[prior]
    region = _REGIONS.get(laws)
    if region is None:
        region = _REGIONS[laws] = region_of(posterior, prior)
        _SAFE[region] = region.safe
    return region


# --- arguments ---


def standardised(
    posterior: str,
    prior: str,
    loc: Tensor | float,
    scale: Tensor | float,
    prior_loc: Tensor | float | None = None,
    prior_scale: Tensor | float | None = None,
) -> tuple[Tensor, Tensor]:
    """Checked (loc, scale) relative to the prior: ((loc - m) / s, scale / s)."""
    lookup(FAMILIES, posterior, "posterior family")
    lookup(FAMILIES, prior, "prior family")
    given = {"loc": loc, "scale": scale, "prior_loc": prior_loc, "prior_scale": prior_scale}
    tensors = _tensors({name: value for name, value in given.items() if value is not None})
    for name, value in tensors.items():
        _check(name, value, positive=name.endswith("scale"))
    mu, sigma = tensors["loc"], tensors["scale"]
    if "prior_loc" in tensors:
        mu = mu - tensors["prior_loc"]
    if "prior_scale" in tensors:
        mu, sigma = mu / tensors["prior_scale"], sigma / tensors["prior_scale"]
    return mu, sigma


def _tensors(values: dict[str, Tensor | float]) -> dict[str, Tensor]:
    """Tensors of one floating dtype, that of the tensors among them."""
    try:
        # Numbers become float64 first: as_tensor(0.1) is float32 and would lose the digits of a float64 loc.
        tensors = {
            n: v if isinstance(v, Tensor) else torch.as_tensor(v, dtype=torch.float64) for n, v in values.items()
        }
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected tensors or numbers for {', '.join(values)}: {error}") from None
    given = [tensor for name, tensor in tensors.items() if isinstance(values[name], Tensor)]
    dtype = torch.get_default_dtype()
    floating = [tensor.dtype for tensor in given if tensor.is_floating_point()]
    for other in floating[:1]:
        dtype = other
    for other in floating[1:]:
        dtype = torch.promote_types(dtype, other)
    if complex_ones := [name for name, tensor in tensors.items() if tensor.is_complex()]:
        raise ValueError(f"{complex_ones[0]} must be real, got {tensors[complex_ones[0]].dtype}")
    try:
        torch.broadcast_shapes(*(tensor.shape for tensor in tensors.values()))
    except RuntimeError:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes do not broadcast: {shapes}; make their trailing dimensions equal or 1") from None
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def _check(name: str, value: Tensor, positive: bool) -> None:
    """Raise ValueError for non-finite or non-positive values. Skipped if values cannot be read back."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(value):
        return
    if value.is_meta or (value.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    value = value.detach()
    bad = ~torch.isfinite(value) | (value <= 0) if positive else ~torch.isfinite(value)
    if bool(bad.any()):
        index = tuple(bad.nonzero()[0].tolist())
        found = value[index].item() if index else value.item()
        where = f" at index {index}" if index else ""
        if positive and found <= 0:
            remedy = "must be positive; make it so with exp or softplus"
        else:
            remedy = "must be finite; look for an overflow or a division by zero where it is computed"
        raise ValueError(f"{name} {remedy}, got {found}{where}")

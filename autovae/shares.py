r"""Pairings in plain values: a family name, one name per latent, or shares of the latents. No torch.

    "logistic"                          all latents alike
    ["logistic", "cauchy", ...]         one name per latent
    {"logistic": 14, "cauchy": 6}       counts, which must sum to latent_dim
    {"logistic": 0.7, "cauchy": 0.3}    fractions, which must sum to 1; rounded by largest remainder

Not here: densities and divergences of a pairing, see `beliefs.pairing`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from autovae.finiteness import TAILS
from autovae.registry import lookup

__all__ = ["Families", "Pair", "compact", "distinct", "largest_remainder", "pair_text", "per_latent"]

Pair: TypeAlias = tuple[str, str]  # (posterior family, prior family) of one latent
Families: TypeAlias = "str | Sequence[str] | Mapping[str, float]"


def largest_remainder(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole counts that sum to `total`, nearest to the shares: floors first, then the largest remainders."""
    weight = sum(shares.values())
    exact = {name: total * share / weight for name, share in shares.items()}
    counts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    order = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return {name: count for name, count in counts.items() if count}


def per_latent(belief: Families, latent_dim: int, what: str) -> tuple[str, ...]:
    """One family name per latent, from a name, a list or shares.

    Raises `ValueError` for unknown families, counts that do not sum to `latent_dim` and fractions that do not sum to 1.
    """
    if isinstance(belief, str):
        names: tuple[str, ...] = (belief,) * latent_dim
    elif isinstance(belief, Mapping):
        values = list(belief.values())
        if not values or any(not isinstance(v, (int, float)) or isinstance(v, bool) or not v >= 0 for v in values):
            raise ValueError(f"{what} shares must be numbers >= 0, got {dict(belief)!r}")
        if all(isinstance(v, int) for v in values):
            if sum(values) != latent_dim:
                raise ValueError(
                    f"{what} shares {dict(belief)!r} count {sum(values)} latents, expected latent_dim = {latent_dim}"
                )
        elif not math.isclose(sum(values), 1.0, abs_tol=1e-6):
            raise ValueError(f"{what} shares {dict(belief)!r} sum to {sum(values):g}, expected 1 (or whole counts)")
        counts = largest_remainder(belief, latent_dim)
        names = tuple(name for name, count in counts.items() for _ in range(count))
    else:
        names = tuple(belief)
        if len(names) != latent_dim:
            raise ValueError(f"{what} names {len(names)} latents, expected latent_dim = {latent_dim}")
    for name in dict.fromkeys(names):
        lookup(TAILS, name, f"{what} family")
    return names


def compact(names: tuple[str, ...]) -> str | tuple[str, ...]:
    """One name where all latents share it, else all names."""
    return names[0] if len(set(names)) == 1 else names


def distinct(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """The pairs that occur, each once, in order of first occurrence."""
    return tuple(dict.fromkeys(pairs))


def pair_text(pairs: Iterable[Pair]) -> str:
    """The pairs in words: ``logistic|normal`` or ``logistic|normal x14 + cauchy|cauchy x6``."""
    counts = Counter(pairs)
    texts = [f"{q}|{p}" + (f" x{count}" if len(counts) > 1 else "") for (q, p), count in counts.items()]
    return " + ".join(texts)

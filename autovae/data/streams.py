"""Seeds of random streams: one stable number from a tuple of counters.

A stream is named by integers such as (data seed, epoch) or (trial seed, step), and its seed is a function of
that name alone. So a trial's noise does not depend on who trains beside it, and a resumed run draws what the
uninterrupted one would have drawn.

Each integer is folded into a 64-bit state by the finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable
pseudorandom number generators, 2014), which changes every output bit with probability one half per input bit.
The result has 63 bits, so that torch, numpy and int64 columns all take it. torch's CPU generator uses its lowest
32 bits only, its CUDA generator all of them.
"""

from __future__ import annotations

__all__ = ["stream_seed"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def stream_seed(*counters: int) -> int:
    """The seed in [0, 2^63) of the stream named by `counters`; order and number of the counters matter."""
    state = _mix(len(counters) + _GOLDEN)
    for counter in counters:
        state = _mix(((state ^ _mix((int(counter) + _GOLDEN) & _MASK)) + _GOLDEN) & _MASK)
    return state >> 1

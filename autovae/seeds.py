"""Counter-based random streams: one seed per purpose, so no result depends on earlier draws."""

from __future__ import annotations

import hashlib

__all__ = ["stream_seed"]


def stream_seed(*counters: int | str) -> int:
    """A 63-bit seed from counters and names, the same on every machine: stream_seed(seed, "noise", epoch)."""
    text = "/".join(f"str:{c}" if isinstance(c, str) else f"int:{int(c)}" for c in counters)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

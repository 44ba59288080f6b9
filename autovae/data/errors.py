"""The one error of data that cannot be used: one line saying what was got, what was expected and what to do."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """Data that cannot be used. The message is a single line, fit for a terminal."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))

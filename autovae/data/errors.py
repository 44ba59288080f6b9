"""The error for unusable data: one line that says what was found, what was expected and what to do."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """Unusable data. The message is a single line, fit for a terminal."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))

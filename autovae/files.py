"""Atomic file writes: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["write_bytes", "write_text"]


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file atomically: readers see either the old or the new content. Errors name the file."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut may leave an empty file under the new name
        os.replace(temporary, target)
    except OSError as error:
        # "No space left" comes without a file name.
        raise OSError(error.errno, error.strerror or str(error), str(target)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def write_text(path: str | os.PathLike[str], content: str) -> Path:
    """`write_bytes` of UTF-8 text."""
    return write_bytes(path, content.encode("utf-8"))

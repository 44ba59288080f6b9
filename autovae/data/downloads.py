"""Find the files of named data sets on this machine or download them, and verify their checksums.

A file is searched for in <dir>/<folder>/ and <dir>/, where <dir> is `data_dir`, else the environment variable
AUTOVAE_DATA, and <folder> is the data set's; then in the user cache. A missing file is downloaded to the cache from the
first mirror that responds. Its SHA-256 must always match.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.parse
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autovae.data.errors import DataError

__all__ = ["File", "fetch", "locate"]

TIMEOUT = 20.0  # seconds until a mirror that does not respond counts as unreachable


@dataclass(frozen=True)
class File:
    """One file of a data set; `urls` are its mirrors, empty if it has no download."""

    name: str
    sha256: str
    urls: tuple[str, ...] = ()


def folders(folder: str, data_dir: str | Path | None) -> list[Path]:
    """The folders to search for a data set, in order; the last one is the user cache, which takes downloads."""
    root = data_dir or os.environ.get("AUTOVAE_DATA") or None
    given = [] if root is None else [Path(root).expanduser() / folder, Path(root).expanduser()]
    return [*given, cache_folder() / folder]


def cache_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("autovae"))


def locate(file: File, folder: str, data_dir: str | Path | None = None) -> Path | None:
    """The first folder that has the file, whatever its content."""
    return next((place / file.name for place in folders(folder, data_dir) if (place / file.name).is_file()), None)


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checked(path: Path, file: File, name: str) -> Path:
    try:
        status = path.stat()
        got = _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); expected {file.name} of {name}") from None
    if got != file.sha256:
        raise DataError(
            f"{path}: got sha256 {got}, expected {file.sha256} of {name}; the file is truncated, altered or of another "
            f"data set: remove it, or put the right one into the folder {name}/ under --data"
        )
    return path


class _Copier:
    """A pooch downloader for file:// addresses."""

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlparse(url).path), output_file)


def _reason(error: Exception, file: File) -> str:
    if isinstance(error, ValueError) and "hash" in str(error):
        return f"wrong checksum, expected sha256 {file.sha256}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else type(error).__name__


def fetch(file: File, folder: str, data_dir: str | Path | None = None) -> Path:
    """The path of a verified file, downloaded to the user cache if it is not found locally."""
    found = locate(file, folder, data_dir)
    if found is not None:
        return _checked(found, file, folder)
    *given, target = folders(folder, data_dir)
    failures = [] if file.urls else ["it has no download"]
    if file.urls:
        import pooch
    for url in file.urls:
        downloader = (
            _Copier()
            if url.startswith("file:")
            else pooch.HTTPDownloader(timeout=TIMEOUT, headers={"User-Agent": "autovae"})
        )
        try:
            return Path(pooch.retrieve(url, f"sha256:{file.sha256}", file.name, target, downloader=downloader))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; pooch raises ValueError on a wrong hash
            failures.append(f"download from {url} failed ({_reason(error, file)})")
    searched = ", ".join(str(place) for place in [*given, target])
    raise DataError(
        f"{folder}: {file.name} is not in {searched}; {'; '.join(failures)}; "
        f"pass the folder that contains {folder}/{file.name} with --data, or set AUTOVAE_DATA"
    )

"""The compiled library: made by the machine's own C compiler when it is first wanted, for the processor at hand.

It is kept in the user cache under a name that stands for the sources, the compiler and the processor, and is loaded only
where the file is the user's own and nobody else can write it. No compiler, or AUTOVAE_NATIVE=0: there is no library, and
torch's operations do the work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from autovae.files import write_bytes

__all__ = ["load_library"]

HERE = Path(__file__).parent
SOURCES = ("passes.c", "products.c", "lanes.c", "unit.c", "chains.c", "whole.c")
HEADERS = ("vectors.h", "adam.h", "products.h", "turn.h", "chains.h")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    "-O3",
    "-std=gnu11",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-fPIC",
    "-w",
)
# The first that works. OpenMP's functions are torch's own at run time: threads of two kinds would wait for each other.
CHOICES = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
SECONDS = 120.0


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The library, compiled where that has not been done; None where it cannot be had."""
    compiler = _compiler()
    if os.environ.get("AUTOVAE_NATIVE") == "0" or compiler is None or os.name != "posix":
        return None
    try:
        paths = _paths(compiler)
        return _kept(paths) or _made(compiler, paths)
    except (OSError, subprocess.SubprocessError):
        return None


def _compiler() -> str | None:
    """The one that the environment names, or the system's."""
    if sys.platform == "darwin" and subprocess.run(["xcode-select", "-p"], capture_output=True).returncode:
        return None  # there is but a stand-in, which asks in a window to be installed
    names = (os.environ.get("CC"), *COMPILERS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _paths(compiler: str) -> list[Path]:
    """Where the library of each choice is kept."""
    import pooch

    run = subprocess.run([compiler, "--version"], capture_output=True, timeout=SECONDS)
    parts = [run.stdout.decode(errors="replace"), repr((FLAGS, CHOICES)), platform.machine(), _processor()]
    parts += [(HERE / name).read_text() for name in (*SOURCES, *HEADERS)]
    name = hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
    return [Path(pooch.os_cache("autovae")) / "native" / f"{name}-{number}.so" for number in range(len(CHOICES))]


def _processor() -> str:
    """What distinguishes processors that do not run each other's programs; where that is not known, the machine."""
    try:
        with open("/proc/cpuinfo") as lines:
            found = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        found = []
    return "".join(found) or f"{platform.processor()} of {platform.node()}"


def _kept(paths: list[Path]) -> ctypes.CDLL | None:
    """The first that is there, the user's own, and loads."""
    for path in paths:
        try:
            own = [one for one in (path.lstat(), path.parent.lstat()) if one.st_uid == os.getuid()]
            modes = [one.st_mode for one in own]
            if len(own) == 2 and not any(stat.S_ISLNK(m) or m & (stat.S_IWGRP | stat.S_IWOTH) for m in modes):
                return ctypes.CDLL(str(path))
        except OSError:  # not there, cut short, or of a torch with other threads
            continue
    return None


def _made(compiler: str, paths: list[Path]) -> ctypes.CDLL | None:
    """Compile, keep where the cache can be written, and load."""
    with tempfile.TemporaryDirectory(prefix="autovae-") as folder:
        for choice, path in zip(CHOICES, paths, strict=True):
            made = Path(folder) / path.name
            if not _compile(compiler, choice, Path(folder), made):
                continue
            kept = _keep(path, made.read_bytes())
            for place in (path, made) if kept else (made,):  # programs in temporary folders may be forbidden
                try:
                    return ctypes.CDLL(str(place))
                except OSError:  # or functions of OpenMP are wanted that torch does not bring
                    continue
    return None


def _compile(compiler: str, choice: tuple[str, ...], folder: Path, made: Path) -> bool:
    """Whether it compiled: sources with `choice`, then linked without OpenMP's library."""
    objects = [str(folder / f"{source}.o") for source in SOURCES]
    commands = [[*FLAGS, *choice, "-c", str(HERE / one), "-o", to] for one, to in zip(SOURCES, objects, strict=True)]
    commands.append(["-shared", *objects, "-lm", "-o", str(made)])
    done = (subprocess.run([compiler, *words], capture_output=True, timeout=SECONDS) for words in commands)
    return not any(one.returncode for one in done)


def _keep(path: Path, content: bytes) -> bool:
    """Whether the cache has it now."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(path, content)
        path.chmod(0o700)
    except OSError:  # a folder that cannot be written: compiled again next time
        return False
    return True

"""The compiled library: made by the machine's own C compiler when it is first wanted, for the processor at hand.

It is kept in the user cache under a name that stands for the sources, the compiler and
the processor, and is loaded only where the file is the user's own and nobody else can write it. No compiler, or
AUTOVAE_NATIVE=0: there is no library, and torch's operations do the work.
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
import tempfile
from pathlib import Path

from autovae.files import write_bytes

__all__ = ["load_library"]

HERE = Path(__file__).parent
SOURCES = ("passes.c", "products.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-fPIC", "-w")
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
        return _kept(compiler) or _made(compiler)
    except (OSError, subprocess.SubprocessError):
        return None


def _compiler() -> str | None:
    """The one that the environment names, or the system's."""
    names = (os.environ.get("CC"), *COMPILERS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _name(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=SECONDS).stdout
    parts = [version, repr((FLAGS, CHOICES)), platform.machine(), _processor()]
    parts += [(HERE / name).read_text() for name in (*SOURCES, "vectors.h")]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def _processor() -> str:
    """What distinguishes processors that do not run each other's programs."""
    try:
        with open("/proc/cpuinfo") as lines:
            return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return platform.processor()


def _path(compiler: str) -> Path:
    import pooch

    return Path(pooch.os_cache("autovae")) / "native" / f"{_name(compiler)}.so"


def _kept(compiler: str) -> ctypes.CDLL | None:
    path = _path(compiler)
    try:
        found, folder = path.lstat(), path.parent.lstat()
    except OSError:
        return None
    for one in (found, folder):
        if one.st_uid != os.getuid() or stat.S_ISLNK(one.st_mode) or one.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # cut short, or of another system: made anew
        return None


def _made(compiler: str) -> ctypes.CDLL | None:
    """Compile, keep where the cache can be written, and load."""
    with tempfile.TemporaryDirectory(prefix="autovae-") as folder:
        for choice in CHOICES:
            made = Path(folder) / f"native{CHOICES.index(choice)}.so"
            if not _compile(compiler, choice, Path(folder), made):
                continue
            try:
                loaded = ctypes.CDLL(str(made))
            except OSError:  # functions of OpenMP that torch does not bring
                continue
            _keep(_path(compiler), made.read_bytes())
            return loaded
    return None


def _compile(compiler: str, choice: tuple[str, ...], folder: Path, made: Path) -> bool:
    """Whether it compiled: sources with `choice`, then linked without OpenMP's library."""
    objects = [str(folder / f"{source}.o") for source in SOURCES]
    commands = [[*FLAGS, *choice, "-c", str(HERE / one), "-o", to] for one, to in zip(SOURCES, objects, strict=True)]
    commands.append(["-shared", *objects, "-lm", "-o", str(made)])
    done = (subprocess.run([compiler, *words], capture_output=True, timeout=SECONDS) for words in commands)
    return not any(one.returncode for one in done)


def _keep(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(path, content)
        path.chmod(0o700)
    except OSError:  # a folder that cannot be written: compiled again next time
        return

"""The compiled library: made once, kept where nobody else can write, and right however it was compiled."""

from __future__ import annotations

import ctypes
import functools
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autovae import native
from autovae.native import library as made
from autovae.training.precision import ERROR_LIMIT

compiled = pytest.mark.skipif(not native.serves(), reason="there is no C compiler here")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm().clamp_min(1e-30))


def run(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    return result.stdout.strip()


def test_without_a_compiler_torch_does_the_work(tmp_path: Path):
    code = (
        "import torch; from autovae import fused, native; "
        "print(native.serves(), native.multiplies(), fused.kernels_for(torch.zeros(2)))"
    )
    assert run(code, AUTOVAE_NATIVE="0") == "False False None"
    assert run(code, PATH=str(tmp_path), CC="") == "False False None"


@compiled
def test_the_library_is_made_once_and_only_trusted_where_nobody_else_can_write(tmp_path: Path):
    code = (
        "from autovae.native import library, serves; "
        "print(serves(), next(path for path in library._paths(library._compiler()) if path.exists()))"
    )
    first, path = run(code, XDG_CACHE_HOME=str(tmp_path)).split()
    kept = Path(path)
    assert first == "True"
    assert kept.is_relative_to(tmp_path)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    before = kept.stat().st_mtime_ns
    assert run(code, XDG_CACHE_HOME=str(tmp_path)).split() == ["True", path]
    assert kept.stat().st_mtime_ns == before
    kept.write_bytes(b"not a library")
    assert run(code, XDG_CACHE_HOME=str(tmp_path)).split() == ["True", path]  # made anew
    kept.chmod(0o777)
    kept.write_bytes(b"somebody else's")
    assert run(code, XDG_CACHE_HOME=str(tmp_path)).split() == ["True", path]


@compiled
@pytest.mark.parametrize("choice", [(), ("-fopenmp",), ("-march=native",), ("-march=haswell",)])
def test_kernels_are_right_however_they_were_compiled(monkeypatch, tmp_path: Path, choice: tuple[str, ...]):
    """Vectors of sixteen become what a plain processor has, without OpenMP threads are one."""
    compiler = made._compiler()
    assert compiler is not None
    if "-march=haswell" in choice and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("this processor has no vectors of 256 bits")
    if not made._compile(compiler, choice, tmp_path, tmp_path / "native.so"):
        pytest.skip(f"{compiler} does not know {choice}")
    try:
        other = ctypes.CDLL(str(tmp_path / "native.so"))
    except OSError:
        pytest.skip("threads are wanted that torch does not bring")  # clang's, which `library` then does without
    eta, x = randn(40, 700), randn(40, 700, seed=1).sigmoid()
    expected = native.linear_in_x(x, eta, "continuous_bernoulli")
    monkeypatch.setattr(native, "_functions", functools.cache(lambda: native._declared(other)))
    for found, right in zip(native.linear_in_x(x, eta, "continuous_bernoulli"), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    for by in {other.products_by(1), other.products_by(2)} - {0} if native.multiplies() else ():
        other.products_by(by)
        for a, b in (
            (x.mT, eta),
            (x, eta.mT),
            (x.mT.contiguous(), eta[:, :13].contiguous()),
            (x[:5], randn(600, 700).mT),
        ):
            bias, exact = randn(1, b.shape[1], seed=2), a.double() @ b.double()
            assert error(native.product(a, b, bias=bias), exact + bias) < ERROR_LIMIT


@compiled
def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path):
    (tmp_path / "file").write_text("")
    compiler = made._compiler()
    assert compiler is not None
    paths = [tmp_path / "file" / path.name for path in made._paths(compiler)]
    assert made._kept(paths) is None
    assert made._made(compiler, paths) is not None

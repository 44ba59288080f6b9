"""The wheel carries studies and spaces: built here, unpacked elsewhere, it plans the quickstart."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return path


def test_wheel_holds_every_study_and_space_and_nothing_heavy(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("studies", "search_spaces"):
        for path in (ROOT / kind).glob("*.toml"):
            assert f"autovae/{kind}/{path.name}" in names
    for path in (ROOT / "autovae" / "report" / "templates").rglob("*.j2"):
        assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.endswith((".c", ".h"))]
    assert not [name for name in names if name.startswith(("tests/", "results/")) or name.endswith(".safetensors")]


def test_installed_wheel_plans_the_quickstart_from_anywhere(wheel, tmp_path):
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    where = subprocess.run(
        [sys.executable, "-c", "import autovae; print(autovae.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(target))
    plan = subprocess.run(
        [sys.executable, "-m", "autovae", "run", "--plan", "quickstart"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert plan.returncode == 0, plan.stderr
    assert "quickstart" in plan.stdout
    assert not (tmp_path / "results").exists()

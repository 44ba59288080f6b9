"""The examples for clusters are what their systems accept: the SLURM script is sound shell and starts a worker, the manifest
is a Kubernetes job."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "cluster"
SCRIPT = FOLDER / "slurm.sh"


def test_the_slurm_script_is_sound_shell():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    result = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_slurm_script_starts_a_worker_with_the_arrays_numbers(tmp_path):
    said = tmp_path / "autovae"
    said.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS $*"\n')
    said.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AUTOVAE": str(said),
        "STUDY": "quickstart",
        "AUTOVAE_STORAGE": "postgresql://h/d",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_COUNT": "8",
        "SLURM_CPUS_PER_TASK": "4",
    }
    result = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.split() == [
        "4", "worker", "quickstart", "--results", f"{tmp_path}/autovae-results", "--name", "slurm-3", "--of", "8",
    ]  # fmt: skip
    del environment["AUTOVAE_STORAGE"]
    result = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, env=environment)
    assert result.returncode != 0
    assert "where are the trials kept?" in result.stderr


def test_every_sbatch_line_is_an_option():
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert len(lines) > 4
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?( +#.*)?", line) for line in lines)


def test_the_manifest_is_a_kubernetes_job():
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    import yaml

    manifest = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    validate.validate(manifest, "1.31", strict=True)
    broken = {**manifest, "spec": {**manifest["spec"], "paralelism": 8}}
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, "1.31", strict=True)


def test_the_examples_name_options_that_exist():
    from typer.testing import CliRunner

    from autovae.cli import app

    text = CliRunner().invoke(app, ["worker", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for path in (SCRIPT, FOLDER / "kubernetes.yaml"):
        used = set(re.findall(r"(?<![\w-])--(?:results|name|of|storage)\b", path.read_text()))
        assert {"--results", "--name", "--of"} <= used
        assert all(option in text for option in used)
    assert "AUTOVAE_STORAGE" in text

"""Run or resume a reproduction: open its notebook, run it, and say where the results are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autovae.reproductions.files import ReproductionStudy
from autovae.reproductions.notebook import Notebook
from autovae.training.loop import choose_device

__all__ = ["run_reproduction"]


def run_reproduction(
    study: ReproductionStudy,
    results: Path,
    data_dir: Path | None = None,
    device: str | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run the study into results/<study>/, or resume it; returns its summary."""
    where = choose_device(device)
    notebook = Notebook(results / study.folder, say)
    notebook.open(study.identity)
    began = time.perf_counter()
    summary = study.reproduction.load()(study.settings, notebook, data_dir, where)
    minutes = (time.perf_counter() - began) / 60
    return {
        "study": study.name,
        "setting": study.setting,
        **summary,
        "minutes": round(minutes, 2),
        "results": str(notebook.path),
    }

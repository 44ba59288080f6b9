"""The long steps of a reproduction on a borrowed machine that has torch and little else.

    python -m autovae.reproductions.borrowed STUDY.toml --to FOLDER --device cuda --data DIR [--winner FOLDER]

STUDY.toml is the resolved one of a results folder (`Notebook.open`), of conditional_digits or of riddle. What comes back:

    FOLDER/networks/       trained networks, for the user cache of the machine at home
    FOLDER/steps/*.json    finished steps, for checkpoints/steps of the results folder
    FOLDER/log.txt         what was said, with seconds

`autovae run` at home then finds everything done and writes tables, figures and page; every step carries the machine
that it was done on. Jobs are processes side by side: first the networks, then the answers. Chains and riddles run on
`device`, variational answers of single digits, which are small, on a core each. Optuna, pydantic and typer are not
needed; pooch, and arviz-stats with numpy and scipy, are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from autovae.export.card import load_prior
from autovae.export.prior import PriorModule
from autovae.reproductions.digit_answers import (
    VARIATIONAL,
    HMCPlan,
    Plan,
    answer_by_hmc,
    answer_variational,
    score_conditional,
    score_test_images,
    scorer_of,
)
from autovae.reproductions.digit_modules import DigitModules, GANPlan
from autovae.reproductions.riddle_solving import Experiment, ask_riddle, step_name

__all__ = ["jobs_of", "main"]

Job = Callable[["Bench"], None]


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a job works with: the resolved settings, where things go, the device."""

    settings: Mapping[str, Any]
    folder: Path
    device: str
    data: Path | None
    winner: Path | None
    began: float = dataclasses.field(default_factory=time.perf_counter)

    def say(self, text: str) -> None:
        print(f"{time.perf_counter() - self.began:6.1f} s  {text}", flush=True)

    @property
    def modules(self) -> DigitModules:
        settings = self.settings
        gan = GANPlan(**settings["gan"])
        conditional = GANPlan(**settings["conditional"]) if "conditional" in settings else gan
        cache, name = self.folder / "networks", settings["data"]
        return DigitModules.of(name, gan, self.data, self.say, conditional=conditional, cache=cache, device=self.device)

    def prior(self, name: str, device: str) -> PriorModule:
        if name == "wgan":
            return self.modules.prior(device)
        if name != "winner" or self.winner is None:
            raise ValueError(f"got the prior {name!r}; expected wgan, or winner with --winner and its folder")
        return load_prior(self.winner).to(device)

    def plan(self) -> Plan:
        names = {field.name for field in dataclasses.fields(Plan)}
        values = {key: _tuples(value) for key, value in self.settings.items() if key in names}
        return Plan(**{**values, "hmc": HMCPlan(**values["hmc"])})

    def keep(self, name: str, compute: Callable[..., Mapping[str, Any]], *arguments: Any) -> None:
        """One step, as `Notebook.once` would have kept it."""
        path = self.folder / "steps" / f"{name}.json"
        if path.is_file():
            return
        began, cpu = time.perf_counter(), time.process_time()
        values = dict(compute(*arguments))
        values["seconds"] = round(time.perf_counter() - began, 1)
        values["cpu_seconds"] = round(time.process_time() - cpu, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
        self.say(f"{name}: {values['seconds']} s")


def _tuples(value: Any) -> Any:
    """Lists as tuples, as settings have them."""
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


# -- jobs -------------------------------------------------------------------------------------------------------------


def _trained(get: Callable[[DigitModules], Any]) -> Job:
    def job(bench: Bench) -> None:
        get(bench.modules)

    return job


def _real_and_conditional(bench: Bench) -> None:
    plan, modules = bench.plan(), bench.modules
    scorer = scorer_of(modules, plan.digits, "cpu")
    bench.keep("test_images", score_test_images, modules, plan, scorer)
    if "cwgan" in bench.settings["methods"]:
        bench.keep("cwgan", score_conditional, modules, plan, scorer)


def _chains(name: str) -> Job:
    def job(bench: Bench) -> None:
        plan = bench.plan()
        scorer = scorer_of(bench.modules, plan.digits, bench.device)
        cores = min(len(os.sched_getaffinity(0)), len(plan.digits))
        with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            bench.keep(f"{name}_hmc", answer_by_hmc, bench.prior(name, bench.device), scorer, plan, bench.say, pool.map)

    return job


def _variational(name: str, method: str, digit: int) -> Job:
    def job(bench: Bench) -> None:
        plan, prior = bench.plan(), bench.prior(name, "cpu")
        scorer = scorer_of(bench.modules, (digit,), "cpu")
        bench.keep(f"{name}_{method}_{digit}", answer_variational, method, prior, scorer, plan, digit, bench.say)

    return job


def _riddle(place: int) -> Job:
    def job(bench: Bench) -> None:
        settings = bench.settings
        own = Experiment(**_tuples(settings["experiments"][place]))
        effort = {name: getattr(own, name) or settings[name] for name in ("seeds", "pairs", "draws")}
        own = dataclasses.replace(own, **effort)
        bench.keep(step_name(own.name), ask_riddle, own, bench.modules, torch.device(bench.device))

    return job


NETWORKS: dict[str, Job] = {
    "digit": _trained(lambda modules: modules.network("digit")),
    "odd": _trained(lambda modules: modules.network("odd")),
    "closed_circle": _trained(lambda modules: modules.network("closed_circle")),
    "judge": _trained(lambda modules: (modules.judge(), modules.judge(1))),
    "generator": _trained(lambda modules: modules.generator),
    "conditional": _trained(lambda modules: modules.conditional),
}


def jobs_of(settings: Mapping[str, Any]) -> list[dict[str, Job]]:
    """Jobs that may run side by side, by name, one table after the other."""
    if "experiments" in settings:
        networks = {name: job for name, job in NETWORKS.items() if name != "conditional"}
        return [networks, {f"riddle{i}": _riddle(i) for i in range(len(settings["experiments"]))}]
    networks = {name: NETWORKS[name] for name in ("digit", "judge", "generator", "conditional")}
    answers: dict[str, Job] = {"scores": _real_and_conditional}
    for name in settings["priors"]:
        answers[f"{name}_hmc"] = _chains(name)
        for method in VARIATIONAL:
            if method in settings["methods"]:
                for digit in settings["digits"]:
                    answers[f"{name}_{method}_{digit}"] = _variational(name, method, digit)
    return [networks, answers]


def main(arguments: list[str] | None = None) -> int:
    """All jobs of a study, or one of them. Returns how many failed."""
    parser = argparse.ArgumentParser(prog="python -m autovae.reproductions.borrowed")
    parser.add_argument("study", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--winner", type=Path)
    parser.add_argument("--job", help="this one alone, in this process")
    options = parser.parse_args(arguments)
    settings = tomllib.loads(options.study.read_text(encoding="utf-8"))["settings"]
    tables = jobs_of(settings)
    if options.job:
        torch.set_num_threads(1)
        job = {name: job for table in tables for name, job in table.items()}[options.job]
        job(Bench(settings, options.to, options.device, options.data, options.winner))
        return 0
    options.to.mkdir(parents=True, exist_ok=True)
    same = list(sys.argv[1:] if arguments is None else arguments)
    failed = []
    began = time.perf_counter()
    with (options.to / "log.txt").open("a", encoding="utf-8") as log:
        for table in tables:
            running = {
                name: subprocess.Popen(
                    [sys.executable, "-m", "autovae.reproductions.borrowed", *same, "--job", name],
                    stdout=log,
                    stderr=log,
                )
                for name in table
            }
            for name, process in running.items():
                if process.wait():
                    failed.append(name)
                print(f"{time.perf_counter() - began:6.1f} s  {name}: {process.returncode}", flush=True)
    print(f"failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())

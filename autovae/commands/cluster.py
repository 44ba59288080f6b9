"""Commands for many workers: worker, dashboard, and `run --workers N`, which starts workers on this machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from autovae.commands.options import DataDir, Device, Results

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from autovae.progress import LiveProgress
    from autovae.search.run import Run

__all__ = ["Storage", "dashboard", "devices_of", "run_workers", "worker"]

STORAGE = "AUTOVAE_STORAGE"
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar=STORAGE,
        help="Storage of the trials: a path, grpc://host:port or postgresql://user:password@host/name; by default a "
        "journal in the results folder.",
    ),
]
RESTARTS = 3  # of each worker that dies; a trial that kills two workers fails, and kills no third one
PARENT = "AUTOVAE_PARENT"  # process id of the `run --workers` that started a worker


def worker(
    study: Annotated[str, typer.Argument(help="The study, by name or path: the same file for all workers.")],
    storage: Storage = None,
    name: Annotated[str, typer.Option("--name", help="Name of this worker; by default host and process id.")] = "",
    dataset: Annotated[str | None, typer.Option("--dataset", help="As in `run`.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="As in `run`: finished trials in all.")] = None,
    expected: Annotated[
        int, typer.Option("--of", min=1, help="Expected number of workers; each takes at most its share.")
    ] = 1,
    finals: Annotated[
        bool, typer.Option("--finals/--no-finals", help="The last worker trains the finals and writes the report.")
    ] = True,
    results: Results = Path("results"),
    data: DataDir = None,
    device: Device = None,
) -> None:
    """Join a study on a shared storage and train batches until it is complete. Start any number, on any machine.

    `autovae worker quickstart --storage postgresql://me:secret@db/autovae --results /shared/results`
    """
    from autovae.reproductions.files import is_reproduction

    if is_reproduction(study):
        raise ValueError(f"workers run searches and {study} is a reproduction; use autovae run {study}")
    from autovae.progress import live_progress
    from autovae.report.html import build_report
    from autovae.search.run import Run
    from autovae.search.study import load_study

    _end_with_parent()
    signal.signal(signal.SIGTERM, _as_ctrl_c)  # sent first by SLURM and Kubernetes
    if PARENT in os.environ:  # workers inherit an ignored Ctrl-C from a parent in the background
        signal.signal(signal.SIGINT, _as_ctrl_c)
    loaded = load_study(study)
    with live_progress(loaded.name) as on_progress:
        job = Run(loaded, results, dataset, data, trials, device, on_progress)
        with _log(job.folder.path / "workers", name) as say:
            try:
                with job.joined(storage, name, 2, _both(say, on_progress.phase), expected) as driver:
                    driver.run()
                    if finals and job.conclude(driver, again=False):
                        on_progress.phase(f"report {build_report(job.folder.path, job.data)}")
            except KeyboardInterrupt:
                say("stopped")
                typer.echo("\nstopped; its trials went back to the queue", err=True)
                raise typer.Exit(130) from None
            except Exception as error:
                say(f"{type(error).__name__}: {' '.join(str(error).split())}")
                raise


def run_workers(
    job: Run,
    arguments: list[str],
    workers: int,
    storage: str | None,
    on_progress: LiveProgress,
    restarts: int = RESTARTS,
    devices: Sequence[str] = (),
) -> None:
    """Start workers as processes, watch them, and conclude the study when they finish.

    `devices` are assigned to the workers in turn.
    """
    with job.joined(storage, "parent", max(workers, 1), on_progress.phase) as driver:
        if workers > 1:
            folder = job.folder.path / "workers"
            with _Crew(arguments, workers, folder, storage, restarts, on_progress.phase, devices) as crew:
                while crew.at_work():
                    driver.patiently(job.report_search)
                    time.sleep(1.0)
        driver.run()  # trials left by workers beyond their restarts
        if workers > 1 and driver.ended:  # otherwise only in the workers' logs
            job.notes.append(driver.ended)
        job.conclude(driver)


def devices_of(text: str) -> list[str]:
    """The devices of "0,1" (CUDA devices) or "cpu,cpu". Raises `ValueError` if one is missing."""
    from autovae.training.loop import choose_device

    names = [f"cuda:{part}" if part.isdigit() else part for part in (part.strip() for part in text.split(",")) if part]
    if not names:
        raise ValueError(f"--devices names one device a worker, such as 0,1; got {text!r}")
    return [str(choose_device(name)) for name in names]


class _Crew:
    """Worker processes: started together, restarted if they die, stopped with this process."""

    def __init__(
        self,
        arguments: list[str],
        count: int,
        folder: Path,
        storage: str | None,
        restarts: int,
        say: Callable[[str], Any],
        devices: Sequence[str] = (),
    ) -> None:
        self.arguments, self.folder, self.say = arguments, folder, say
        self.left = dict.fromkeys([f"w{place + 1}" for place in range(count)], restarts)
        self.device = dict(zip(self.left, itertools.cycle(devices), strict=False))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.environment = {"OMP_NUM_THREADS": str(max(1, cores // count)), **os.environ, PARENT: str(os.getpid())}
        self.environment |= {STORAGE: storage} if storage else {}  # not an argument: a password would be in `ps`
        self.processes: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}

    def _start(self, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        output = open(self.folder / f"{name}.out", "ab")  # noqa: SIM115
        command = [sys.executable, "-m", "autovae", "worker", *self.arguments, "--name", name, "--no-finals"]
        command += ["--of", str(len(self.left))]
        command += ["--device", self.device[name]] if name in self.device else []
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
        )
        self.processes[name] = (process, output)

    def at_work(self) -> bool:
        """Whether any worker is running; restarts dead workers up to their limit."""
        for name, (process, output) in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            output.close()
            del self.processes[name]
            if code in (0, 130):
                continue
            words = _last_line(self.folder / f"{name}.out")
            if code == 2:  # refused, as a restart would be
                raise ValueError(f"worker {name}: {words.removeprefix('autovae: ')}")
            self.left[name] -= 1
            how = f"was killed by signal {-code}" if code < 0 else f"failed: {words}"
            self.say(f"worker {name} {how}" + ("; it is restarted" if self.left[name] >= 0 else ""))
            if self.left[name] >= 0:
                self._start(name)
        return bool(self.processes)

    def __enter__(self) -> _Crew:
        for name in self.left:
            self._start(name)
        return self

    def __exit__(self, *about: object) -> None:
        for how in (signal.SIGINT, signal.SIGKILL):
            try:
                for process, _ in self.processes.values():
                    if process.poll() is None:
                        process.send_signal(how)
                for process, _ in self.processes.values():
                    process.wait(timeout=60)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):  # Ctrl-C again: at once
                continue
            break
        for _, file in self.processes.values():
            file.close()


def dashboard(
    study: Annotated[str, typer.Argument(help="The study, by name or path.")],
    storage: Storage = None,
    results: Results = Path("results"),
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; 0.0.0.0 shows it to the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8080,
) -> None:
    """Watch a study in the browser while it runs, with optuna-dashboard (`pip install 'autovae[dashboard]'`)."""
    from autovae.search.study import load_study
    from autovae.search.workers.storage import open_storage

    folder = results / load_study(study).name
    journal = folder / "trials.journal"
    if storage is None and not journal.is_file():
        raise ValueError(f"{journal} does not exist yet; run the study first, or give its --storage")
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise ValueError("the dashboard needs optuna-dashboard: pip install 'autovae[dashboard]'") from None
    shown: BaseStorage
    if storage is None:
        from autovae.search.workers.journal import open_journal

        shown = open_journal(journal)  # read only: needs no lock
    else:
        shown = open_storage(storage, folder, folder.name, 2).optuna
    typer.echo(f"http://{host}:{port}/  (Ctrl-C ends the dashboard, not the study)", err=True)
    run_server(shown, host=host, port=port)


@contextlib.contextmanager
def _log(folder: Path, name: str) -> Iterator[Callable[[str], None]]:
    """A worker's own log: one line per event, with date and time."""
    opened: list[IO[str]] = []

    def say(text: str) -> None:
        if not opened:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name or f'worker-{os.getpid()}'}.log"
            opened.append(path.open("a", encoding="utf-8", buffering=1))
        with contextlib.suppress(OSError):  # a full disk must not stop the worker because of its log
            opened[0].write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    try:
        yield say
    finally:
        for file in opened:
            file.close()


def _both(*says: Callable[[str], Any]) -> Callable[[str], None]:
    def say(text: str) -> None:
        for one in says:
            one(text)

    return say


def _as_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Stop a worker of `run --workers` if its parent is killed; its trials return to the queue."""
    if PARENT not in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError):  # Linux
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
    if str(os.getppid()) != os.environ[PARENT]:
        raise KeyboardInterrupt


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word")

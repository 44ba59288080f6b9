"""Workers that sleep instead of training: what the fault tests kill. Knows optuna, and neither torch nor a study file.

    python stub.py                  reads JSON lines: {"start": {...settings of work()}} forks a worker and answers with
                                    its process id; the end of the input ends the server, not its workers
Forking from a process that has imported everything makes a worker start in a few milliseconds.
"""

import itertools
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import optuna

from autovae.search.workers.driver import Driver
from autovae.search.workers.storage import open_storage


class Sleep:
    """A search over one number; a trial sleeps. Every trial that was told is a line in `journal`, as the witness."""

    def __init__(self, study, trials, seconds, witness, batch=1, fail=(), misbehave=""):
        self.optuna, self.target, self.batch = study, trials, batch
        self.seconds, self.witness, self.fail, self.misbehave = seconds, witness, fail, misbehave
        self.asked = []

    def finished(self):
        return [t for t in self.optuna.get_trials(deepcopy=False) if t.state.is_finished()]

    def ask(self, left, count):
        self.asked = [optuna.Trial(self.optuna, t._trial_id) for t in left]
        self.asked += [self.optuna.ask() for _ in range(count - len(left))]
        for trial in self.asked:
            trial.suggest_float("x", 0, 1)
            if "batch" not in trial.user_attrs:
                trial.set_user_attr("batch", self.asked[0].user_attrs.get("batch", self.asked[0].number))
        return [trial.number for trial in self.asked]

    def train(self):
        numbers = [t.number for t in self.asked]
        note(self.witness, "trained", numbers)
        if any(t.number in self.fail for t in self.asked):
            FAILURES[self.misbehave]()
        time.sleep(self.seconds * len(self.asked))

    def tell(self, numbers):
        for trial in self.asked:
            if trial.number in numbers:
                self.optuna.tell(trial, trial.params["x"])
                note(self.witness, "told", [trial.number, trial.params["x"]])
        note(self.witness, "done", time.monotonic())

    def ended(self):
        return ""


def no_memory():
    raise MemoryError("cannot allocate 1 TiB")


FAILURES = {"memory": no_memory, "kill": lambda: os.kill(os.getpid(), signal.SIGKILL)}


def set_the_clock_back():
    """From now on every look at the wall's clock says an hour less than the last one."""
    import datetime as module

    import optuna.storages.journal._storage as journal

    looks = itertools.count(1)
    wall, date = time.time, module.datetime

    class Backwards(date):
        @classmethod
        def now(cls, tz=None):
            return date.now(tz) - module.timedelta(hours=next(looks))

    time.time = lambda: wall() - 3600 * next(looks)
    journal.datetime = Backwards


def note(witness, what, about):
    """One line, in one write: a line that is there is whole."""
    with open(witness, "ab", buffering=0) as file:
        file.write((json.dumps([what, about]) + "\n").encode())


def work(
    url, folder, trials, seconds=0.05, witness="witness", batch=1, name="", grace=None, poll=0.02, patience=60.0,
    signal_to_begin="", **rest,
):  # fmt: skip
    """One worker, to its end; it says that it is ready, and begins when there is the file `signal_to_begin`."""
    folder = Path(folder)
    log = open(folder / f"{name or os.getpid()}.log", "a", buffering=1)  # noqa: SIM115
    if rest.pop("clock_back", False):
        set_the_clock_back()
    if limit := rest.pop("file_limit", 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    storage = open_storage(url, folder, "sleep", rest.pop("workers", 2))
    object.__setattr__(storage, "patience", min(storage.patience, patience))
    with storage.mutex("trials"):
        study = optuna.create_study(
            study_name="sleep", storage=storage.optuna, load_if_exists=True, sampler=optuna.samplers.RandomSampler()
        )
    search = Sleep(study, trials, seconds, folder / witness, batch, **rest)
    driver = Driver(search, storage, name, lambda text: print(f"{time.monotonic():.2f} {text}", file=log), poll)
    if grace is not None:
        driver.claims.heartbeat.interval, driver.claims.heartbeat.grace = grace / 8, grace
    note(folder / witness, "ready", os.getpid())
    while signal_to_begin and not Path(signal_to_begin).exists():
        time.sleep(0.005)
    driver.run()
    driver.conclude(lambda: note(folder / witness, "concluded", driver.claims.id))


def serve():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that end leave no zombie
    for line in sys.stdin:
        settings = json.loads(line)["start"]
        if pid := os.fork():
            print(pid, flush=True)
            continue
        code = 0
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
            sys.stdin.close()
            work(**settings)
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:
            Path(settings["folder"], f"error-{os.getpid()}").write_text("".join(traceback.format_exception(error)))
            code = 1
        os._exit(code)


if __name__ == "__main__":
    assert "torch" not in sys.modules
    if len(sys.argv) > 1:
        work(**json.loads(sys.argv[1]))
    else:
        serve()

"""Workers to be killed, for tests: started by a server that forks them, watched by their process ids."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

STUB = Path(__file__).with_name("stub.py")


class Zoo:
    """Workers of stub.py; all of them are dead when the block ends."""

    def __init__(self, url, folder, **settings):
        self.settings = {"url": str(url), "folder": str(folder), **settings}
        self.folder = folder
        self.workers = []

    def __enter__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, str(STUB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_):
        for worker in self.workers:
            self.kill(worker)
        self.server.stdin.close()
        self.server.wait(10)
        self.server.stdout.close()

    def start(self, **settings):
        self.server.stdin.write(json.dumps({"start": {**self.settings, **settings}}) + "\n")
        self.server.stdin.flush()
        worker = int(self.server.stdout.readline())
        self.workers.append(worker)
        return worker

    def kill(self, worker, how=signal.SIGKILL):
        if self.lives(worker):
            try:
                os.kill(worker, how)
            except ProcessLookupError:
                return

    def lives(self, worker):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return False
        return True

    def errors(self):
        """What workers that ended with an error said."""
        return [path.read_text() for path in self.folder.glob("error-*")]

    def wait(self, seconds=60, errors=0):
        """Until all workers have ended, with no more errors than expected; returns how long that took."""
        began = time.monotonic()
        while any(self.lives(worker) for worker in self.workers):
            assert time.monotonic() - began < seconds, self.log()
            time.sleep(0.01)
        assert len(self.errors()) <= errors, self.errors()
        return time.monotonic() - began

    def log(self):
        return "\n".join(f"{path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def witnessed(self, what, name="witness"):
        path = self.folder / name
        lines = path.read_text().splitlines() if path.is_file() else []
        return [about for kind, about in map(json.loads, lines) if kind == what]


def efficiency(zoo, workers):
    """The share of the workers' time that is work, from when the last of them has begun until the last one ends."""
    began = zoo.witnessed("began")
    start = max(min(when for pid, when, _ in began if pid == worker) for worker in zoo.workers[-workers:])
    end = max(when + seconds for _, when, seconds in began)
    work = sum(max(0.0, when + seconds - max(when, start)) for _, when, seconds in began)
    share = work / (workers * (end - start))
    print(f"{workers} workers: efficiency {share:.3f}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return share


def enough(share, least):
    """The efficiency is what is asked for, or other work takes the time (skipped, with the number); far below is a fault."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    assert share > 0.5, f"workers share the work badly: {share:.2f}"
    if share < least:
        pytest.skip(f"efficiency {share:.2f}, asked for {least}, at a load of {load:.1f} on {cores} cores")


def check(study, zoo, trials, failed=0):
    """What holds after every fault: the count is reached, what was told stays as it was told, and nothing twice."""
    finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    assert len(finished) == trials, zoo.log()
    assert all(t.state.is_finished() for t in study.get_trials(deepcopy=False))
    assert [t.number for t in finished] == list(range(trials))
    complete = {t.number: t.value for t in finished if t.state == optuna.trial.TrialState.COMPLETE}
    told = zoo.witnessed("told")
    assert len({number for number, _ in told}) == len(told), "a trial was told twice"
    for number, value in told:
        assert complete[number] == value
    # a worker killed between telling and witnessing leaves a trial that nobody witnessed: at most one a kill
    assert len(finished) - len(complete) <= failed, zoo.log()
    for trial in finished:
        if trial.state == optuna.trial.TrialState.FAIL:
            assert trial.user_attrs["reason"]
    assert len(zoo.witnessed("concluded")) == 1
    return complete

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

    def kill_at_random(self, rng, times, workers, pause):
        """kill -9 of one of so many workers, so many times, each after a random part of `pause` seconds."""
        for _ in range(times):
            living = [worker for worker in self.workers if self.lives(worker)]
            while len(living) < workers:
                living.append(self.start())
            time.sleep(rng.uniform(0.0, pause))
            self.kill(rng.choice(living))

    def lives(self, worker):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return False
        return True

    def until_gone(self, worker):
        while self.lives(worker):
            time.sleep(0.01)

    def start_and_train(self, **settings):
        """A worker that has begun to train a batch of its own, which takes it half a minute."""
        before = len(self.witnessed("trained"))
        worker = self.start(seconds=30, **settings)
        while len(self.witnessed("trained")) == before:
            assert self.lives(worker), self.errors()
            time.sleep(0.01)
        return worker

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


def duration(url, folder, workers, trials, seconds):
    """Seconds that so many workers take for so many trials, from when all of them stand ready until the last is told."""
    folder.mkdir()
    signal_to_begin = folder / "begin"
    with Zoo(url, folder, trials=trials, seconds=seconds, poll=0.5, signal_to_begin=str(signal_to_begin)) as zoo:
        for _ in range(workers):
            zoo.start()
        while len(zoo.witnessed("ready")) < workers:
            assert not zoo.errors(), zoo.errors()
            time.sleep(0.01)
        began = time.monotonic()
        signal_to_begin.touch()
        zoo.wait(3 * trials * seconds + 30)
        assert len(zoo.witnessed("told")) == trials
        return max(zoo.witnessed("done")) - began


def check_efficiency(storage_of, folder, workers, seconds, least, trials=8, rounds=3):
    """One worker's time over so many workers' time and number, one after the other; the best of a few rounds counts.

    `storage_of` gives a new storage for a name. Skipped, with the numbers, only where the machine has so much other work
    that it cannot even run workers that sleep.
    """
    shares = []
    for number in range(rounds):
        alone, together = (
            duration(storage_of(f"{number}-{count}"), folder / f"{number}-{count}", count, trials, seconds)
            for count in (1, workers)
        )
        shares.append(alone / (workers * together))
        print(f"{workers} workers: {alone:.2f} s alone, {together:.2f} s together, efficiency {shares[-1]:.3f}")
        if shares[-1] >= least:
            return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    words = (
        f"efficiency {', '.join(f'{share:.2f}' for share in shares)}, asked for {least}; load {load:.1f}, {cores} cores"
    )
    if load > 2 * cores:
        pytest.skip(words)
    raise AssertionError(words)


def check_takeover(zoo, load, trials):
    """A worker that is killed while it trains loses that batch alone: another trains it again, as it was, with the cause."""
    first = zoo.start_and_train()
    zoo.kill(first)
    zoo.start()
    zoo.wait(60)
    study = load()
    assert len(check(study, zoo, trials)) == trials
    lost, *others = zoo.witnessed("trained")
    assert others.count(lost) == 1
    for number in lost:
        (cause,) = study.trials[number].user_attrs["causes"]
        assert "died (killed" in cause


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

"""A worker: takes trials of a study that others may work on too, trains them, tells them; nothing lost, nothing twice.

Who works on a trial is written on the trial (`worker`), and the list of trials is only changed under the study's mutex:

    take    trials that a dead worker left, as the batch they were; else new ones, as many as the study still lacks
    train   outside the mutex, for as long as it takes
    tell    only trials that are still this worker's; one that was taken for dead and comes back drops what it had

A dead worker's trials are taken over once, under their own numbers and seeds; whoever dies on them again fails them, with
the causes on the trial: what kills its worker twice would kill all of them. A worker that is stopped hands its trials back,
which costs them nothing. The last worker out concludes the study.

What is searched and how it is trained is the `Search`; `search.run.Run` is one, and this file knows no torch.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from autovae.search.storage import TRIALS, SharedStorage, StorageError, patiently

__all__ = ["CONCLUDED", "Search", "Worker", "agree"]

RETRIES = 1
WORKER, CAUSES, ENDED, CONCLUDED = "worker", "causes", "ended", "concluded"
BATCH = "batch"  # attribute that the search gives to trials that train together


class Search(Protocol):
    """What a worker needs of a study."""

    optuna: optuna.Study
    trials: int  # finished trials that there shall be in all
    batch: int  # trials trained together

    def finished(self) -> Sequence[FrozenTrial]:
        """The finished trials that count."""

    def ask(self, left: Sequence[FrozenTrial], count: int) -> Sequence[int]:
        """Go on with the running trials `left`, or ask `count` new ones; the numbers of all that run now."""

    def train(self) -> None:
        """Train what was asked."""

    def tell(self, numbers: Sequence[int]) -> None:
        """Tell those of the asked trials that are in `numbers`."""

    def ended(self) -> str:
        """Why the search is over before its count, or nothing."""


def agree(study: optuna.Study, about: dict[str, Any], differences: Callable[[Any, Any], Any]) -> None:
    """Check that a worker's study file, data and version are the storage's; the first one writes them down.

    Called under the mutex. Raises `StorageError` naming what differs.
    """
    stored = study.user_attrs.get("autovae")
    if stored is None:
        study.set_user_attr("autovae", about)
        return
    if stored.get("version") != about["version"]:
        raise StorageError(
            f"this is autovae {about['version']}, and the study {study.study_name} in the storage was begun with "
            f"{stored.get('version')}; install the same version for all workers, or begin anew under another name"
        )
    changes = list(differences(stored.get("study"), about["study"]))
    if changes:
        raise StorageError(
            f"the storage holds another study under the name {study.study_name} ({'; '.join(changes[:4])}"
            f"{'; ...' if len(changes) > 4 else ''}); give all workers the same study file and data, or copy the study "
            "file under a new name"
        )


class Worker:
    """One worker of a study. `name` tells workers apart; one that starts again under its name is another worker."""

    def __init__(
        self,
        search: Search,
        storage: SharedStorage,
        name: str = "",
        say: Callable[[str], Any] = lambda _: None,
        poll: float = 1.0,
        expected: int = 1,
    ) -> None:
        self.search, self.storage, self.say, self.poll, self.expected = search, storage, say, poll, expected
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.leases = storage.leases_of(search.optuna)
        self.id = self._patiently(self._register)

    def _patiently(self, action: Callable[[], Any]) -> Any:
        return patiently(action, self.say, self.storage.patience)

    def _register(self) -> str:
        """A name that was never used: the worker's, and how often it was started."""
        with self.storage.mutex(TRIALS):
            key = f"worker:{self.name}"
            starts = self.search.optuna.user_attrs.get(key, {}).get("starts", 0) + 1
            about = {"starts": starts, "host": socket.gethostname(), "pid": os.getpid()}
            self.search.optuna.set_user_attr(key, about)
        return f"{self.name}.{starts}"

    def run(self) -> int:
        """Work until nothing is left to do for anybody. Returns how many trials this worker told."""
        told = 0
        with self.leases.hold(self.id):
            self.say(f"worker {self.id} joins")
            while (numbers := self._patiently(self._take)) is not None:
                if numbers:
                    told += self._work(numbers)
                else:
                    time.sleep(self.poll)  # others still train; if one of them dies, its trials are taken over
            self.say(f"worker {self.id} leaves: nothing is left to do; it told {told} trials")
        return told

    def _work(self, numbers: Sequence[int]) -> int:
        self.say(f"trials {_range(numbers)} begin")
        began = time.monotonic()
        try:
            self.search.train()
            told = self._patiently(lambda: self._tell(numbers))
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            cause = "" if stopped else " ".join(f"{type(error).__name__}: {error}".split())
            self.say(f"trials {_range(numbers)} stop{': ' + cause if cause else ', and go back to the queue'}")
            self._hand_back(numbers, cause)
            raise
        self.say(
            f"trials {_range(told)} are told after {time.monotonic() - began:.1f} s" if told else "nothing to tell"
        )
        return len(told)

    def _take(self) -> Sequence[int] | None:
        """Numbers of trials to train; none where there is nothing now; None where there is nothing any more."""
        with self.storage.mutex(TRIALS):
            study = self.search.optuna
            running = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
            orphans = [t for t in running if self._is_orphan(t)]
            alive = len(running) - len(orphans)
            left = [t for t in orphans if not self._is_hopeless(t)]
            if left:
                left = [t for t in left if t.user_attrs.get(BATCH) == left[0].user_attrs.get(BATCH)]
                for trial in left:
                    self._take_over(trial)
                count = 0
            else:
                room = 0 if study.user_attrs.get(ENDED) else self.search.trials - len(self.search.finished()) - alive
                if room <= 0:
                    return [] if alive else None
                workers = len({t.user_attrs.get(WORKER) for t in running}) + 1
                count = min(self.search.batch, math.ceil(room / max(workers, self.expected)))
            numbers = self.search.ask(left, count)
            trials = study.get_trials(deepcopy=False)
            for number in numbers:
                self._mark(trials[number], WORKER, self.id)
            if not numbers:
                self._note_end()
            return numbers

    def _mark(self, trial: FrozenTrial, key: str, value: Any) -> None:
        self.search.optuna._storage.set_trial_user_attr(trial._trial_id, key, value)

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        """Whether nobody works on a running trial: it was handed back, its worker died, or died while it asked."""
        worker = trial.user_attrs.get(WORKER)
        return not worker or worker == self.id or self.leases.is_dead(worker)

    def _is_hopeless(self, trial: FrozenTrial) -> bool:
        """Fail a trial that has been taken over often enough. Says whether it was one."""
        causes = self._causes(trial)
        if len(causes) <= RETRIES:
            return False
        reason = f"its worker failed {len(causes)} times: {'; '.join(causes)}"
        self._mark(trial, CAUSES, causes)
        self._mark(trial, "reason", reason)
        self.search.optuna._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        self.say(f"trial {trial.number} fails: {reason}")
        return True

    def _causes(self, trial: FrozenTrial) -> list[str]:
        """Why workers failed on an orphan, each once, the one that left it now included."""
        worker = trial.user_attrs.get(WORKER)
        silent = [_silent(worker)] if worker and worker != self.id else []
        return list(dict.fromkeys([*trial.user_attrs.get(CAUSES, []), *silent]))

    def _take_over(self, trial: FrozenTrial) -> None:
        causes = self._causes(trial)
        if causes != trial.user_attrs.get(CAUSES, []):
            self._mark(trial, CAUSES, causes)
            self.say(f"trial {trial.number} is taken over: {causes[-1]}")

    def _still_mine(self, numbers: Sequence[int]) -> list[FrozenTrial]:
        trials = self.search.optuna.get_trials(deepcopy=False)
        mine = [trials[number] for number in numbers]
        return [t for t in mine if t.state == TrialState.RUNNING and t.user_attrs.get(WORKER) == self.id]

    def _tell(self, numbers: Sequence[int]) -> list[int]:
        with self.storage.mutex(TRIALS):
            mine = [trial.number for trial in self._still_mine(numbers)]
            if len(mine) < len(numbers):
                gone = [number for number in numbers if number not in mine]
                self.say(f"trials {_range(gone)} are another worker's, or told, by now")
            self.search.tell(mine)
            self._note_end()
        return mine

    def _note_end(self) -> None:
        reason = self.search.ended()
        if reason and not self.search.optuna.user_attrs.get(ENDED):
            self.search.optuna.set_user_attr(ENDED, reason)
            self.say(reason)

    def _hand_back(self, numbers: Sequence[int], cause: str) -> None:
        """Leave trials to others; a cause counts as a failure of theirs. What cannot be written is left to the lease."""
        try:
            with self.storage.mutex(TRIALS):
                for trial in self._still_mine(numbers):
                    if cause:
                        self._mark(trial, CAUSES, [*trial.user_attrs.get(CAUSES, []), f"{self.id}: {cause}"])
                    self._mark(trial, WORKER, "")
        except Exception as error:
            self.say(f"could not hand the trials back ({type(error).__name__}); others take them over")

    def conclude(self, action: Callable[[], Any]) -> bool:
        """Do `action` if the study's conclusion is not drawn from its trials as they are, by this worker or another."""
        lock = self.storage.mutex("conclusion")
        if not self._patiently(lambda: lock.acquire(wait=False)):
            self.say("another worker concludes the study")
            return False
        try:
            study = self.search.optuna
            count = self._patiently(lambda: len(self.search.finished()))
            if self._patiently(lambda: study.user_attrs.get(CONCLUDED)) == count:
                return False
            action()
            self._patiently(lambda: study.set_user_attr(CONCLUDED, count))
            return True
        finally:
            lock.release()


def _silent(worker: str) -> str:
    return f"worker {worker} ended without a word (killed, or out of memory)"


def _range(numbers: Sequence[int]) -> str:
    numbers = sorted(numbers)
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))

"""The driver: the loop of every worker. Ask a batch, train it, tell it, until the study has its trials; then conclude.

A single run is one worker with its own storage; `run --workers N` and `autovae worker` run the same loop on a shared
storage. Trials are only changed under the mutex of the storage:

    take    the unfinished trials of a dead worker's batch; else as many new trials as the study still needs
    train   outside the mutex
    tell    the trials that this worker still owns; a worker that was declared dead by mistake drops its outcomes

A `Search` (`search.run.Run`) asks, trains and tells; this file does not import torch.
Not here: which worker trains which trial (`claims`), detection of dead workers (`heartbeat`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from autovae.search.workers.claims import WORKER, Exclusive, Shared
from autovae.search.workers.storage import TRIALS, StudyStorage, patiently

__all__ = ["BATCH", "CONCLUDED", "Driver", "Search"]

ENDED, CONCLUDED = "ended", "concluded"  # attributes of the study: why it ended early; trials at its conclusion
BATCH = "batch"  # attribute of a trial: the first trial of its batch


class Search(Protocol):
    """What a driver needs of a study."""

    target: int  # total number of finished trials
    batch: int  # trials trained together

    @property
    def optuna(self) -> Study: ...

    def finished(self) -> Sequence[FrozenTrial]:
        """The finished trials that count towards the target."""

    def ask(self, left: Sequence[FrozenTrial], count: int) -> Sequence[int]:
        """Resume the running trials `left`, filled up to `count` with new ones; returns the numbers of all of them."""

    def train(self) -> None:
        """Train the last batch."""

    def tell(self, numbers: Sequence[int]) -> None:
        """Tell the outcomes of the trials in `numbers`, in trial order."""

    def ended(self) -> str:
        """Why the search ends before its target, or an empty string."""


class Driver:
    """One worker. `name` identifies it in a shared storage, `expected` workers share the remaining trials."""

    def __init__(
        self,
        search: Search,
        storage: StudyStorage,
        name: str = "",
        say: Callable[[str], Any] = lambda _: None,
        poll: float = 1.0,
        expected: int = 1,
    ) -> None:
        self.search, self.storage, self.say, self.poll, self.expected = search, storage, say, poll, expected
        heartbeat = storage.heartbeat_of(search.optuna) if storage.heartbeat_of else None
        self.claims: Exclusive | Shared = Shared(search.optuna, heartbeat, name, say) if heartbeat else Exclusive()
        self.ended = ""  # why the search ended before its target, once it is known
        self.patiently(self._register)

    def patiently(self, action: Callable[[], Any]) -> Any:
        """The result of `action`, retried while the storage is unavailable."""
        return patiently(action, self.say, self.storage.patience)

    def _register(self) -> None:
        with self.storage.mutex(TRIALS):
            self.claims.register()

    def run(self) -> int:
        """Work until the study needs no further trials. Returns the number of trials told by this worker."""
        told = 0
        with self.claims.alive():
            self.say(f"worker {self.claims.id} joins")
            while (numbers := self.patiently(self._take)) is not None:
                if numbers:
                    told += self._work(numbers)
                else:
                    time.sleep(self.poll)  # other workers are training; if one dies, take over its trials
            self.say(f"worker {self.claims.id} leaves: nothing is left to do; it told {told} trials")
        return told

    def _work(self, numbers: Sequence[int]) -> int:
        self.say(f"trials {_range(numbers)} begin")
        began = time.monotonic()
        try:
            self.search.train()
            told = self.patiently(lambda: self._tell(numbers))
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            cause = "" if stopped else " ".join(f"{type(error).__name__}: {error}".split())
            self.say(f"trials {_range(numbers)} stop{': ' + cause if cause else ', and go back to the queue'}")
            self._hand_back(numbers, cause)
            raise
        seconds = time.monotonic() - began
        self.say(f"trials {_range(told)} are told after {seconds:.1f} s" if told else "nothing to tell")
        return len(told)

    def _take(self) -> Sequence[int] | None:
        """Numbers of trials to train; empty if there are none at present, None if the search is over."""
        with self.storage.mutex(TRIALS):
            trials = self.search.optuna.get_trials(deepcopy=False)
            busy, free = self.claims.split([t for t in trials if t.state == TrialState.RUNNING])
            left = [t for t in free if t.user_attrs.get(BATCH) in (free[0].user_attrs.get(BATCH), None)]
            missing = self.search.target - len(self.search.finished()) - len(busy) - len(free) + len(left)
            if not left and (missing <= 0 or self._is_over()):
                return [] if busy else None
            workers = len({t.user_attrs.get(WORKER) for t in busy}) + 1
            share = min(self.search.batch, math.ceil(missing / max(workers, self.expected)))
            # a batch that was claimed before is complete and is trained unchanged
            numbers = self.search.ask(left, 0 if any(WORKER in t.user_attrs for t in left) else share)
            if numbers:
                self.claims.claim(self._trials(numbers))
            return numbers

    def _trials(self, numbers: Sequence[int]) -> list[FrozenTrial]:
        trials = self.search.optuna.get_trials(deepcopy=False)
        return [trials[number] for number in numbers]

    def _is_over(self) -> bool:
        """Whether the search ends before its target; stores the reason in the study for all workers."""
        stored = self.search.optuna.user_attrs.get(ENDED)
        self.ended = stored or self.search.ended()
        if self.ended and not stored:
            self.search.optuna.set_user_attr(ENDED, self.ended)
            self.say(self.ended)
        return bool(self.ended)

    def _still_mine(self, numbers: Sequence[int]) -> list[FrozenTrial]:
        return [t for t in self._trials(numbers) if t.state == TrialState.RUNNING and self.claims.is_mine(t)]

    def _tell(self, numbers: Sequence[int]) -> list[int]:
        with self.storage.mutex(TRIALS):
            mine = [trial.number for trial in self._still_mine(numbers)]
            if len(mine) < len(numbers):
                gone = [number for number in numbers if number not in mine]
                self.say(f"trials {_range(gone)} were told or taken over by another worker")
            self.search.tell(mine)
        return mine

    def _hand_back(self, numbers: Sequence[int], cause: str) -> None:
        """Release trials to other workers. If the write fails, they take over once the heartbeat stops."""
        try:
            with self.storage.mutex(TRIALS):
                self.claims.hand_back(self._still_mine(numbers), cause)
        except Exception as error:
            self.say(f"could not release the trials ({type(error).__name__}); other workers will take them over")

    def conclude(self, action: Callable[[], Any], again: bool = False, default: int | None = None) -> bool:
        """Run `action` once for the present finished trials, by one worker; returns whether this one did.

        `again` repeats it if its files are missing here. `default` is the number of trials at the last conclusion if the
        study does not record it, as in single runs of earlier versions.
        """
        lock = self.storage.mutex("conclusion")
        if not self.patiently(lambda: lock.acquire(False)):
            self.say("another worker concludes the study")
            return False
        try:
            study = self.search.optuna
            count = self.patiently(lambda: len(self.search.finished()))
            if not again and self.patiently(lambda: study.user_attrs.get(CONCLUDED, default)) == count:
                return False
            action()
            self.patiently(lambda: study.set_user_attr(CONCLUDED, count))
            return True
        finally:
            lock.release()


def _range(numbers: Sequence[int]) -> str:
    numbers = sorted(numbers)
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))

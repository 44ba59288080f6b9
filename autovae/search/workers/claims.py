"""Claims: which worker trains which running trial, written on the trials themselves.

Exclusive   one process owns the storage: every running trial is its own, even after interruptions.
Shared      several workers: a trial carries its worker's name. The trials of a dead worker are taken over once, with
            their numbers and seeds; after a second failure the trial fails with its causes, since a trial that kills two
            workers would kill all of them. A stopped worker releases its trials, which does not count as a failure.

All methods except `alive` are called under the mutex of the trials.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autovae.search.workers.heartbeat import Heartbeat

__all__ = ["WORKER", "Exclusive", "Shared"]

RETRIES = 1
WORKER, CAUSES = "worker", "causes"  # attributes of a trial; WORKER is "" on a released trial


class Exclusive:
    """One process owns the storage. Same methods as `Shared`."""

    id = "alone"

    def alive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def register(self) -> None:
        return None

    def split(self, running: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        return [], list(running)

    def claim(self, trials: Sequence[FrozenTrial]) -> None:
        return None

    def is_mine(self, trial: FrozenTrial) -> bool:
        return True

    def hand_back(self, trials: Sequence[FrozenTrial], cause: str) -> None:
        return None


class Shared:
    """Claims of the worker `name`; a restart under the same name is another worker with a new `id`."""

    def __init__(self, study: optuna.Study, heartbeat: Heartbeat, name: str, say: Callable[[str], Any]) -> None:
        self.study, self.heartbeat, self.say = study, heartbeat, say
        self.name, self.id = name or f"{socket.gethostname()}-{os.getpid()}", ""

    def alive(self) -> contextlib.AbstractContextManager[None]:
        """Keep the heartbeat of this worker for the length of a `with` block."""
        return self.heartbeat.beat(self.id)

    def register(self) -> None:
        """Take an id that was never used."""
        key = f"worker:{self.name}"
        starts = self.study.user_attrs.get(key, {}).get("starts", 0) + 1
        self.study.set_user_attr(key, {"starts": starts, "host": socket.gethostname(), "pid": os.getpid()})
        self.id = f"{self.name}.{starts}"

    def split(self, running: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """(trials of other workers, free trials); trials with too many failures fail."""
        orphans = [trial for trial in running if self._is_orphan(trial)]
        numbers = {trial.number for trial in orphans}
        free = [trial for trial in orphans if not self._fails(trial)]
        return [trial for trial in running if trial.number not in numbers], free

    def claim(self, trials: Sequence[FrozenTrial]) -> None:
        for trial in trials:
            causes = self._causes(trial)
            if causes != trial.user_attrs.get(CAUSES, []):
                self._mark(trial, CAUSES, causes)
                self.say(f"trial {trial.number} is taken over: {causes[-1]}")
            self._mark(trial, WORKER, self.id)

    def is_mine(self, trial: FrozenTrial) -> bool:
        return trial.user_attrs.get(WORKER) == self.id

    def hand_back(self, trials: Sequence[FrozenTrial], cause: str) -> None:
        """Release claimed trials; a non-empty cause counts as a failure."""
        for trial in trials:
            if cause:
                self._mark(trial, CAUSES, [*trial.user_attrs.get(CAUSES, []), f"{self.id}: {cause}"])
            self._mark(trial, WORKER, "")

    def _mark(self, trial: FrozenTrial, key: str, value: Any) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, key, value)

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        """Whether a trial was released, left by a dead worker, or never claimed because its worker died while asking."""
        worker = trial.user_attrs.get(WORKER)
        return not worker or worker == self.id or self.heartbeat.is_dead(worker)

    def _causes(self, trial: FrozenTrial) -> list[str]:
        """Why workers failed on a trial, each cause once, including the death of its present worker."""
        worker = trial.user_attrs.get(WORKER)
        gone = worker not in (None, "", self.id)
        died = [f"worker {worker} died (killed, or out of memory)"] if gone else []
        return list(dict.fromkeys([*trial.user_attrs.get(CAUSES, []), *died]))

    def _fails(self, trial: FrozenTrial) -> bool:
        """Fail an orphan with too many failures; returns whether it did."""
        causes = self._causes(trial)
        if len(causes) <= RETRIES:
            return False
        reason = f"its worker failed {len(causes)} times: {'; '.join(causes)}"
        self._mark(trial, CAUSES, causes)
        self._mark(trial, "reason", reason)
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        self.say(f"trial {trial.number} fails: {reason}")
        return True

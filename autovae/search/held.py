"""A storage that is asked less: while this process holds the study's mutex, nobody else changes trials, so they are read once.

Optuna reads the trials of a database anew at every question, several times for each trial that is asked or told. Under
the mutex these reads can have one answer alone; a `HeldStorage` remembers it, and what it writes it writes to the
database first and then to its memory. With the mutex the memory goes, so what others did in between is always seen.

    storage = HeldStorage(backend)
    with storage.under(lock):       # the lock under which all workers change trials
        study.ask()

A study's attributes are never remembered: workers beat there without the mutex.
The mutex may be lost while it is held, where its server restarts; the memory is old then. `guard` is told of every
transaction that the holder begins, to refuse those (`storage` connects the two).
Not here: who holds which lock (`storage`).
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autovae.search.locks import AdvisoryLock, Lock

__all__ = ["HeldStorage"]


class HeldStorage(BaseStorage):
    """`backend` with a memory for the trials, which lives as long as the lock is held."""

    def __init__(self, backend: BaseStorage) -> None:
        self.backend = backend
        self._studies: dict[int, dict[int, FrozenTrial]] | None = None  # by study and trial id; None where not held
        self._held: tuple[Lock, int] | None = None  # the lock, and the thread that holds it: others need it not

    def under(self, lock: Lock) -> Lock:
        """`lock`, with which the memory begins and ends."""
        return _Under(lock, self)

    def remember(self, lock: Lock) -> None:
        self._studies, self._held = {}, (lock, threading.get_ident())

    def forget(self) -> None:
        self._studies = self._held = None

    def guard(self, connection: Any) -> None:
        """Check a lock that can be lost, in a transaction that its holder begins. Raises `LockLost`."""
        lock, thread = self._held or (None, 0)
        if isinstance(lock, AdvisoryLock) and thread == threading.get_ident():
            lock.check(connection)

    # ----------------------------------------------------------------------------------------------------------- trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if self._studies is None:
            return self.backend.get_all_trials(study_id, deepcopy, states)
        if study_id not in self._studies:
            found = self.backend.get_all_trials(study_id, deepcopy=False)
            self._studies[study_id] = {trial._trial_id: trial for trial in found}
        trials = [t for t in self._studies[study_id].values() if states is None or t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        for trials in (self._studies or {}).values():
            if trial_id in trials:
                return copy.deepcopy(trials[trial_id])
        return self.backend.get_trial(trial_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = self.backend.create_new_trial(study_id, template_trial)
        if self._studies is not None and study_id in self._studies:
            self._studies[study_id][trial_id] = self.backend.get_trial(trial_id)  # the database numbers trials
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self.backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        if (trial := self._changed(trial_id)) is not None:
            trial.distributions = {**trial.distributions, param_name: distribution}
            trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        done = self.backend.set_trial_state_values(trial_id, state, values)
        if not done and self._studies is not None:
            self._studies = {}  # another process had it: the lock was lost
        elif (trial := self._changed(trial_id)) is not None:
            trial.state = state
            if values is not None:
                trial.values = list(values)
            if state == TrialState.RUNNING:
                trial.datetime_start = datetime.now()
            if state.is_finished():
                trial.datetime_complete = datetime.now()
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self.backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
        if (trial := self._changed(trial_id)) is not None:
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.backend.set_trial_user_attr(trial_id, key, value)
        if (trial := self._changed(trial_id)) is not None:
            trial.user_attrs = {**trial.user_attrs, key: json.loads(json.dumps(value))}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.backend.set_trial_system_attr(trial_id, key, value)
        if (trial := self._changed(trial_id)) is not None:
            trial.system_attrs = {**trial.system_attrs, key: json.loads(json.dumps(value))}

    def _changed(self, trial_id: int) -> FrozenTrial | None:
        """The remembered trial, to be changed: in a copy, as whoever got it before keeps it as it was."""
        for trials in (self._studies or {}).values():
            if trial_id in trials:
                trials[trial_id] = copy.copy(trials[trial_id])
                return trials[trial_id]
        return None

    # ---------------------------------------------------------------------------------------------------------- studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self.backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self.backend.delete_study(study_id)
        (self._studies or {}).pop(study_id, None)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.backend.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        return self.backend.get_all_studies()

    def remove_session(self) -> None:
        self.backend.remove_session()


class _Under:
    """A lock whose holder remembers."""

    def __init__(self, lock: Lock, storage: HeldStorage) -> None:
        self.lock, self.storage = lock, storage

    def acquire(self, wait: bool = True) -> bool:
        if not self.lock.acquire(wait):
            return False
        self.storage.remember(self.lock)
        return True

    def release(self) -> None:
        self.storage.forget()
        self.lock.release()

    def __enter__(self) -> _Under:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

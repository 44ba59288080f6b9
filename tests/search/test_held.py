"""A storage with a memory passes Optuna's own contract tests while it is held; what is read then is what was written."""

import optuna
import pytest
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from autovae.search.held import HeldStorage
from autovae.search.locks import FileLock


class Counted(optuna.storages.InMemoryStorage):
    """Counts how often all trials are read."""

    reads = 0

    def get_all_trials(self, *args, **kwargs):
        self.reads += 1
        return super().get_all_trials(*args, **kwargs)


class TestHeld(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path):
        held = HeldStorage(optuna.storages.InMemoryStorage())
        with held.under(FileLock(tmp_path / "lock")):
            yield held


def search(study):
    """What a batch does to a storage: ask, choose, mark, report, tell."""
    asked = [study.ask() for _ in range(4)]
    for trial in asked:
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("pair", ["normal|normal", "laplace|laplace"])
        trial.set_user_attr("rungs", [(1, (0.5,))])
        trial.report(0.5, 1)
    study.tell(asked[0], 1.0)
    study.tell(asked[1], state=TrialState.FAIL)
    study.tell(asked[2], state=TrialState.PRUNED)


def plain(trial):
    """A trial without its times: the database's clock is read a moment apart."""
    return {key: value for key, value in vars(trial).items() if "datetime" not in key}


def test_what_is_read_while_it_is_held_is_what_is_written(tmp_path):
    backend = optuna.storages.get_storage(f"sqlite:///{tmp_path / 'x.db'}")
    held = HeldStorage(backend)
    study = optuna.create_study(storage=held, sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=1))
    study.enqueue_trial({"x": 0.25})
    for _ in range(2):
        with held.under(FileLock(tmp_path / "lock")):
            search(study)
            seen = study.get_trials()
        assert [plain(t) for t in seen] == [plain(t) for t in backend.get_all_trials(study._study_id)]
        assert [t.state.is_finished() for t in seen[-4:]] == [True, True, True, False]


def test_while_it_is_held_the_trials_are_read_once(tmp_path):
    backend = Counted()
    held = HeldStorage(backend)
    study = optuna.create_study(storage=held)
    search(study)
    assert backend.reads > 4
    backend.reads = 0
    with held.under(FileLock(tmp_path / "lock")):
        search(study)
        assert backend.reads == 1


def test_what_others_did_in_between_is_seen(tmp_path):
    backend = optuna.storages.InMemoryStorage()
    held = HeldStorage(backend)
    mine = optuna.create_study(storage=held, study_name="s")
    others = optuna.load_study(study_name="s", storage=backend)
    lock = held.under(FileLock(tmp_path / "lock"))
    with lock:
        mine.ask()
    others.ask()
    assert len(mine.get_trials()) == 2
    with lock:
        assert len(mine.get_trials()) == 2
        before = mine.get_trials(deepcopy=False)[0]
        mine.tell(0, 1.0)
        assert before.state == TrialState.RUNNING, "what was read before stays as it was"
        assert mine.get_trials(deepcopy=False)[0].state == TrialState.COMPLETE


def test_a_trial_that_another_process_took_although_it_is_held_is_read_anew(tmp_path):
    """A server that went down let go of the lock."""
    backend = optuna.storages.get_storage(f"sqlite:///{tmp_path / 'x.db'}")
    held = HeldStorage(backend)
    study = optuna.create_study(storage=held)
    study.enqueue_trial({})
    with held.under(FileLock(tmp_path / "lock")):
        (trial,) = study.get_trials(deepcopy=False)
        assert backend.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        assert not held.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        assert study.get_trials()[0].state == TrialState.RUNNING

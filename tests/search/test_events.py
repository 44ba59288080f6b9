"""What a search tells the outside."""

import numpy as np
import pytest

from autovae.search.events import LOGGERS, Event, logger
from autovae.search.run import Run
from autovae.search.study import load_study

SPACE = '[parameters.pair]\nposteriors = ["normal", "laplace"]\npriors = ["normal", "laplace"]\n'
STUDY = """
purpose = "a look"
data = "digits"
space = "space.toml"
trials = 3
batch = 2
[training]
latent_dim = 2
hidden = [8]
epochs = 2
batch_size = 400
[score]
samples = 2
points = 50
final_samples = 4
[finals]
top = 1
seeds = 2
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "space.toml").write_text(SPACE)
    (tmp_path / "told.toml").write_text(STUDY)
    return load_study(tmp_path / "told.toml")


def test_every_trained_trial_and_the_end_are_told_once(study, tmp_path):
    heard = []
    Run(study, tmp_path / "results", on_event=heard.append).execute()
    assert [event.kind for event in heard] == ["trial"] * 3 + ["end"]
    assert [event.values["number"] for event in heard[:3]] == [0, 1, 2]
    assert all(len(event.losses) == 2 and event.values["score"] > 0 for event in heard[:3])
    assert heard[-1].values["sentence"]


def test_tensorboard_holds_the_scores(study, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = Run(study, tmp_path / "results")
    job.on_event = logger("tensorboard", job.folder.path, study.name)
    assert not job.folder.path.exists()
    scores = [1.5, 1.25]
    for number, score in enumerate(scores):
        job.on_event(Event("trial", {"number": number, "score": score, "posterior": "normal"}, [3.0, 2.0]))
    job.on_event(Event("end", {"sentence": "nothing beats it"}))
    read = EventAccumulator(str(job.folder.path / "tensorboard"))
    read.Reload()
    assert [point.value for point in read.Scalars("trials/score")] == scores


def test_mlflow_holds_a_run_a_trial(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    listen = logger("mlflow", tmp_path, "told")
    listen(Event("trial", {"number": 0, "score": 1.5, "posterior": "normal"}, [3.0]))
    (run,) = mlflow.search_runs(experiment_names=["told"], output_format="list")
    assert run.data.metrics["score"] == 1.5
    assert run.data.params["posterior"] == "normal"


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    listen = logger("wandb", tmp_path, "told")
    listen(Event("trial", {"number": 0, "score": 1.5, "posterior": "normal"}, [3.0]))
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_an_unknown_tracker_is_an_error_that_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="tensorboard"):
        logger("tensorbord", tmp_path, "x")
    assert set(LOGGERS) == {"tensorboard", "mlflow", "wandb"}


def test_an_objective_that_cannot_be_had_is_refused_before_anything_is_trained(study, tmp_path):
    (tmp_path / "kid.toml").write_text(STUDY.replace("samples = 2", 'samples = 2\nalso = ["kid"]'))
    np.savez(tmp_path / "mine.npz", x=np.random.default_rng(0).random((60, 8, 8)))
    with pytest.raises(ValueError, match="needs labels"):
        Run(load_study(tmp_path / "kid.toml"), tmp_path / "results", dataset=str(tmp_path / "mine.npz"))


def test_two_objectives_prune_and_end_in_a_table(tmp_path):
    (tmp_path / "space.toml").write_text(
        SPACE + "[parameters.width]\nchoices = [4, 8]\n[parameters.depth]\nlow = 1\nhigh = 2\n"
    )
    text = STUDY.replace("hidden = [8]\n", "").replace("samples = 2", 'samples = 2\nalso = ["parameters"]', 1)
    text = text.replace("trials = 3", "trials = 6").replace("batch = 2\n", 'batch = 3\nsampler = "nsga2"\n', 1)
    (tmp_path / "two.toml").write_text(text + "[pruning]\nrungs = [1]\n")
    job = Run(load_study(tmp_path / "two.toml"), tmp_path / "results")
    job.execute()
    rows = job.trials.rows()
    assert {row["state"] for row in rows} == {"COMPLETE", "PRUNED"}
    assert all(row["parameters"] > 0 for row in rows if row["state"] == "COMPLETE")

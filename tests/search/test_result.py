"""The results folder: whoever comes first makes it, and workers that come at the same moment agree."""

import threading
from pathlib import Path

import pytest

from autovae.search.result import ResultsError, ResultsFolder

STUDY = {"purpose": "none", "seed": 0}


def test_workers_that_begin_at_the_same_moment_share_a_folder(tmp_path):
    """Each opens the folder and writes a table at once, as workers do; none may take another's files for a stranger's."""
    failures = []

    def begin(folder, barrier):
        barrier.wait()
        try:
            folder.open(STUDY, 4)
            folder.write_table("trials.csv", [{"number": 0}])
        except ResultsError as error:
            failures.append(error)

    for attempt in range(20):
        barrier = threading.Barrier(6)
        folder = ResultsFolder(tmp_path / str(attempt))
        workers = [threading.Thread(target=begin, args=(folder, barrier)) for _ in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not failures, failures


def test_files_that_appear_between_two_looks_are_no_strangers(tmp_path, monkeypatch):
    folder, look = ResultsFolder(tmp_path / "study"), Path.is_file

    def looked(path):
        """Right after the look another worker has made the folder and written its files."""
        found = look(path)
        if path == folder.study_file and not found:
            monkeypatch.undo()
            ResultsFolder(folder.path).open(STUDY, 4)
            folder.write_table("trials.csv", [{"number": 0}])
        return found

    monkeypatch.setattr(Path, "is_file", looked)
    folder.open(STUDY, 4)
    assert {entry.name for entry in folder.path.iterdir()} == {"study.toml", "trials.csv"}


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match="not empty and has no study"):
        ResultsFolder(tmp_path).open(STUDY, 4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "study").write_text("mine")
    with pytest.raises(ResultsError, match="cannot write"):
        ResultsFolder(tmp_path / "study").open(STUDY, 4)
    assert (tmp_path / "study").read_text() == "mine"

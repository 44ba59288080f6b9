"""Files are whole or absent: a disk that fills up leaves what was there, and the message names the file."""

import errno
import os

import pytest

from autovae.files import write_text


def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path, monkeypatch):
    path = write_text(tmp_path / "table.csv", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*table\.csv") as caught:
        write_text(path, "new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path], "no part of the new one is left"

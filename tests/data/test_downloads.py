"""Files of named sets: found in order, checked, downloaded; the failures name file, places and remedy."""

import hashlib

import pytest

from autovae.data import downloads
from autovae.data.downloads import File, fetch, locate
from autovae.data.errors import DataError

CONTENT = b"eight rows of nothing"
SHA = hashlib.sha256(CONTENT).hexdigest()
PLAIN = File("a.gz", SHA)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOVAE_DATA", raising=False)
    monkeypatch.setattr(downloads, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(downloads, "TIMEOUT", 1.0)


def put(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOVAE_DATA", str(tmp_path / "variable"))
    for place in ("cache/set", "variable", "variable/set"):
        path = put(tmp_path / place / "a.gz")
        assert fetch(PLAIN, "set") == path
    for place in ("given", "given/set"):
        path = put(tmp_path / place / "a.gz")
        assert fetch(PLAIN, "set", tmp_path / "given") == path
    assert locate(PLAIN, "set", tmp_path / "elsewhere") == tmp_path / "cache" / "set" / "a.gz"


def test_wrong_checksum_of_a_file_at_hand(tmp_path):
    path = put(tmp_path / "set" / "a.gz")
    assert fetch(PLAIN, "set", tmp_path) == path
    put(path, CONTENT[:-3])
    with pytest.raises(DataError, match=rf"a\.gz: got sha256 .*, expected {SHA} of set; .*--data") as caught:
        fetch(PLAIN, "set", tmp_path)
    assert "\n" not in str(caught.value)


def test_download_from_the_first_mirror_that_answers(tmp_path):
    gone, there = (tmp_path / "nothing" / "a.gz").as_uri(), put(tmp_path / "mirror" / "a.gz").as_uri()
    path = fetch(File("a.gz", SHA, (gone, there)), "set", tmp_path / "given")
    assert path == tmp_path / "cache" / "set" / "a.gz"
    assert path.read_bytes() == CONTENT
    assert not (tmp_path / "given").exists()


def test_download_with_a_wrong_checksum_is_refused_and_not_kept(tmp_path):
    mirror = put(tmp_path / "mirror" / "a.gz", b"another content").as_uri()
    with pytest.raises(DataError, match=rf"wrong checksum, expected sha256 {SHA}"):
        fetch(File("a.gz", SHA, (mirror,)), "set")
    assert not (tmp_path / "cache" / "set" / "a.gz").exists()


def test_unreachable_mirror_is_one_clear_line(tmp_path):
    file = File("a.gz", SHA, ("http://127.0.0.1:9/a.gz",))  # the discard port: refused at once
    with pytest.raises(DataError) as caught:
        fetch(file, "set", tmp_path / "given")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("set: a.gz is not in", str(tmp_path / "given"), str(tmp_path / "cache"), "127.0.0.1:9", "--data"):
        assert part in message


def test_missing_page_says_its_status(tmp_path):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.handle_request, daemon=True).start()
    with pytest.raises(DataError, match="HTTP status 404"):
        fetch(File("a.gz", SHA, (f"http://127.0.0.1:{server.server_port}/a.gz",)), "set")
    server.server_close()

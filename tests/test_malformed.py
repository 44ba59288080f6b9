"""Malformed files, mutated from good ones: one line and exit code 2 (or success, where the change is harmless), never a
traceback, and no code that a file brings along is run.

Each kind of file is changed in two ways: as text or bytes (cut, repeated, replaced, flipped), and as values (a leaf of the
parsed file becomes something else). The examples are the same in every run.
"""

import copy
import io
import json
import os
import pickle
import shutil
import tomllib
import zipfile

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autovae.cli import main

STUDY = """
purpose = "x"
data = "mnist"
space = "space.toml"
trials = 8
batch = 4
sampler = "tpe"
baselines = ["normal"]
[training]
epochs = 2
latent_dim = 3
hidden = [8]
[score]
samples = 2
points = 20
[pruning]
rungs = [1]
keep = 0.5
[finals]
top = 1
seeds = 2
"""
SPACE = """
purpose = "x"
[parameters.pair]
posteriors = ["normal", "logistic"]
priors = ["normal", "laplace"]
[parameters.likelihood]
choices = ["bernoulli", "normal"]
[parameters.learning_rate]
low = 1e-4
high = 1e-2
log = true
[fixed]
alpha = 1.0
"""

CANARY = "autovae-canary"  # a folder that no file may make


class Payload:
    def __reduce__(self):
        return os.mkdir, (CANARY,)


ODD = [
    None, True, False, 0, -1, 1, 10**6, -(10**30), 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "\x00", "normal",
    "nope",
    "../../../etc/passwd", "__import__('os').mkdir('autovae-canary')", "é" * 50, [], [[]], [1, "a"], {}, {"a": {"b": 1}}, [None],
    {"posterior": 3}, ["normal"] * 40,
]  # fmt: skip
SNIPPETS = [
    "",
    "=",
    "[",
    "]]",
    "[[x]]",
    "{",
    '"',
    "'''",
    "\x00",
    "nan",
    "-1",
    "1e999",
    "99999999999999999999",
    "\n\n[training]\n",
    "é",
    "# ",
]
many = settings(
    max_examples=int(os.environ.get("AUTOVAE_FUZZ", 25)),  # of each kind; more by hand
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def call(capfd, tmp_path, monkeypatch):
    """Run a command; bad input ends in exit code 2 and one line, and nothing that a file says is run."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, error = capfd.readouterr()
        assert code in (0, 2), (code, error)
        assert "Traceback" not in out + error
        assert not (tmp_path / CANARY).exists(), "a file ran code"
        if code == 2:
            assert error.strip(), "no word on what is wrong"
            assert len(error.strip().splitlines()[-1]) < 2000
        return code

    return run


@st.composite
def edits(draw, size):
    """A cut or a replacement of a part of `size` characters: (start, end, index of what comes instead)."""
    start = draw(st.integers(0, size))
    return start, min(size, start + draw(st.integers(0, 12))), draw(st.integers(0, len(SNIPPETS) - 1))


def edited(text, changes):
    for start, end, snippet in changes:
        text = text[:start] + SNIPPETS[snippet] + text[end:]
    return text


def leaves(value, path=()):
    """Every place in a nest of plain values, the nests themselves included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def replaced(value, path, new):
    """A copy with another value at a place; nothing at all there where `new` is the word for it."""
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is Ellipsis:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


def places(value):
    return st.sampled_from([path for path in leaves(value) if path])


odd = st.sampled_from([*ODD, Ellipsis])


def without_none(value):
    if isinstance(value, dict):
        return {str(key): without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_none(item) for item in value if item is not None]
    return value


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path / "study.toml"


def planned(call, study):
    """A plan of a study whose data are not there: nothing is loaded, trained or timed."""
    return call("run", study, "--plan", "--data", study.parent)


def test_the_good_files_are_good(call, study):
    assert planned(call, study) == 0


@pytest.mark.parametrize(("name", "good"), [("study.toml", STUDY), ("space.toml", SPACE)])
def test_study_and_space_files_edited_as_text(call, study, tmp_path, name, good):
    @many
    @given(st.lists(edits(len(good)), min_size=1, max_size=3))
    def check(changes):
        (tmp_path / name).write_text(edited(good, changes), encoding="utf-8")
        planned(call, study)

    check()


@pytest.mark.parametrize(("name", "good"), [("study.toml", STUDY), ("space.toml", SPACE)])
def test_study_and_space_files_with_odd_values(call, study, tmp_path, name, good):
    values = tomllib.loads(good)

    @many
    @given(places(values), odd)
    def check(place, new):
        (tmp_path / name).write_text(tomli_w.dumps(without_none(replaced(values, place, new))), encoding="utf-8")
        planned(call, study)

    check()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small VAE as `export` writes it."""
    from autovae.data.datasets import load
    from autovae.export.card import save_vae
    from autovae.model.vae import build
    from autovae.spec import VAESpec

    x = np.random.default_rng(0).integers(0, 4, (40, 3, 3)).astype(np.uint8)
    data = load(x, levels=4)
    folder = tmp_path_factory.mktemp("prior")
    return save_vae(build(VAESpec(latent_dim=2, hidden=(4,)), data.domain), data, folder / "prior")


@pytest.fixture
def prior(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "prior")
    return tmp_path / "prior"


def sampled(call, prior):
    return call("sample", prior, "-n", 2, "--to", prior.parent / "x.npz")


def test_cards_edited_as_text(call, prior, tmp_path):
    good = (prior / "card.json").read_text()
    assert sampled(call, prior) == 0

    @many
    @given(st.lists(edits(len(good)), min_size=1, max_size=3))
    def check(changes):
        (prior / "card.json").write_text(edited(good, changes), encoding="utf-8")
        sampled(call, prior)

    check()


def test_cards_with_odd_values(call, prior):
    values = json.loads((prior / "card.json").read_text())

    @many
    @given(places(values), odd)
    def check(place, new):
        (prior / "card.json").write_text(json.dumps(replaced(values, place, new)), encoding="utf-8")
        sampled(call, prior)

    check()


@st.composite
def damages(draw, size):
    """What happens to the bytes of a file: (kind, place, value)."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
    return kind, draw(st.integers(0, max(0, size - 1))), draw(st.integers(1, 255))


def damaged(content, damage):
    kind, place, value = damage
    if kind == "cut":
        return content[:place]
    if kind == "insert":
        return content[:place] + bytes([value]) * value + content[place:]
    if kind == "zero":
        return content[:place] + bytes(value) + content[place + value :]
    return content[:place] + bytes([content[place] ^ value]) + content[place + 1 :]


def test_damaged_weights(call, prior):
    path = prior / "model.safetensors"
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")

    @many
    @given(st.one_of(damages(header), damages(len(good))))
    def check(damage):
        path.write_bytes(damaged(good, damage))
        sampled(call, prior)

    check()


def test_weights_that_are_a_pickle_are_not_unpickled(call, prior):
    (prior / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    assert sampled(call, prior) == 2


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def scored(call, prior, path):
    return call("score", prior, path, "-k", 2, "--points", 3, "--split", "test")


def test_damaged_data(call, prior, tmp_path):
    path = tmp_path / "mine.npz"
    x = np.random.default_rng(0).integers(0, 4, (40, 3, 3)).astype(np.uint8)
    good = npz(x=x, y=np.arange(40) % 3, levels=4)
    path.write_bytes(good)
    assert scored(call, prior, path) == 0

    @many
    @given(damages(len(good)))
    def check(damage):
        path.write_bytes(damaged(good, damage))
        scored(call, prior, path)

    check()


X = np.zeros((40, 3, 3), np.uint8)
WRONG = {
    "no x": {"z": X},
    "x of text": {"x": np.array([["a"] * 3] * 40)},
    "x without points": {"x": X[:0]},
    "x a number": {"x": np.array(3)},
    "x of one axis": {"x": np.arange(40.0)},
    "x complex": {"x": X.astype(complex)},
    "x of dates": {"x": np.full((40, 3, 3), np.datetime64("2020-01-01"))},
    "x not finite": {"x": np.full((40, 3, 3), np.inf)},
    "x of another shape": {"x": np.zeros((40, 5), np.uint8)},
    "x below zero": {"x": X.astype(int) - 5},
    "x a record": {"x": np.zeros(40, [("a", "f4"), ("b", "f4")])},
    "y too short": {"x": X, "y": np.arange(3)},
    "y of text": {"x": X, "y": np.array(["a"] * 40)},
    "mask of another shape": {"x": X, "mask": np.ones((2, 2))},
    "mask not binary": {"x": X, "mask": np.full(X.shape, 7)},
    "length negative": {"x": X, "length": np.full(40, -3)},
    "levels many": {"x": X, "levels": np.array([1, 2, 3])},
    "levels text": {"x": X, "levels": np.array("four")},
    "levels zero": {"x": X, "levels": 0},
    "levels huge": {"x": X, "levels": 10**12},
    "levels too few": {"x": X + 9, "levels": 4},
    "levels not a number": {"x": X, "levels": float("nan")},
}


@pytest.mark.parametrize("kind", WRONG)
def test_data_with_odd_arrays(call, prior, tmp_path, kind):
    path = tmp_path / "mine.npz"
    path.write_bytes(npz(**WRONG[kind]))
    scored(call, prior, path)


@pytest.mark.parametrize("how", ["object array", "bare pickle", "pickle in the archive"])
def test_data_that_are_a_pickle_are_not_unpickled(call, prior, tmp_path, how):
    path = tmp_path / "mine.npz"
    content = pickle.dumps(Payload())
    if how == "object array":
        content = npz(x=np.array([Payload()] * 40, dtype=object))
    elif how == "pickle in the archive":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", content)
        content = file.getvalue()
    path.write_bytes(content)
    assert scored(call, prior, path) == 2

"""Results folders made by hand, and a headless Chromium driven over its debugging pipe (no extra packages)."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import tempfile
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tomli_w

from autovae.data.datasets import load
from autovae.export.card import save_vae
from autovae.model.vae import build
from autovae.report.html import build_report
from autovae.report.theme import new_figure, style
from autovae.spec import VAESpec

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars",
         "--disable-extensions", "--no-first-run", "--remote-debugging-pipe"]  # fmt: skip

SPACE = {
    "name": "pairs",
    "purpose": "A few pairs",
    "parameters": {
        "pair": {"posteriors": ["normal", "laplace", "cauchy"], "priors": ["normal", "laplace", "cauchy"]},
        "likelihood": {"choices": ["bernoulli", "continuous_bernoulli"]},
    },
    "fixed": {},
}
PAIRS = [
    ("normal", "normal"),
    ("laplace", "normal"),
    ("normal", "cauchy"),
    ("laplace", "laplace"),
    ("cauchy", "cauchy"),
]


def write_table(path, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def trial(
    number, posterior="normal", prior="normal", likelihood="bernoulli", score=None, state="COMPLETE", reason="", **more
):
    return {
        "number": number, "state": state, "score": "" if score is None else repr(score), "score_se": 0.01,
        "posterior": posterior, "prior": prior, "likelihood": likelihood, "alpha": 1.0, "latent_dim": 3, "hidden": "[8]",
        "epochs": 2, "learning_rate": 0.001, "seed": number, "seconds": 0.5, "reason": reason, **more,
    }  # fmt: skip


def some_trials(count=40, seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        pair, likelihood = PAIRS[generator.integers(5)], ("bernoulli", "continuous_bernoulli")[generator.integers(2)]
        score = 2 + 0.3 * (pair[1] == "cauchy") + 0.5 * (likelihood == "bernoulli") + 0.02 * generator.normal()
        rows.append(trial(number, *pair, likelihood, float(score)))
    return rows


@pytest.fixture
def trials():
    """Rows of trials.csv: trials.one(number, ...) and trials.some(count)."""
    return SimpleNamespace(one=trial, some=some_trials)


def make_results(place, rows, array=None, winners=True, finals=True, name="made"):
    """A results folder as a run leaves it, but quicker: untrained models, invented scores."""
    folder = place / name
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 17, (40, 8, 8)).astype(np.uint8) if array is None else array
    path = place / f"{name}.npz"
    np.savez(path, x=array)
    data = load(str(path))
    about = {"name": data.name, "digest": data.digest, "levels": data.levels, "path": str(path)}
    study = {
        "format": 1, "name": name, "purpose": "Made <by> hand & read?", "seed": 0, "sampler": "tpe", "batch": 4,
        "random_share": 0.3, "trials": len(rows), "data": about, "training": {"epochs": 2}, "space": SPACE,
        "score": {"metric": "bits_per_dimension", "samples": 16, "points": 1000, "final_samples": 100},
        "finals": {"top": 2, "seeds": 3},
    }  # fmt: skip
    (folder / "study.toml").write_text(tomli_w.dumps(study))
    if rows:
        write_table(folder / "trials.csv", rows)
    likelihood = "normal" if data.support == "real" else "continuous_bernoulli"
    own = {"latent_dim": 3, "hidden": (8,), "epochs": 2, "likelihood": likelihood}
    specs = [VAESpec("laplace", "normal", **own), VAESpec(**own)]
    if finals:
        write_finals(folder, specs, data)
    if winners:
        for where, spec in zip(("winners/1", "baseline"), specs, strict=True):
            save_vae(build(spec, data.domain), data, folder / where)
    return folder


@pytest.fixture
def results(tmp_path, monkeypatch):
    """results(rows, array=..., winners=..., finals=..., name=...) -> a results folder."""
    monkeypatch.setattr("autovae.report.importance.RESAMPLES", 2)
    return lambda rows, **settings: make_results(tmp_path, rows, **settings)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A whole study with its report, made once: for tests that only read."""
    folder = make_results(tmp_path_factory.mktemp("whole"), some_trials())
    build_report(folder)
    return folder


def write_finals(folder, specs, data):
    rows, generator = [], np.random.default_rng(1)
    for rank, spec, level in (
        ("1", specs[0], 2.0),
        ("2", specs[0].replace(prior="laplace"), 2.02),
        ("baseline", specs[1], 2.1),
    ):
        for seed in (11, 12, 13):
            value = level + 0.01 * generator.normal()
            test = "" if rank == "2" else value + 0.01
            rows.append(
                {
                    "rank": rank,
                    "trial": 0,
                    "belief": spec.belief,
                    "seed": seed,
                    "validation": value,
                    "test": test,
                    "samples": 100,
                }
            )
    write_table(folder / "finals.csv", rows)
    curves = [
        {"model": model, "points": 4, "alpha": alpha, "K": k, "bound": -1.0, "gap": -1 / k, "gap_error": 0.1}
        for model in ("Winner", "Baseline") for alpha in (0.0, 1.0) for k in (1, 5, 50)
    ]  # fmt: skip
    write_table(folder / "curves.csv", curves)
    gain = {"mean": 0.1, "low": 0.05, "high": 0.15, "seeds": 3, "level": 0.975}
    summary = {
        "sentence": "The winner beats the matched normal by 0.1.", "wins": True, "winner": specs[0].to_dict(),
        "baseline": specs[1].to_dict(), "gain_test": gain, "gain_validation": gain, "bound_gap": 0.003, "samples": 100,
        "levels": data.levels, "rounded": data.rounded, "data": data.describe(), "finished": "2026-11-21",
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def figure():
    """A figure with one labelled line."""
    with style():
        made = new_figure(2)
        made.subplots().plot([1, 2])
    return made


class Browser:
    """A page in headless Chromium. `problems` are console errors, exceptions and requests that leave the page."""

    def __init__(self, profile):
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()

        def descriptors():  # the protocol wants descriptors 3 and 4
            os.dup2(to_browser, 13), os.dup2(from_browser, 14)
            os.dup2(13, 3), os.dup2(14, 4)

        self.process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            close_fds=False, preexec_fn=descriptors, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser), os.close(from_browser)
        self.out, self.into = os.fdopen(ours, "wb", buffering=0), theirs
        self.rest, self.number, self.session, self.problems, self.loaded = b"", 0, None, [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _message(self):
        while b"\0" not in self.rest:
            part = os.read(self.into, 1 << 20)
            if not part:
                raise RuntimeError("the browser went away")
            self.rest += part
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def _hear(self, message):
        method, about = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(about["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.problems.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.problems.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(
            ("file:", "data:", "about:")
        ):
            self.problems.append(f"request to {about['request']['url']}")

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        self.out.write(json.dumps(request).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._hear(message)

    def open(self, path, width=1440, height=900, dark=False):
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + 30
        while not self.loaded and time.monotonic() < until:
            self._hear(self._message())
        return self

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.out.close()
        os.close(self.into)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        made = Browser(profile)
        yield made
        made.close()

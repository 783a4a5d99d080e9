"""Buckets: the same files, corpora, checkpoints and runs as in folders, with a stand-in for Google's service.

The stand-in answers on this machine; gcsfs, Google's client and tensorstore are the real ones.
"""

import gzip
import http.server
import json
import logging
import os
import pathlib
import socket
import subprocess
import sys
import urllib.parse

import gcp_storage_emulator.exceptions
import gcp_storage_emulator.server
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from typed import SOON_COMPILED

from scalevae_jax import config
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.data.config import Data
from scalevae_jax.inference import load
from scalevae_jax.runtime import storage
from scalevae_jax.training import workdir
from scalevae_jax.training.checkpoint import BEST, LATEST, Checkpoints, Damaged, Saved
from scalevae_jax.training.log import EpochLog

ROOT = pathlib.Path(__file__).parents[2]
TEXT = {split: "".join(f"{split} {word} .\n" for word in "one two three".split()) for split in corpus.SPLITS}


class Service(http.server.HTTPServer):
    """For many connections at once."""

    request_queue_size = 512

    def handle_error(self, *_):
        """Connections that a client leaves are no news."""


class Handler(gcp_storage_emulator.server.RequestHandler):
    """Tells the generations of objects, and heeds those that a request names, as Google's service does."""

    timeout = 2  # seconds that a silent connection may hold the others up

    def _object(self) -> tuple[str, dict[str, list[str]]]:
        """Generation of the object that is asked for, 0 where there is none, and the query."""
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        _, _, name = url.path.partition("/o/")
        name = urllib.parse.unquote(name) or query.get("name", [""])[0]
        try:
            return self.storage.get_file_obj("bucket", name)["generation"], query
        except gcp_storage_emulator.exceptions.NotFound:
            return "0", query

    def _heeding(self, go_on) -> None:
        generation, query = self._object()
        wanted = query.get("ifGenerationMatch", [generation])[0]
        if wanted == generation:
            go_on()
        else:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            super().end_headers()

    def do_POST(self):  # noqa: N802 (of http.server)
        self._heeding(super().do_POST)

    def do_DELETE(self):  # noqa: N802 (of http.server)
        self._heeding(super().do_DELETE)

    def end_headers(self):
        if self.command == "GET" and (generation := self._object()[0]) != "0":
            self.send_header("x-goog-generation", generation)
        super().end_headers()


@pytest.fixture(scope="module")
def bucket():
    """Its URL, while it is there; processes that are started then see it too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("http.server.HTTPServer", Service)
        patch.setattr("gcp_storage_emulator.server.RequestHandler", Handler)
        for name, value in {
            "STORAGE_EMULATOR_HOST": address,  # of gcsfs
            "TENSORSTORE_GCS_HTTP_URL": address,  # of orbax
            "NO_GCE_CHECK": "true",
        }.items():
            patch.setenv(name, value)
        server = gcp_storage_emulator.server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
        server.start()
        yield "gs://bucket"
        server.stop()


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """A path on this machine, and one in a bucket."""
    if request.param == "folder":
        (tmp_path / "run").mkdir()
        return storage.path(tmp_path / "run")
    return storage.path(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_a_file_is_written_measured_and_replaced(place):
    path = place / "a.txt"
    storage.write(path, "naïve\n")
    assert storage.size(path) == 7
    storage.write(path, "other")
    assert path.read_text(encoding="utf-8") == "other"
    assert [found.name for found in place.iterdir()] == ["a.txt"]


def test_a_folder_is_measured_and_moved(place):
    for name in ("a", "b"):
        (place / "from" / name).mkdir(parents=True)
        (place / "from" / name / "x").write_bytes(b"123")
    assert storage.size_below(place / "from") == 6
    storage.move(place / "from", place / "damaged" / "to")
    assert not (place / "from").exists()
    assert (place / "damaged" / "to" / "b" / "x").read_bytes() == b"123"


def test_metrics_are_a_line_an_epoch_and_begin_again_where_a_life_begins(place):
    line = {"step": 3, "lr": 1.0, "kl_weight": 1.0, "seconds": 1.0, "seconds_compiling": 0.0, "tokens_per_second": 9.0}
    line |= dict.fromkeys("train_rec train_kl valid_rec valid_kl mi au au_hat factor_median".split())
    log = EpochLog(place, 1, 0)
    for epoch in (1, 2, 3):
        log.write({"epoch": epoch, **line}, 3)
    log.close()
    log = EpochLog(place, 3, 0)
    log.write({"epoch": 3, **line, "step": 4}, 3)
    log.close()
    lines = [json.loads(text) for text in (place / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 3), (3, 4)]
    assert (place / "tensorboard").exists() != storage.remote(place)


def test_other_urls_missing_packages_and_closed_buckets_are_one_line(bucket, monkeypatch):
    with pytest.raises(InputError, match=r"^ftp://a/b: a folder, or gs://BUCKET/FOLDER, is wanted$"):
        storage.path("ftp://a/b")

    def refuse(_):
        raise RuntimeError("403: no access\nand a page of it")

    monkeypatch.setattr("etils.epath.gpath.PosixGPath.iterdir", refuse)
    with pytest.raises(InputError, match=r"^gs://bucket/x: can not be read: 403: no access$"):
        storage.path(f"{bucket}/x")
    monkeypatch.setattr("etils.epath.gpath.PosixGPath.write_bytes", lambda *_: refuse(_))
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'scalevae_jax\[gcs\]'$"):
        storage.path(f"{bucket}/x")


def test_a_corpus_in_a_bucket_is_that_of_the_folder(bucket, tmp_path):
    for folder in (storage.path(tmp_path / "text"), storage.path(f"{bucket}/text")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.txt.gz").write_bytes(gzip.compress(TEXT["train"].encode()))
        for split in ("valid", "test"):
            storage.write(folder / f"{split}.txt", TEXT[split])
    texts = [
        corpus.open(Data(path=path, cache=str(tmp_path / f"cache{i}")))
        for i, path in enumerate((str(tmp_path / "text"), f"{bucket}/text"))
    ]
    assert texts[0].source.digest() == texts[1].source.digest()
    for split in corpus.SPLITS:
        local, remote = (list(text.sentences(split)) for text in texts)
        assert local == remote == [f"{split} {word} .".split() for word in "one two three".split()]
    with pytest.raises(InputError, match=r"^no such file or folder: gs://bucket/none: "):
        corpus.open(Data(path=f"{bucket}/none"))


def test_checkpoints_in_a_bucket_are_kept_read_and_set_aside(bucket):
    state = tiny.make_state(tiny.make_method("scale_vae"))
    folder = storage.path(f"{bucket}/kept")
    about = {"method": "scale_vae", "vocabulary": "13 words"}
    keeper = Checkpoints(folder, about, writing=True)
    keeper.save(BEST, state._replace(step=jnp.int32(2)))
    for step in (1, 4, 6):
        keeper.save(LATEST, state._replace(step=jnp.int32(step)))
    keeper.wait()
    assert [(saved.which, saved.step) for saved in keeper.saved()] == [(LATEST, 6), (LATEST, 4), (BEST, 2)]
    record = folder / "checkpoints/latest/6/meta/metadata"
    record.write_bytes(record.read_bytes()[:50])
    with pytest.raises(Damaged, match="its record is not readable"):
        keeper.restore(Saved(LATEST, 6), state)
    found = keeper.newest(state)
    assert found is not None
    assert int(found.step) == 4
    np.testing.assert_array_equal(tiny.flat(found.params), tiny.flat(state.params))
    assert (folder / "checkpoints/damaged/latest-6/meta/metadata").exists()
    keeper.save(LATEST, state._replace(step=jnp.int32(6)))
    keeper.close()
    reader = Checkpoints(folder, about)
    assert int(reader.only(BEST, state).step) == 2
    assert [saved.step for saved in reader.saved()] == [6, 4, 2]
    reader.close()


def _run(*line: str) -> str:
    environment = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": SOON_COMPILED, "NPROC": "8"}
    done = subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_lives_in_a_bucket(bucket, tmp_path):
    """Text and workdir are in it: the run is trained, gone on with, and used; its numbers are those of a
    folder."""
    text = storage.path(f"{bucket}/captions")
    for path in (ROOT / "scalevae_jax/data/tiny").glob("*.txt"):
        (text / path.name).write_bytes(path.read_bytes())
    arguments = [
        "--config",
        "configs/smoke.py",
        "--config.train.max_steps=12",
        "--config.data.path",
        f"{bucket}/captions",
    ]
    url = f"{bucket}/runs/one"
    command = [sys.executable, "-m"]
    train = [*command, "scalevae_jax.train", *arguments]
    _run(*train, "--config.train.max_epochs=1", "--workdir", url)
    said = _run(*train, "--config.train.max_epochs=2", "--workdir", url)
    assert "resumed in epoch 2" in said
    assert f"WARNING: {url}: nothing can be locked in a bucket" in said
    assert f"done: {url} holds config.json, vocab.txt, metrics.jsonl, checkpoints/" in said
    assert len(_run(*command, "scalevae_jax.sample", "--workdir", url, "--num", "2").splitlines()) == 2
    _run(*command, "scalevae_jax.evaluate", "--workdir", url, "--iw_samples", "2", "--limit", "20")
    run = load.load(storage.path(url))
    assert run.settings == config.from_json(storage.path(url) / workdir.CONFIG)
    assert json.loads((run.workdir / "eval_test.json").read_text())["examples"] == 20
    _run(*train, "--config.train.max_epochs=2", "--workdir", str(tmp_path / "run"))
    lines = [
        [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run.workdir, tmp_path / "run")
    ]
    for there, here in zip(*lines, strict=True):
        assert there["valid_rec"] == pytest.approx(here["valid_rec"], rel=1e-4)

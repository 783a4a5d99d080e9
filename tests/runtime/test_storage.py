"""Files in folders and in buckets, and a run that lives in a bucket, with a stand-in for Google's service.

The stand-in answers on this machine; gcsfs, Google's client and tensorstore are the real ones.
"""

import gzip
import http.server
import json
import logging
import pathlib
import urllib.parse

import gcp_storage_emulator.exceptions
import gcp_storage_emulator.server
import pytest
from process import free_port

from scalevae_jax import evaluate, sample, train
from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import storage

ROOT = pathlib.Path(__file__).parents[2]


class Service(http.server.HTTPServer):
    """Takes many connections at once."""

    request_queue_size = 512

    def handle_error(self, *_):
        """A client may leave a connection."""


class Handler(gcp_storage_emulator.server.RequestHandler):
    """Sends the generations of objects, and checks those that a request names, as Google's service does."""

    timeout = 2  # seconds that a silent connection may hold the others up

    def _object(self) -> tuple[str, dict[str, list[str]]]:
        """The generation of the requested object, 0 where there is none, and the query."""
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        _, _, name = url.path.partition("/o/")
        name = urllib.parse.unquote(name) or query.get("name", [""])[0]
        try:
            return self.storage.get_file_obj("bucket", name)["generation"], query
        except gcp_storage_emulator.exceptions.NotFound:
            return "0", query

    def _checked(self, answer) -> None:
        generation, query = self._object()
        expected = query.get("ifGenerationMatch", [generation])[0]
        if expected == generation:
            answer()
        else:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            super().end_headers()

    def do_POST(self):  # noqa: N802 (of http.server)
        self._checked(super().do_POST)

    def do_DELETE(self):  # noqa: N802 (of http.server)
        self._checked(super().do_DELETE)

    def end_headers(self):
        if self.command == "GET" and (generation := self._object()[0]) != "0":
            self.send_header("x-goog-generation", generation)
        super().end_headers()


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket."""
    port = free_port()
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


def test_a_file_is_written_whole_and_replaced(place):
    path = place / "a.txt"
    storage.write(path, "naïve\n")
    storage.write(path, "other")
    assert storage.read_text(path, 5) == "other"
    assert [each.name for each in place.iterdir()] == ["a.txt"]
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        storage.read_text(path, 4)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    storage.write(tmp_path / "a.json", "{}")
    monkeypatch.setattr(pathlib.Path, "replace", None)
    with pytest.raises(TypeError):
        storage.write(tmp_path / "a.json", "other")
    assert storage.read_json(tmp_path / "a.json") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected a JSON object"),
        ("{", "Expecting"),
        ("[" * 100_000, "recursion|Stack overflow"),
        ("\udcff", "decode"),
    ],
)
def test_a_file_that_is_no_json_object_is_named(text, message, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=rf"^{tmp_path}/a.json: cannot be read \(.*({message})"):
        storage.read_json(tmp_path / "a.json")


def test_other_urls_missing_packages_and_closed_buckets_are_one_line(bucket, monkeypatch):
    with pytest.raises(InputError, match=r"^ftp://a/b: expected a folder, or gs://BUCKET/FOLDER$"):
        storage.path("ftp://a/b")

    def refuse(_):
        raise RuntimeError("403: no access\nand a page of it")

    path = storage.path(f"{bucket}/x")
    monkeypatch.setattr("etils.epath.gpath.PosixGPath.iterdir", refuse)
    with pytest.raises(InputError, match=r"^gs://bucket/x: cannot be read: 403: no access$"):
        storage.path(f"{bucket}/x")
    monkeypatch.setattr("etils.epath.gpath.PosixGPath.write_bytes", lambda *_: refuse(_))
    with pytest.raises(OSError, match=r"403: no access: 'gs://bucket/x'$"):
        storage.write(path, "text")
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'scalevae_jax\[gcs\]'$"):
        storage.path(f"{bucket}/x")


def test_a_run_in_a_bucket_is_that_of_a_folder(bucket, tmp_path, capsys):
    """Text and workdir are in it: train, resume past a damaged checkpoint, sample and evaluate."""
    epochs = {}
    for name, place in (("folder", storage.path(tmp_path)), ("bucket", storage.path(f"{bucket}/both"))):
        text, run = place / "captions", place / "run"
        text.mkdir(parents=True, exist_ok=True)
        for path in (ROOT / "scalevae_jax/data/tiny").glob("*.txt"):
            (text / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        arguments = ["--config=smoke", "--config.data.path", str(text), "--workdir", str(run)]
        assert train.main([*arguments, "--config.train.max_epochs=2"]) == 0
        newest = max((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
        record = newest / "meta/metadata"
        record.write_bytes(record.read_bytes()[:50])
        capsys.readouterr()
        assert train.main([*arguments, "--config.train.max_epochs=3"]) == 0
        said = capsys.readouterr().out
        assert "is damaged: its record is not readable" in said
        assert (newest.parent / f"damaged-{newest.name}" / "meta/metadata").exists()
        assert "resumed in epoch 2" in said
        assert (f"WARNING: {run}: nothing can be locked in a bucket" in said) == (name == "bucket")
        assert (run / "tensorboard").exists() == (name == "folder")
        epochs[name] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert sample.main(["--workdir", str(run), "--num", "2"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert evaluate.main(["--workdir", str(run), "--iw_samples", "2", "--limit", "20"]) == 0
        assert storage.read_json(run / "eval_test_first20.json")["examples"] == 20
    for local, remote in zip(epochs["folder"], epochs["bucket"], strict=True):
        assert local["valid_rec"] == pytest.approx(remote["valid_rec"], rel=1e-6)

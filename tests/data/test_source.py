"""Where a corpus lies: files of a folder, one file, something of the package's own; and what its digest covers."""

import gzip
import re

import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.data import source
from scalevae_jax.data.config import Data


def _refused(data, *parts):
    with pytest.raises(InputError, match=".*".join(map(re.escape, parts))) as caught:
        source.find(data)
    assert "\n" not in str(caught.value)


def _write(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"a\n")


def test_a_folder_has_a_file_a_split(tmp_path):
    _write(tmp_path, "train.txt", "valid.jsonl", "test.tsv", "other.txt")
    found = source.find(Data(path=str(tmp_path)))
    assert found.files == {
        "train": tmp_path / "train.txt",
        "valid": tmp_path / "valid.jsonl",
        "test": tmp_path / "test.tsv",
    }
    assert found.seed is None


def test_a_plain_file_goes_before_a_compressed_one_and_a_bare_name_before_a_longer_one(tmp_path):
    expected = ["yahoo.train.txt", "train.tsv", "train.txt.gz", "train.txt"]
    for name in expected:
        _write(tmp_path, name)
        assert source.find(Data(path=str(tmp_path))).files["train"].name == name


def test_two_files_for_one_split_are_refused(tmp_path):
    _write(tmp_path, "yahoo.train.txt", "yelp.train.txt")
    _refused(Data(path=str(tmp_path)), str(tmp_path), "which is the train split", "yahoo.train.txt, yelp.train.txt")


def test_one_file_is_every_split(tmp_path):
    _write(tmp_path, "my.txt")
    found = source.find(Data(path=str(tmp_path / "my.txt"), split_seed=3))
    assert set(found.files.values()) == {tmp_path / "my.txt"}
    assert found.seed == 3


def test_what_is_not_there_is_said_with_the_place_to_put_it(tmp_path):
    _refused(Data(path=str(tmp_path)), f"no train.txt or train.txt.gz in {tmp_path}", "data.path=")
    _refused(Data(path=str(tmp_path / "no")), f"no such file or folder: {tmp_path / 'no'}")
    _refused(Data(path="package:nothing"), "no corpus of the package")
    _refused(Data(), "--config.data.path=")
    (tmp_path / "my.csv").write_text("a\n")
    _refused(Data(path=str(tmp_path / "my.csv")), "my.csv: ", ".txt, .tsv, .jsonl")


def test_a_corpus_of_the_paper_without_a_path_is_in_data_or_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source.find(Data(name="yahoo")).files == {}
    (tmp_path / "data/yahoo").mkdir(parents=True)
    _write(tmp_path / "data/yahoo", "yahoo.train.txt")
    assert set(source.find(Data(name="yahoo")).files) == {"train"}


def test_the_digest_covers_bytes_names_and_how_they_are_read(tmp_path):
    _write(tmp_path, "train.txt", "my.txt")
    data = Data(path=str(tmp_path))
    digests = [source.find(data).digest()]
    assert source.find(data).digest() == digests[0]
    digests += [source.find(Data(path=str(tmp_path), **other)).digest() for other in ({"raw": True}, {"field": "a"})]
    one = str(tmp_path / "my.txt")
    digests += [source.find(Data(path=one, split_seed=seed)).digest() for seed in (0, 1)]
    _write(tmp_path, "valid.txt")
    digests.append(source.find(data).digest())
    (tmp_path / "valid.txt").write_bytes(b"b\n")
    digests.append(source.find(data).digest())
    (tmp_path / "valid.txt").unlink()
    (tmp_path / "valid.txt.gz").write_bytes(gzip.compress(b"b\n"))
    digests.append(source.find(data).digest())
    assert len(set(digests)) == len(digests)


def test_an_unreadable_file_is_named(tmp_path):
    gone = source.Source("text", tmp_path, {"train": tmp_path / "train.txt"})
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'train.txt'}: can not be read")):
        gone.digest()

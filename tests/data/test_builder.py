"""Prepared corpora: whole or not at all, by what they were made of, and never TensorFlow."""

import dataclasses
import errno
import gzip
import multiprocessing
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from itertools import chain

import jax
import numpy as np
import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.data import builder, corpus, files, synthetic, vocab
from scalevae_jax.data.config import Data

SENTENCES = [f"sentence number {i} of few words" for i in range(400)]


@pytest.fixture
def folder(tmp_path):
    """Three files of SENTENCES, labelled."""
    where = tmp_path / "text"
    where.mkdir()
    for split, rows in zip(corpus.SPLITS, (SENTENCES[:300], SENTENCES[300:350], SENTENCES[350:]), strict=True):
        (where / f"{split}.txt").write_text("".join(f"{i % 3}\t{row}\n" for i, row in enumerate(rows)))
    return where


@pytest.fixture
def data(folder, tmp_path):
    return Data(path=str(folder), cache=str(tmp_path / "cache"))


def _texts(text: corpus.Corpus, split: str) -> list[str]:
    return [sentence for block, _ in text.blocks(split) for sentence in block]


def _files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_sentences_come_back_in_order_with_their_labels(data, monkeypatch):
    monkeypatch.setattr(builder, "SENTENCES", 7)
    text = corpus.open(data)
    assert _texts(text, "train") == SENTENCES[:300]
    assert [label for _, block in text.blocks("test") for label in block] == [i % 3 for i in range(50)]
    assert text.about("valid").items() >= {"sentences": 50, "labelled": True, "in_train": 0}.items()
    assert text.prepared.info.splits["train"].num_examples == -(-300 // 7)
    assert "tensorflow" not in sys.modules


def test_long_sentences_close_a_block(monkeypatch):
    monkeypatch.setattr(builder, "CHARACTERS", 10)
    records = [(None, "x" * n) for n in (4, 4, 4, 30, 1, 9, 1)]
    assert [[len(text) for _, text in block] for block in builder.blocks(iter(records))] == [
        [4, 4],
        [4],
        [30],
        [1, 9],
        [1],
    ]
    assert list(builder.blocks(iter(()))) == []


def test_it_is_prepared_once_and_anew_for_other_text(data, folder, monkeypatch):
    first = corpus.open(data)
    monkeypatch.setattr(builder.Text, "_split_generators", None)  # so that preparing fails
    assert _texts(corpus.open(data), "test") == SENTENCES[350:]
    monkeypatch.undo()
    (folder / "test.txt").write_text("1\tother text\n")
    second = corpus.open(data)
    assert _texts(second, "test") == ["other text"]
    assert _texts(first, "test") == SENTENCES[350:]
    assert first.about("test")["sha256"] != second.about("test")["sha256"]


def test_one_file_is_split_by_a_hash_and_equal_sentences_go_together(tmp_path):
    path = tmp_path / "my.txt.gz"
    rows = [f"this is sentence {i % 900} ." for i in range(1000)]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    data = Data(path=str(path), cache=str(tmp_path))
    text = corpus.open(data)
    parts = {split: _texts(text, split) for split in corpus.SPLITS}
    assert sorted(chain(*parts.values())) == sorted(rows)
    assert not set(parts["train"]) & set(parts["valid"] + parts["test"])
    assert [text.about(split)["sentences"] for split in corpus.SPLITS] == [len(part) for part in parts.values()]
    assert 850 < len(parts["train"]) < 950
    assert {split: _texts(corpus.open(data), split) for split in corpus.SPLITS} == parts
    other = corpus.open(Data(path=str(path), cache=str(tmp_path), split_seed=1))
    assert _texts(other, "test") != parts["test"]


def test_a_repair_in_a_single_file_counts_once(tmp_path):
    path = tmp_path / "my.txt"
    rows = [f"sentence {i}" for i in range(400)] + [f"\0 {i}" for i in range(30)]
    path.write_bytes("\r\n\n".join(rows).encode() + b"\n\n\n")
    text = corpus.open(Data(path=str(path), cache=str(tmp_path)))
    about = [text.about(split) for split in corpus.SPLITS]
    total = {key: sum(found.get(key, 0) for found in about) for key in ("sentences", *files.REPAIRS)}
    assert total == {"sentences": 430, "blank": 429 + 2, "crlf": 429, "control": 30}
    assert about[0]["crlf"] > about[1]["crlf"] > 0


def test_raw_text_is_lower_cased_and_cut_into_words(tmp_path):
    for split in corpus.SPLITS:
        (tmp_path / f"{split}.txt").write_text('I don\'t know it, "he" said.\n')
    text = corpus.open(Data(path=str(tmp_path), cache=str(tmp_path), raw=True))
    assert _texts(text, "train") == ["i do n't know it , `` he '' said ."]


def test_what_is_in_train_too_is_counted(data, folder):
    (folder / "test.txt").write_text(f"1\t{SENTENCES[3]}\n0\tnew\n0\t{SENTENCES[299]}\n")
    text = corpus.open(data)
    assert text.about("test")["in_train"] == 2
    assert "test: 2 of 3 sentences are in train too" in corpus.remarks(text, {})


REFUSED = {
    "empty": ("test.txt", b"", "test.txt: the file has no sentence"),
    "blank": ("valid.txt", b"\n \n\r\n", "valid.txt: the file has no sentence"),
    "not UTF-8": ("train.txt", b"1\ta\n2\t\xff\n", "train.txt: line 2: byte 3 is not UTF-8"),
    "labels in one split only": ("test.txt", b"a\nb\n", "test.txt: labels must stand in every split or in none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_split_is_refused_and_nothing_is_left(data, folder, case, tmp_path):
    name, content, message = REFUSED[case]
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        corpus.open(data)
    assert _files(tmp_path / "cache") == []


def test_a_truncated_gz_is_refused_and_nothing_is_left(data, folder, tmp_path):
    (folder / "train.txt").unlink()
    (folder / "train.txt.gz").write_bytes(gzip.compress(b"1\ta b\n" * 5000)[:-20])
    with pytest.raises(InputError, match=r"train\.txt\.gz: can not be read: .*end-of-stream"):
        corpus.open(data)
    assert _files(tmp_path / "cache") == []


def test_too_few_sentences_for_a_split_are_refused(tmp_path):
    (tmp_path / "my.txt").write_text("only one\n")
    with pytest.raises(InputError, match=r"my\.txt: too few sentences to split 90/5/5"):
        corpus.open(Data(path=str(tmp_path / "my.txt"), cache=str(tmp_path)))


def test_a_missing_split_is_refused_where_it_is_wanted(data, folder):
    (folder / "valid.txt").unlink()
    text = corpus.open(data)
    assert len(_texts(text, "test")) == 50
    with pytest.raises(InputError, match=r"no valid\.txt"):
        text.about("valid")


def test_a_file_that_changes_or_vanishes_while_it_is_read_is_refused(data, folder, tmp_path, monkeypatch):
    def read(path, found, field, change):
        yield from lines_read(path, found, field)
        change()

    lines_read = files.read_lines
    for change, message in (
        (lambda: (folder / "train.txt").write_text("1\tother\n"), "changed while it was read"),
        (lambda: (folder / "test.txt").unlink(missing_ok=True), "test.txt: can not be read"),
    ):
        monkeypatch.setattr(builder.lines, "read", lambda *of, change=change: read(*of, change))
        with pytest.raises(InputError, match=message):
            corpus.open(data)
        assert _files(tmp_path / "cache") == []


def test_a_file_that_can_not_be_written_to_its_end_leaves_nothing_half_made(data, tmp_path):
    """A limit on the size of files stands for a full disk."""
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from scalevae_jax import command
from scalevae_jax.data import corpus, options
sys.exit(command.run("test", lambda: corpus.open(options.{data}), command.flags.FlagValues(), "", argv=["test"]))
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # its file is cut, too
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2, done.stderr
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"error: {tmp_path / 'cache'}: the corpus can not be prepared there: ")
    assert "File too large" in message
    assert message.endswith("--config.data.cache=DIR")
    assert _files(tmp_path / "cache") == []


def test_a_failure_that_is_no_fault_of_the_disk_stays_a_bug(data, monkeypatch):
    monkeypatch.setattr(builder.Text, "_split_generators", None)
    with pytest.raises(TypeError):
        corpus.open(data)


def test_a_cache_that_is_no_folder_is_named(data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cache: the corpus can not be prepared there"):
        corpus.open(data)


def _prepare(data, barrier, sizes):
    barrier.wait()
    sizes.put(len(_texts(corpus.open(data), "train")))


def test_two_that_prepare_the_same_at_once_both_get_it_whole(data, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, sizes = context.Barrier(2), context.Queue()
    both = [context.Process(target=_prepare, args=(data, barrier, sizes)) for _ in range(2)]
    for process in both:
        process.start()
    assert [sizes.get(timeout=120) for _ in both] == [300, 300]
    for process in both:
        process.join()
    assert len(list((tmp_path / "cache/text").iterdir())) == 1
    assert not list((tmp_path / "cache").rglob("incomplete*"))


def test_who_is_second_to_be_done_takes_what_the_first_made(data, monkeypatch):
    finish = builder.Text.download_and_prepare

    def late(self):
        monkeypatch.setattr(builder.Text, "download_and_prepare", finish)
        corpus.open(data)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(builder.Text, "download_and_prepare", late)
    assert _texts(corpus.open(data), "test") == SENTENCES[350:]


def test_a_download_that_fails_says_what_to_do_by_hand(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builder.urllib.request, "urlopen", offline)
    with pytest.raises(InputError) as caught:
        corpus.open(Data(name="yahoo", cache=str(tmp_path)))
    message = str(caught.value)
    assert message.startswith("yahoo: the download failed (Name or service not known): ")
    for part in ("13azGlTuGdzWLCmgDmQPmvb_jcexVWX7i", "yahoo.train.txt", str(tmp_path / "data/yahoo"), "data.path=DIR"):
        assert part in message


def test_a_downloaded_archive_is_read(tmp_path, monkeypatch):
    inside = tmp_path / "extracted/yelp_data"
    inside.mkdir(parents=True)
    for split in corpus.SPLITS:
        (inside / f"yelp.{split}.txt").write_text(f"4\tthe {split} review\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builder.urllib.request, "urlopen", lambda *_, **__: nullcontext())
    monkeypatch.setattr(
        builder.tfds.download.DownloadManager, "download_and_extract", lambda *_: tmp_path / "extracted"
    )
    text = corpus.open(Data(name="yelp", cache=str(tmp_path)))
    assert _texts(text, "valid") == ["the valid review"]
    assert "Yang" in text.prepared.info.citation


@pytest.mark.parametrize("name", builder.BUILDERS)
def test_every_builder_says_what_it_is(name, tmp_path):
    info = builder.BUILDERS[name](data_dir=tmp_path, file_format="array_record").info
    assert info.name == name
    assert info.description
    assert set(info.features) >= {"text", "labels"}
    if name not in ("text", "synthetic"):
        assert info.citation
        assert info.homepage
        assert info.redistribution_info.license


def test_the_synthetic_set_keeps_component_and_z(tmp_path, monkeypatch):
    drawn = synthetic.sample(synthetic.generator(), jax.random.key(0), 30)
    parts = {split: jax.tree.map(lambda x, at=i: np.asarray(x)[at::3], drawn) for i, split in enumerate(corpus.SPLITS)}
    monkeypatch.setattr(synthetic, "splits", lambda: parts)
    monkeypatch.setattr(builder, "SENTENCES", 4)
    text = corpus.open(Data(path="package:synthetic", cache=str(tmp_path)))
    split = text.split("test", text.vocabulary())
    np.testing.assert_array_equal(split.labels, parts["test"].component)
    records = text.prepared.as_data_source("test")
    np.testing.assert_array_equal(np.concatenate([record["z"] for record in records]), parts["test"].z)
    np.testing.assert_array_equal([synthetic.tokens(row.split()) for row in _texts(text, "test")], parts["test"].tokens)


def test_preparing_prints_nothing_of_its_own(data):
    code = f"from scalevae_jax.data import corpus, options; corpus.open(options.{data})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_rows_of_a_split_are_the_encoded_sentences(data):
    text = corpus.open(data)
    words = text.vocabulary()
    split = text.split("valid", words)
    assert len(split) == 50
    for i, sentence in enumerate(SENTENCES[300:350]):
        np.testing.assert_array_equal(split[i], words.encode(sentence.split()))
    np.testing.assert_array_equal(split.lengths, 8)
    np.testing.assert_array_equal(split.labels, [i % 3 for i in range(50)])
    np.testing.assert_allclose(split.unknown, 1 / 6)
    assert len(split.first(0)) == 50
    first = split.first(2)
    assert len(first) == len(first.labels) == 2


@pytest.mark.parametrize("long", ["cut", "drop"])
def test_long_sentences_are_cut_or_dropped_and_counted(tmp_path, long):
    for split in corpus.SPLITS:
        (tmp_path / f"{split}.txt").write_text("0\ta b c d\n1\ta b c\n2\ta b\n")
    text = corpus.open(Data(path=str(tmp_path), cache=str(tmp_path), max_words=3, long=long))
    words = text.vocabulary()
    split = text.split("train", words)
    kept = {"cut": ["a b c", "a b c", "a b"], "drop": ["a b c", "a b"]}[long]
    assert [words.decode(split[i]) for i in range(len(split))] == kept
    assert list(split.labels) == {"cut": [0, 1, 2], "drop": [1, 2]}[long]
    assert split.long == 1
    done = {"cut": "cut", "drop": "left out"}[long]
    assert f"train: 1 sentences of more than 3 words {done}" in corpus.remarks(text, {"train": split})
    assert len(words) == len(vocab.SPECIALS) + 3


def test_a_split_of_nothing_but_long_sentences_is_refused_where_they_are_dropped(tmp_path):
    for split in corpus.SPLITS:
        (tmp_path / f"{split}.txt").write_text("a b c d\n")
    text = corpus.open(Data(path=str(tmp_path), cache=str(tmp_path), max_words=3, long="drop"))
    with pytest.raises(InputError, match=r"every train sentence has more than config\.data\.max_words=3"):
        text.split("train", text.vocabulary())


def test_a_vocabulary_can_be_given(data, tmp_path):
    vocab.vocabulary(["sentence", "few"]).save(tmp_path / "vocab.txt")
    given = Data(path=data.path, cache=data.cache, vocab=str(tmp_path / "vocab.txt"))
    assert corpus.open(given).vocabulary().words == (*vocab.SPECIALS, "sentence", "few")


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_the_embedded_corpus_reads(split, tmp_path):
    text = corpus.open(Data(path="package:snli", cache=str(tmp_path)))
    about = text.about(split)
    assert about["sentences"] >= 1000
    assert not about["labelled"]
    assert not about.get("in_train")


def test_a_limit_takes_the_first_sentences_of_training_and_validation_and_their_words_alone(data):
    whole, few = corpus.open(data), corpus.open(dataclasses.replace(data, limit_train=3, limit_valid=2))
    words = few.vocabulary()
    assert list(few.sentences("train")) == list(whole.sentences("train"))[:3]
    assert set(words.words[4:]) == {word for sentence in few.sentences("train") for word in sentence}
    rows = {split: few.split(split, words) for split in corpus.SPLITS}
    assert [len(rows[split]) for split in corpus.SPLITS] == [3, 2, len(whole.split("test", words))]
    assert rows["train"].unknown == 0
    assert len(rows["train"].tokens) == sum(map(len, few.sentences("train"))) + 2 * 3


def test_the_tiny_corpus_reads_with_its_labels(tmp_path):
    text = corpus.open(Data(path="package:tiny", cache=str(tmp_path)))
    assert [text.about(split)["sentences"] for split in corpus.SPLITS] == [666, 100, 100]
    assert set(text.split("test", text.vocabulary()).labels.tolist()) == {0, 1}

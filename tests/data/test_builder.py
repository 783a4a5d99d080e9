"""Prepared corpora: whole or not at all, named by what they were made of, and never with TensorFlow."""

import errno
import gzip
import re
import resource
import subprocess
import sys
from itertools import chain

import jax
import numpy as np
import pytest

from scalevae_jax.core.types import InputError
from scalevae_jax.data import builder, corpus, files, synthetic
from scalevae_jax.data.config import Data

SENTENCES = [f"sentence number {i} of few words" for i in range(400)]


@pytest.fixture
def folder(tmp_path):
    """Three labelled files of SENTENCES."""
    folder = tmp_path / "text"
    folder.mkdir()
    for split, rows in zip(corpus.SPLITS, (SENTENCES[:300], SENTENCES[300:350], SENTENCES[350:]), strict=True):
        (folder / f"{split}.txt").write_text("".join(f"{i % 3}\t{row}\n" for i, row in enumerate(rows)))
    return folder


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
    assert text.metadata("valid").items() >= {"sentences": 50, "labelled": True, "in_train": 0}.items()
    assert text.prepared.info.splits["train"].num_examples == -(-300 // 7)


def test_long_sentences_close_a_block(monkeypatch):
    monkeypatch.setattr(builder, "CHARACTERS", 10)
    lines = [(None, "x" * n) for n in (4, 4, 4, 30, 1, 9, 1)]
    lengths = [[len(text) for _, text in block] for block in builder.blocks(iter(lines))]
    assert lengths == [[4, 4], [4], [30], [1, 9], [1]]
    assert list(builder.blocks(iter(()))) == []


def test_text_is_prepared_once_and_anew_when_it_changes(data, folder, monkeypatch):
    first = corpus.open(data)
    monkeypatch.setattr(builder.Text, "_split_generators", None)  # preparing would fail
    assert _texts(corpus.open(data), "test") == SENTENCES[350:]
    monkeypatch.undo()
    (folder / "test.txt").write_text("1\tother text\n")
    second = corpus.open(data)
    assert _texts(second, "test") == ["other text"]
    assert _texts(first, "test") == SENTENCES[350:]
    assert first.metadata("test")["sha256"] != second.metadata("test")["sha256"]


def test_one_file_is_split_by_a_hash_and_equal_sentences_share_a_split(tmp_path):
    path = tmp_path / "my.txt.gz"
    rows = [f"this is sentence {i % 900} ." for i in range(1000)]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    text = corpus.open(Data(path=str(path), cache=str(tmp_path)))
    parts = {split: _texts(text, split) for split in corpus.SPLITS}
    assert sorted(chain(*parts.values())) == sorted(rows)
    assert not set(parts["train"]) & set(parts["valid"] + parts["test"])
    assert [text.metadata(split)["sentences"] for split in corpus.SPLITS] == [len(part) for part in parts.values()]
    assert 850 < len(parts["train"]) < 950
    other = corpus.open(Data(path=str(path), cache=str(tmp_path), split_seed=1))
    assert _texts(other, "test") != parts["test"]


def test_the_shares_of_a_single_file_are_given(tmp_path):
    (tmp_path / "my.txt").write_text("\n".join(f"sentence {i}" for i in range(1000)))
    text = corpus.open(Data(path=str(tmp_path / "my.txt"), cache=str(tmp_path), split="2/1/1"))
    sizes = [text.metadata(split)["sentences"] for split in corpus.SPLITS]
    np.testing.assert_allclose(sizes, [500, 250, 250], atol=50)


def test_labels_that_are_names_have_the_same_number_in_every_split(data, folder):
    for split, rows in (("train", "good\ta\nnot  bad\tb\n"), ("valid", "not bad\tc\n"), ("test", "new\td\ngood\te\n")):
        (folder / f"{split}.txt").write_text(rows)
    text = corpus.open(data)
    words = text.vocabulary()
    splits = [text.split(split, words) for split in corpus.SPLITS]
    assert [[split.label_name(label) for label in split.labels] for split in splits] == [
        ["good", "not bad"],
        ["not bad"],
        ["new", "good"],
    ]
    assert splits[0].labels.tolist() == [0, 1]
    assert splits[2].labels[1] == 0


def test_a_repair_in_a_single_file_counts_once(tmp_path):
    path = tmp_path / "my.txt"
    rows = [f"sentence {i}" for i in range(400)] + [f"\0 {i}" for i in range(300)]
    path.write_bytes("\r\n\n".join(rows).encode() + b"\n\n\n")
    text = corpus.open(Data(path=str(path), cache=str(tmp_path)))
    counts = [text.metadata(split) for split in corpus.SPLITS]
    total = {key: sum(count.get(key, 0) for count in counts) for key in ("sentences", "blank", "control")}
    assert total == {"sentences": 700, "blank": 699 + 2, "control": 300}
    assert counts[0]["control"] > counts[1]["control"] > 0


def test_raw_text_is_tokenized(tmp_path):
    for split in corpus.SPLITS:
        (tmp_path / f"{split}.txt").write_text('I don\'t know it, "he" said.\n')
    text = corpus.open(Data(path=str(tmp_path), cache=str(tmp_path), raw=True))
    assert _texts(text, "train") == ["i do n't know it , `` he '' said ."]


def test_sentences_that_are_equal_or_in_train_too_are_counted(data, folder):
    (folder / "valid.txt").write_text("1\tnew\n" * 3)
    (folder / "test.txt").write_text(f"1\t{SENTENCES[3]}\n0\tnew\n0\t{SENTENCES[299]}\n")
    text = corpus.open(data)
    assert text.metadata("test")["in_train"] == 2
    assert corpus.remarks(text, {}) == ["valid: all sentences are equal", "test: 2 of 3 sentences are in train too"]


def test_labels_of_the_synthetic_set_are_components(tmp_path, monkeypatch):
    drawn = synthetic.sample(synthetic.generator(words=9, hidden=4, units=5), jax.random.key(0), 30)
    parts = {split: jax.tree.map(lambda x, i=i: np.asarray(x)[i::3], drawn) for i, split in enumerate(corpus.SPLITS)}
    monkeypatch.setattr(synthetic, "splits", lambda: parts)
    monkeypatch.setattr(builder, "SENTENCES", 4)
    text = corpus.open(Data(path="package:synthetic", cache=str(tmp_path)))
    assert [label for _, block in text.blocks("test") for label in block] == parts["test"].component.tolist()
    assert _texts(text, "test") == [" ".join(synthetic.words(row)) for row in parts["test"].tokens]


REFUSED = {
    "empty": ("test.txt", b"", "test.txt: the file has no sentence"),
    "blank": ("valid.txt", b"\n \n\r\n", "valid.txt: the file has no sentence"),
    "an error at the end": (
        "train.txt",
        b"1\ta b\n" * 5000 + b"2\t\xff\n",
        "train.txt: line 5001: byte 3 is not UTF-8",
    ),
    "labels in one split only": ("test.txt", b"a\nb\n", "test.txt: expected labels in every split or in none"),
    "names beside integers": (
        "test.txt",
        b"good\ta\n",
        "test.txt: expected labels in every split or in none, all integ",
    ),
    "columns that are no labels": (
        "train.txt",
        "".join(f"sentence {i}\tits translation\n" for i in range(2000)).encode(),
        "train.txt: more than 1,000 different labels; expected classes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_split_is_refused_and_leaves_nothing(data, folder, case, tmp_path):
    name, content, message = REFUSED[case]
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        corpus.open(data)
    assert _files(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a man sleeps ."], "one line only"),
        (["a man sleeps ."] * 200, "all 200 lines are equal"),
        (["a man sleeps .", "b"], r"too few to split 90/5/5 \(\w+ has none\): 2 different sentences"),
        (["\u200b"] * 3, "the file has no sentence; 3 blank lines left out; 3 lines with zero-width characters"),
    ],
)
def test_too_few_sentences_for_a_split_are_refused(tmp_path, rows, message):
    (tmp_path / "my.txt").write_text("\n".join(rows))
    with pytest.raises(InputError, match=rf"my\.txt: {message}"):
        corpus.open(Data(path=str(tmp_path / "my.txt"), cache=str(tmp_path)))


def test_without_a_home_the_folder_of_the_cache_is_asked_for(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user who is not in /etc/passwd
    with pytest.raises(InputError, match=r"^no home folder .*--config\.data\.cache=DIR$"):
        builder.cache_folder("")
    assert str(builder.cache_folder("here")) == "here"


def test_a_file_that_changes_or_vanishes_while_it_is_read_is_refused(data, folder, tmp_path, monkeypatch):
    read_lines = files.read_lines
    for change, message in (
        (lambda: (folder / "train.txt").write_text("1\tother\n"), "changed while it was read"),
        (lambda: (folder / "test.txt").unlink(missing_ok=True), "test.txt: cannot be read"),
    ):

        def read_and_change(*arguments, change=change):
            yield from read_lines(*arguments)
            change()

        monkeypatch.setattr(files, "read_lines", read_and_change)
        with pytest.raises(InputError, match=message):
            corpus.open(data)
        assert _files(tmp_path / "cache") == []


def test_a_full_disk_leaves_nothing_incomplete(data, tmp_path):
    """A limit on the size of files stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(InputError) as caught:
            corpus.open(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'cache'}: the corpus cannot be prepared there: ")
    assert "File too large" in message
    assert message.endswith("--config.data.cache=DIR")
    assert "\n" not in message
    assert _files(tmp_path / "cache") == []


def test_a_failure_that_is_no_fault_of_the_disk_stays_a_bug(data, monkeypatch):
    monkeypatch.setattr(builder.Text, "_split_generators", None)
    with pytest.raises(TypeError):
        corpus.open(data)


def test_a_cache_that_is_a_file_is_named(data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cache: the corpus cannot be prepared there"):
        corpus.open(data)


def test_a_damaged_record_is_named(data):
    text = corpus.open(data)
    (record,) = text.prepared.data_path.glob("*train*")
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 255
    record.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{re.escape(str(text.prepared.data_path))}: damaged \(.*delete the folder"):
        _texts(corpus.open(data), "train")


PREPARE = """
import sys
from scalevae_jax.data import builder, corpus
from scalevae_jax.data.config import Data
print("ready", flush=True)
input()
text = corpus.open({data})
print(sum(len(block) for block, _ in text.blocks("train")), "tensorflow" in sys.modules)
"""


def test_two_processes_prepare_the_same_at_once_without_a_word_and_without_tensorflow(data, tmp_path):
    command, pipe = [sys.executable, "-c", PREPARE.format(data=data)], subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate() for process in both] == [("300 False\n", "")] * 2
    assert len(list((tmp_path / "cache/text").iterdir())) == 1
    assert not list((tmp_path / "cache").rglob("incomplete*"))


def test_the_second_process_to_be_done_takes_what_the_first_made(data, monkeypatch):
    download_and_prepare = builder.Text.download_and_prepare

    def late(self):
        monkeypatch.setattr(builder.Text, "download_and_prepare", download_and_prepare)
        corpus.open(data)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(builder.Text, "download_and_prepare", late)
    assert _texts(corpus.open(data), "test") == SENTENCES[350:]

"""Each tokenizer and format of a text from end to end: train, evaluate, sample, reconstruct, export, load."""

import csv
import gzip
import io
import json
import math

import pyarrow as pa
import pytest
from pyarrow import parquet

import scalevae_jax

NOUNS, VERBS = "dog man bird horse".split(), "runs sleeps isn't here eats".split()
TEXTS = [f"The {noun} {verb}, {place} me!" for noun in NOUNS for verb in VERBS for place in ("by", "near", "Ünder")]
LABELS = ["noisy" if "dog" in text else "calm" for text in TEXTS]


def _csv(path):
    """The texts as comma-separated values."""
    file = io.StringIO()
    csv.writer(file).writerows([("id", "sentence", "mood"), *((7, *row) for row in zip(TEXTS, LABELS, strict=True))])
    path.write_bytes(gzip.compress(file.getvalue().encode()))


def _json(path):
    rows = ({"sentence": text, "mood": label} for text, label in zip(TEXTS, LABELS, strict=True))
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def _parquet(path):
    parquet.write_table(pa.table({"sentence": TEXTS, "mood": LABELS}), path)


CASES = {  # by tokenizer: the name of the file, what writes it, other fields
    "words": ("my.csv.gz", _csv, ["--config.data.raw=True"]),
    "bpe": ("my.parquet", _parquet, ["--config.data.vocab_size=270"]),
    "characters": ("my.jsonl.gz", _json, []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_text_is_trained_on_evaluated_sampled_and_exported(run, tmp_path, name):
    file, write, more = CASES[name]
    folder, out = tmp_path / "run", tmp_path / "out"
    write(tmp_path / file)
    line = ["--config=smoke", f"--workdir={folder}", f"--config.data.path={tmp_path / file}", *more]
    line += [f"--config.data.tokenizer={name}", "--config.data.text_column=sentence", "--config.data.label_column=mood"]
    line += [f"--config.data.cache={tmp_path / 'cache'}", "--config.data.split=2/1/1", "--config.data.buckets=1"]
    line += ["--config.data.max_words=60", "--config.train.max_epochs=1", "--config.train.batch_size=16"]
    done = run("train", *line)
    assert done.code == 0, done.error
    assert "config.data.tokenizer=words" not in done.out  # a text with capitals is not taken for a divided one
    done = run("train", *line)
    assert "already finished" in done.out

    done = run("evaluate", "--workdir", str(folder), "--iw_samples", "2")
    assert done.code == 0, done.error
    result = json.loads((folder / "eval_test.json").read_text())
    model = scalevae_jax.load(folder)
    opened = scalevae_jax.data.corpus.open(model.run.settings.data)
    lines = list(opened.lines("test"))
    size = sum(len(text.encode()) + 1 for text in lines)
    assert result["bits_per_byte"] == pytest.approx(result["nll"] * len(lines) / size / math.log(2))
    assert "bits_per_byte" in done.out
    assert set(opened.split("test", model.run.words).names) == {"noisy", "calm"}

    done = run("export", "--workdir", str(folder), "--out", str(out))
    assert done.code == 0, done.error
    exported = scalevae_jax.load(out)
    assert exported.run.words == model.run.words
    samples = run("sample", "--workdir", str(out), "--num", "3").out
    assert samples == "\n".join(exported.written(model.sample(3))) + "\n"
    assert run("sample", "--workdir", str(out), "--num", "3", "--as_read").out.split("\n")[:-1] == model.sample(3)
    done = run("reconstruct", "--workdir", str(folder), given=TEXTS[0] + "\n")
    assert done.out.rstrip("\n") == exported.written(exported.reconstruct([TEXTS[0]]))[0], done.error
    labels = run("data", *[x.replace("config.data.", "") for x in line if "config.data" in x]).out
    assert "noisy: " in labels
    assert "calm: " in labels

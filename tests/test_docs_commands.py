"""Every block of commands in README and docs is executed, small: the lines of a page one after another, in one folder.

What a page takes for granted is there before: texts, and the runs that none of its own lines trains.
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import small
import test_docs
from test_docs import DOCS, PAGES, ROOT

from scalevae_jax import export

LINES = {
    page: [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)
        for line in re.sub(r"\\\n *", "", block).strip().splitlines()
    ]
    for page in ("README.md", *DOCS)
}
ELSEWHERE = (  # what is not executed here: installations, and what other tests execute
    "make install",
    "make test",
    "source ",
    "pip install ",
    "python -m pip ",
    "tensorboard ",
    "python -m scalevae_jax.explore ",
    "python -m scalevae_jax.sweep ",
    "python -m scalevae_jax.compare ",
)
TRAINING = {
    "model.embedding": 4,
    "model.hidden": 6,
    "model.latent": 2,
    "data.buckets": 1,
    "data.limit_train": 60,
    "data.limit_valid": 20,
    "data.max_words": 12,
    "data.vocab_size": 270,
    "train.batch_size": 16,
    "train.max_epochs": 1,
    "eval.batch_size": 16,
    "eval.iw_samples": 2,
}
SMALL = {  # arguments that make a command small; the last of equal ones counts
    "train": [f"--config.{field}={value}" for field, value in TRAINING.items()],
    "evaluate": ["--iw_samples=2", "--limit=8"],
    "score": ["--iw_samples=2"],
    "reproduce": ["--list"],
    "reproduce.text_quality": ["--pairs=3", "--seeds=2"],
    "probe": ["--sizes=8", "--draws=2"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What a reader has: the package's captions, a text, a folder of texts, sentences, the files that pages show."""
    for name, code in test_docs.READERS.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "scalevae_jax").symlink_to(ROOT / "scalevae_jax")
    (tmp_path / "my.txt").write_text("".join(f"{line}\n" for line in small.SENTENCES * 4))
    (tmp_path / "sentences.txt").write_text("".join(f"{line}\n" for line in small.SENTENCES[:3]))
    for name in (".", "yahoo", "yelp", "yelp_sentiment", "yahoo_sentences"):
        small.write_corpus(tmp_path / "DIR" / name, labels=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(place: Path) -> None:
    """An untrained model where a command expects a run."""
    made = Path("made") / place.name
    made.mkdir(parents=True)
    place.parent.mkdir(exist_ok=True)
    export.save(small.make_run(made, "lstm_lm" if place.name.endswith("_lm") else "scale_vae", labels=True), place)


def execute(line: str) -> None:
    """Raises AssertionError where the command fails."""
    if line == "make demo":
        line = re.search(r"^demo: .*\n\t\$\(BIN\)/(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    for run in re.findall(r"(?<=[ =])runs/\w+", "" if ".train " in line else line):
        if not Path(run).exists() and "target_rate" not in line:
            make_run(Path(run))
    ours = re.fullmatch(r"python -m scalevae_jax\.([a-z_.]+)([^|>]*)", line)
    if ours:
        module = importlib.import_module(f"scalevae_jax.{ours[1]}")
        if hasattr(module, "__path__"):  # a package
            module = importlib.import_module(f"scalevae_jax.{ours[1]}.__main__")
        assert module.main([*shlex.split(ours[2]), *SMALL.get(ours[1], [])]) == 0, line
        return
    line = re.sub(r"^(python \S+\.py train .*)", rf"\1 {' '.join(SMALL['train'])}", line)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, lines in LINES.items() if lines])
def test_the_commands_of_a_page_do_what_they_say(page, folder):
    before = ["make demo"] if page == "docs/using.md" else []  # as the page says
    for line in (*before, *LINES[page]):
        if not line.startswith(ELSEWHERE):
            execute(line)

"""Every block of commands in README and docs is executed: the lines of a page one after another, in one folder, small.

What a page takes for granted is there before it: texts, and the runs that none of its own lines trains.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small
import test_docs
import typed
from typed import ROOT

from scalevae_jax import export

PAGES = {
    path.name: re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
BEFORE = {"using.md": ["make demo"]}  # what a page says has been typed
ELSEWHERE = {  # lines that are not executed here, and what does
    "make install": "the first thing that CI does",
    "make test": "is what runs this",
    "python -m pip install build && python -m build": "tests/test_wheel.py",
    "python -m pip install dist/scalevae_jax-*.whl": "tests/test_wheel.py",
    "source .venv/bin/activate": "a shell of its own",
    "pip install tensorboard": "another's program",
    "tensorboard --logdir runs": "another's program",
}
TRAINING = {
    "model.embedding": 4,
    "model.hidden": 6,
    "model.latent": 2,
    "data.buckets": 1,
    "data.limit_train": 60,
    "data.limit_valid": 20,
    "data.max_words": 12,
    "data.vocab_size": 99,
    "train.batch_size": 16,
    "train.max_epochs": 1,
    "eval.batch_size": 16,
    "eval.iw_samples": 2,
}
SMALL = {  # flags that make a command small
    "train": [f"--config.{field}={value}" for field, value in TRAINING.items()],
    "evaluate": ["--iw_samples=2", "--limit=8"],
    "score": ["--iw_samples=2"],
    "text_quality": ["--pairs=3", "--seeds=2"],
    "probe": ["--sizes=8", "--draws=2"],
    "reproduce": ["--list"],  # tests/test_reproduce.py runs it
}


def lines_of(page: str) -> list[str]:
    """Of all its blocks, in their order; a line that goes on is one, and remarks are left out."""
    text = re.sub(r"\\\n *", "", "\n".join(PAGES[page]))
    return [line for line in (re.sub(r" +# .*", "", line).strip() for line in text.splitlines()) if line]


@pytest.fixture
def folder(tmp_path):
    """What a reader has: a checkout, a text, a folder of texts, some sentences, the file of docs/own_method.md."""
    (tmp_path / test_docs.NAME).write_text(test_docs.SOURCE)
    (tmp_path / "scalevae_jax").symlink_to(ROOT / "scalevae_jax")
    (tmp_path / "my.txt").write_text("".join(f"{line}\n" for line in small.SENTENCES * 4))
    (tmp_path / "sentences.txt").write_text("".join(f"{line}\n" for line in small.SENTENCES[:3]))
    for name in (".", "yahoo", "yelp", "yelp_sentiment", "yahoo_sentences"):
        small.write_corpus(tmp_path / "DIR" / name, labels=True)
    return tmp_path


def make_run(place: Path, folder: Path) -> None:
    """What a command reads: for W of docs/runs.md a run that met numbers not finite, else an untrained model."""
    if place.name == "W":
        wild = ["--config.optim.learning_rate=1e30", "--config.optim.clip=1e30", "--workdir", str(place)]
        assert typed.run("train", "--config", "smoke", *SMALL["train"], *wild).code == 2
        return
    made = folder / "made" / place.name
    made.mkdir(parents=True)
    place.parent.mkdir(exist_ok=True)
    export.save(small.make_run(made, "lstm_lm" if place.name.endswith("_lm") else "scale_vae", labels=True), place)


def by_shell(line: str, folder: Path) -> typed.Done:
    more = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    options = {"cwd": folder, "env": os.environ | typed.ONE_DEVICE | more, "capture_output": True, "text": True}
    done = subprocess.run(["bash", "-c", line], **options, timeout=120, check=False)
    return typed.Done(done.returncode, done.stdout, done.stderr)


def execute(line: str, folder: Path) -> None:
    """Raises AssertionError where the line fails, or, of one that looks for a NaN, where it finds none."""
    if line == "make demo":
        line = re.search(r"^demo: .*\n\t\$\(BIN\)/(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    line = re.sub(r"^(python \S+\.py train .*)", rf"\1 {' '.join(SMALL['train'])}", line)
    before, module, arguments = re.fullmatch(r"(?:(.*)python -m scalevae_jax\.(\w+))?(.*)", line).groups()
    words = shlex.split(arguments) + SMALL.get(module, [])
    for name in re.findall(r"(?<=[ =])(?:runs/\w+|W)\b", "" if module in (None, "train") else arguments):
        if not (folder / name).exists():
            make_run(folder / name, folder)
    if module == "explore":
        serve(words, folder)
        return
    done = typed.run(module, *words, folder=folder) if before == "" else by_shell(line, folder)
    if "JAX_DEBUG_NANS" in line:
        assert done.code == 1
        assert "FloatingPointError" in done.error
    else:
        assert done.code == 0, f"{line}: {done.error}"


def serve(arguments: list[str], folder: Path) -> None:
    """The page, from its address to Ctrl-C."""
    pytest.importorskip("gradio", reason="the page wants gradio")
    port = typed.free_port()
    page = typed.Running("explore", *arguments, f"--port={port}", folder=folder)
    assert f"127.0.0.1:{port}" in page.until("open ")
    os.kill(page.pid, signal.SIGINT)
    assert page.wait().code == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_the_commands_of_a_page_do_what_they_say(page, folder):
    for line in (*BEFORE.get(page, []), *lines_of(page)):
        if line not in ELSEWHERE:
            execute(line, folder)


def test_what_is_executed_elsewhere_is_shown():
    assert set(ELSEWHERE) <= {line for page in PAGES for line in lines_of(page)}

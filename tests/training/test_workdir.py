"""The folder of a run: its lock, and what counts as a run in it."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from scalevae_jax import config, train
from scalevae_jax.core.types import InputError
from scalevae_jax.training import workdir
from scalevae_jax.training.workdir import LOCK, SILENCE, Lock

HOLD = """
import sys, time
from pathlib import Path
from scalevae_jax.training.workdir import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_ends_when_the_holder_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {holder.pid} on {socket.gethostname()} is training here; wait"):
        Lock(tmp_path).__enter__()
    assert (tmp_path / LOCK).read_text() == f"{holder.pid} {socket.gethostname()}\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with Lock(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"{os.getpid()} ")
    assert not (tmp_path / LOCK).exists()


def test_a_lock_of_another_host_counts_until_it_was_silent_for_long(tmp_path):
    (tmp_path / LOCK).write_text("17 elsewhere\n")
    with pytest.raises(InputError, match="process 17 on elsewhere is training here; if it is gone, delete"):
        Lock(tmp_path).__enter__()
    past = time.time() - SILENCE - 1.0
    os.utime(tmp_path / LOCK, (past, past))
    with Lock(tmp_path):
        pass


def test_only_a_whole_checkpoint_makes_a_folder_that_of_a_run(tmp_path):
    assert not workdir.has_checkpoint(tmp_path)
    (tmp_path / workdir.CONFIG).write_text("{}")
    (tmp_path / "checkpoints/12.orbax-checkpoint-tmp-0").mkdir(parents=True)
    assert not workdir.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints/12").mkdir()
    assert workdir.has_checkpoint(tmp_path)


OUT_OF_RANGE = [{"steps_per_epoch": steps, "data": {}} for steps in (0, -1, 2**40, 1.5, True, None, "many")]


@pytest.mark.parametrize("record", [{}, {"steps_per_epoch": 3}, *OUT_OF_RANGE, [3]])
def test_a_record_that_is_none_is_one_line_with_the_file(record, tmp_path):
    (tmp_path / workdir.RUN).write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"^{tmp_path / workdir.RUN}: [^\n]*$"):
        workdir.read_record(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.safetensors", "holds model.safetensors, an exported model"),
        ("config.json", "holds config.json, but no run.json"),
        ("vocab.txt", "holds vocab.txt, but no run.json"),
        ("metrics.jsonl", "holds metrics.jsonl, but no run.json"),
        ("checkpoints/12", "holds checkpoints, but no run.json"),
        ("run.json", "run.json: "),
    ],
)
def test_a_folder_of_something_else_is_refused_and_stays_as_it_is(path, message, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("{}")
    with pytest.raises(InputError, match=rf"^[^\n]*{re.escape(message)}[^\n]*$"):
        train.train(config.Config(), tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [tmp_path / path]


@pytest.mark.parametrize("name", ["a[1]", "a*", "b/[x]/c", "what?"])
def test_a_path_that_orbax_takes_for_a_pattern_is_refused_before_anything_is_written(name, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="takes for a pattern"):
        train.train(config.Config(), tmp_path / name)
    (tmp_path / "[here]").mkdir()
    monkeypatch.chdir(tmp_path / "[here]")
    with pytest.raises(InputError, match=r"contains \[, which"):
        train.train(config.Config(), pathlib.Path("run"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "[here]"]

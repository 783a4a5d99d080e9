"""Two real processes train as one: the same numbers, one stop for both, and an end for both where one fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from process import SOON_COMPILED, free_port

from scalevae_jax import evaluate, train
from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import processes

ROOT = Path(__file__).parents[2]
SMALL = [
    "--config=smoke",
    "--config.method.name=bn_vae",  # looks across the batch, and has no factor that magnifies rounding
    "--config.data.limit_train=1500",
    "--config.data.limit_valid=100",
    "--config.data.buckets=1",
    "--config.eval.iw_samples=4",
]


def start(arguments, folders=(ROOT, ROOT)) -> list[subprocess.Popen]:
    """A process of the same training in each folder."""
    line = [sys.executable, "-m", "scalevae_jax.train", "--distributed", f"--num_processes={len(folders)}", *arguments]
    line += [f"--coordinator=127.0.0.1:{free_port()}", "--heartbeat_timeout=15", "--initialization_timeout=60"]
    environment = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": SOON_COMPILED, "JAX_PLATFORMS": "cpu", "NPROC": "8"}
    return [
        subprocess.Popen(
            [*line, f"--process_id={i}"],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, folder in enumerate(folders)
    ]


def end(started: list[subprocess.Popen]) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, and what each process wrote to standard output and standard error."""
    out, error = zip(*[process.communicate(timeout=200) for process in started], strict=True)
    return [process.returncode for process in started], list(out), list(error)


def test_two_processes_train_stop_together_resume_and_evaluate_as_one_does(tmp_path):
    folder, log = tmp_path / "two", tmp_path / "two/metrics.jsonl"
    running = start([*SMALL, f"--workdir={folder}", "--config.train.max_epochs=100000"])
    until = time.monotonic() + 200
    while not log.exists() or not log.read_text():
        assert all(process.poll() is None for process in running), end(running)
        assert time.monotonic() < until
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    codes, out, error = end(running)
    assert codes == [143, 143], error
    steps = [re.findall(r"^SIGTERM: stopped at step (\d+)", text, re.MULTILINE) for text in error]
    assert steps[0] == steps[1] != []
    assert "process 1 of 2: 1 of 2 devices" in out[1]
    assert "epoch" not in out[1]

    epochs = len(log.read_text().splitlines()) + 1
    more = [f"--config.train.max_epochs={epochs}", "--config.eval.at_end=true", f"--workdir={folder}"]
    codes, out, error = end(start([*SMALL, *more]))
    assert codes == [0, 0], error
    assert re.search(rf"^resumed in epoch \d+ at step {steps[0][0]}$", out[0], re.MULTILINE)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, epochs + 1))

    alone = tmp_path / "one"
    assert train.main([*SMALL, "--config.train.max_epochs=1", f"--workdir={alone}"]) == 0
    one = json.loads((alone / "metrics.jsonl").read_text())
    for key in ("step", "train_loss", "train_rec", "train_kl", "valid_rec", "valid_kl"):
        np.testing.assert_allclose(lines[0][key], one[key], rtol=1e-4, atol=1e-6, err_msg=key)
    by_two = json.loads((folder / "eval_test.json").read_text())
    assert evaluate.main([f"--workdir={folder}"]) == 0
    by_one = json.loads((folder / "eval_test.json").read_text())
    for key in ("examples", "tokens", "nll", "nll_fitted_prior", "nll_std_error", "rec", "kl", "mi", "au", "mpd"):
        np.testing.assert_allclose(by_two[key], by_one[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_an_error_of_one_process_is_its_line_and_the_other_ends_too(tmp_path):
    """Only the first process has the text."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "here/text.txt").write_text("".join(f"a b{i} c\n" for i in range(99)))
    arguments = [*SMALL, "--config.data.path=text.txt", f"--workdir={tmp_path / 'run'}"]
    codes, _, error = end(start(arguments, (tmp_path / "here", tmp_path / "elsewhere")))
    assert codes[1] == 2, error
    assert error[1].splitlines()[-1].startswith("error: no such file: ")
    assert codes[0] != 0, error
    assert not (tmp_path / "run/config.json").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data": "a", "configuration": "b"}, None),
        ({"data": "a", "configuration": "c"}, "configuration of process 1, 2 is not that of process 0"),
        ({"data": "b", "configuration": "c"}, "data of process 1, 2 is not that of process 0"),
    ],
)
def test_what_differs_between_processes_is_named(other, message, monkeypatch):
    sent = []

    def allgather(x):
        sent.append(x)
        return np.stack([sent[0], x, x])

    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", allgather)
    processes.assert_same({"data": "a", "configuration": "b"}, 60)  # process 0
    if message is None:
        processes.assert_same(other, 60)
    else:
        with pytest.raises(InputError, match=f"^{message}; give every host the same$"):
            processes.assert_same(other, 60)


def test_one_process_has_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(multihost_utils, "process_allgather", None)
    processes.assert_same({"data": "a"}, 60)
    processes.barrier("a place")
    assert processes.is_main_process()

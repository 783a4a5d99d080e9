"""Real processes: the same numbers on every layout, and a training of two that agrees with a training of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import layouts
import numpy as np
import pytest
from typed import SOON_COMPILED

ROOT = Path(__file__).parents[2]
SMALL = [
    "--config=configs/smoke.py",
    "--config.train.max_epochs=1",
    "--config.train.max_steps=6",
    "--config.model.hidden=16",
    "--config.model.embedding=16",
    "--config.data.limit_train=200",
    "--config.data.limit_valid=100",
    "--config.data.buckets=1",
]


def _local(*arguments, processes="2", **more):
    env = more | os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "XLA_FLAGS": SOON_COMPILED}
    line = ["bash", "launch/local.sh", *arguments[:1], processes, *arguments[1:]]
    return subprocess.run([part for part in line if part], cwd=ROOT, env=env, capture_output=True, text=True)


def _largest(tmp_path, names, of):
    one, other = (layouts.run(layout, tmp_path / layout, names) for layout in ("1x1", of))
    return layouts.difference(one, other)


@pytest.mark.slow
def test_methods_that_look_across_the_batch_have_the_same_numbers_on_four_processes(tmp_path):
    assert _largest(tmp_path, ["bn_vae", "mae"], "4x1") < 1e-5


def test_scale_vae_on_two_processes_of_two_devices_is_that_of_one_device(tmp_path):
    assert _largest(tmp_path, ["scale_vae"], "2x2") < 1e-5


def test_a_dry_run_prints_a_line_a_process():
    done = _local("--dry-run", *SMALL)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "--process_id=0" in first
    assert "--process_id=1" in second
    assert "scalevae_jax.train --distributed" in first


@pytest.mark.slow
def test_two_processes_train_in_parts_and_evaluate_as_one_does_in_one_piece(tmp_path):
    lines = []
    for processes, more in (("1", []), ("2", ["--config.optim.accumulate=3"])):
        folder = tmp_path / processes
        done = _local("", *SMALL, *more, f"--workdir={folder}", processes=processes)
        assert done.returncode == 0, done.stderr
        lines.append(json.loads((folder / "metrics.jsonl").read_text().splitlines()[0]))
    one, two = lines
    for key in ("step", "train_loss", "train_rec", "valid_rec", "mi", "factor_median"):
        np.testing.assert_allclose(two[key], one[key], rtol=1e-4, err_msg=key)
    _compare_evaluations(tmp_path / "1")


def _compare_evaluations(folder):
    """What one process trained, evaluated by one and by two."""
    measured = []
    for processes in ("1", "2"):
        options = [f"--workdir={folder}", "--limit=100", "--iw_samples=4"]
        done = _local("", *options, processes=processes, COMMAND="evaluate")
        assert done.returncode == 0, done.stderr
        measured.append(json.loads((folder / "eval_test.json").read_text()))
    one, two = measured
    assert two["seconds"] != one["seconds"]
    for key in ("examples", "tokens", "nll", "nll_fitted_prior", "nll_std_error", "rec", "kl", "mi", "au", "mpd"):
        np.testing.assert_allclose(two[key], one[key], rtol=1e-5, err_msg=key)


@pytest.mark.slow
def test_another_configuration_on_one_process_is_refused_by_all(tmp_path):
    """Both say so, in one line, with exit code 2, and nothing is begun."""
    ports = _local("--dry-run", *SMALL).stdout
    coordinator = next(word for word in ports.split() if word.startswith("--coordinator"))
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": SOON_COMPILED}
    train = [sys.executable, "-m", "scalevae_jax.train", "--distributed", coordinator, "--num_processes=2"]
    train += [*SMALL, f"--workdir={tmp_path / 'run'}"]
    started = [
        subprocess.Popen(
            [*train, f"--process_id={i}", f"--config.train.seed={i}"],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    for text in said:
        assert "configuration of process 1 is not that of process 0" in text
        assert "Traceback" not in text

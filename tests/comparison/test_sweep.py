"""A sweep's runs and commands, and one that is killed in training, between commands and in an evaluation."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scalevae_jax import config_file, sweep, train
from scalevae_jax.comparison import comparison
from scalevae_jax.core.types import InputError

LINE = ["--config", "smoke", "--config.data.path=package:tiny", "--config.train.max_epochs=1"]


def planned(*arguments):
    options = sweep.parser().parse([*LINE, *arguments])
    return {trial.name: (trial, settings) for trial, settings in sweep.plan(options)}


def test_every_combination_is_a_run_and_what_a_method_lacks_is_left_out():
    grid = ["--grid", "method.des_std=0.3,0.7", "--grid", "method.beta=0.4", "--grid", "optim.learning_rate=0.5,1"]
    found = planned("--methods", "lstm_lm,beta_vae,scale_vae", *grid, "--seeds", "2", "--limit", "20", "--probe")
    per_seed = {
        *(f"lstm_lm-learning_rate_{rate}" for rate in ("0.5", "1.0")),
        *(f"beta_vae-beta_0.4-learning_rate_{rate}" for rate in ("0.5", "1.0")),
        *(f"scale_vae-des_std_{std}-learning_rate_{rate}" for std in (0.3, 0.7) for rate in ("0.5", "1.0")),
    }
    assert set(found) == {f"{name}-seed_{seed}" for name in per_seed for seed in (0, 1)}
    trial, settings = found["scale_vae-des_std_0.3-learning_rate_0.5-seed_1"]
    assert (settings.method.des_std, settings.optim.learning_rate, settings.train.seed) == (0.3, 0.5, 1)
    training, evaluation, probe = trial.commands
    options = train.parser().parse(list(training.arguments))
    changes = config_file.read_arguments(options)
    assert config_file.override(config_file.read(config_file.find(options.config)), changes)[0] == settings
    assert (evaluation.output, probe.output) == ("eval_test_first20.json", "probe.json")


def test_a_seed_and_a_hyperparameter_that_are_given_are_those_of_all():
    found = planned("--methods", "vae,scale_vae", "--config.method.des_std=0.9", "--config.train.seed=5")
    assert list(found) == ["vae-seed_5", "scale_vae-seed_5"]
    assert found["scale_vae-seed_5"][1].method.des_std == 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "vea"], "--methods vea: no such method"),
        (["--grid", "des_std=1"], "--grid des_std=1: expected SECTION.FIELD"),
        (["--grid", "method.des_std=x"], "expected a number, got 'x'"),
        (["--methods", "vae", "--grid", "method.des_std=1"], "vae have no such hyperparameter"),
        (["--grid", "optim.learning_rate=-1"], "optim.learning_rate"),
    ],
)
def test_wrong_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        planned(*arguments)


def test_the_commands_and_an_estimate_can_be_had_without_a_run(tmp_path, capsys):
    arguments = [*LINE, "--methods", "vae", "--out", str(tmp_path)]
    assert sweep.main([*arguments, "--list"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"python -m scalevae_jax.train --config smoke --workdir {tmp_path}/runs/vae-seed_0 ")
    assert f" && python -m scalevae_jax.evaluate --workdir {tmp_path}/runs/vae-seed_0 --split test" in line
    assert sweep.main([*arguments, "--dry_run"]) == 0
    assert "hours of training at most" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_three_places_gives_the_numbers_of_one_that_is_not(tmp_path):
    def command(out):
        arguments = [
            "--methods",
            "lstm_lm,vae",
            "--baseline",
            "vae",
            "--iw_samples",
            "20",
            "--out",
            str(tmp_path / out),
        ]
        return [sys.executable, "-m", "scalevae_jax.sweep", *LINE, *arguments]

    def kill_when(exists: str) -> None:
        process = subprocess.Popen(command("killed"), cwd=Path(__file__).parents[2], start_new_session=True)
        while process.poll() is None and not list((tmp_path / "killed").glob(exists)):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name in ("train", "evaluate"):  # they have sessions of their own, and the runner could not stop them
            subprocess.run(["pkill", "-KILL", "-f", f"scalevae_jax.{name} .*{tmp_path}/killed"], check=False)

    for exists in (
        "runs/lstm_lm-seed_0/run.json",
        "runs/lstm_lm-seed_0/steps.json",
        "runs/vae-seed_0/evaluating.jsonl",
    ):
        kill_when(exists)
    for out in ("killed", "whole"):
        subprocess.run(command(out), cwd=Path(__file__).parents[2], check=True, timeout=600)
    killed, whole = (comparison.compare(comparison.find([tmp_path / out])) for out in ("killed", "whole"))
    for column in ("system", "bound", "rec", "rate", "exact", "z_content"):
        assert killed.table[column] == whole.table[column], column
    assert json.loads((tmp_path / "killed/rows/vae-seed_0.json").read_text())["sentences"]
    assert (tmp_path / "killed/comparison.html").is_file()

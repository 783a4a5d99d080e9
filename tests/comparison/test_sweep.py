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
from scalevae_jax.comparison import comparison, runner
from scalevae_jax.comparison.trial import STEPS
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
        (["--methods", "vae", "--grid", "method.des_std=1"], "--grid method.des_std: no hyperparameter of vae"),
        (["--grid", "optim.learning_rate=-1"], "optim.learning_rate"),
        (["--grid", "train.seed=1,2"], "--grid train.seed: it makes no different system"),
        (["--grid", "data.path=a,b/c"], "--grid data.path: it makes no different system"),
        (["--grid", "model.latent=1", "--grid", "model.latent=2"], "a field is given twice"),
        (["--methods", "vae,vae"], "vae-seed_0: --methods or --grid gives this run twice"),
        (["--methods", "vae", "--config.method.des_std=1"], "--config.method.des_std: no hyperparameter of vae"),
        (["--methods", "vae", "--baseline", "lstm_lm"], "--baseline lstm_lm: expected one of vae"),
        (["--grid", "method.des_std=0.3,0.9", "--baseline", "scale_vae"], "expected one of scale_vae des_std=0.3"),
        (["--iw_samples", "many"], "--iw_samples"),
    ],
)
def test_wrong_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        planned(*arguments)


def test_a_value_with_a_slash_is_one_folder_and_a_baseline_may_have_a_blank():
    found = planned("--grid", "data.split=90/5/5,80/10/10", "--baseline", "scale_vae split=80/10/10")
    assert list(found) == ["scale_vae-split_90_5_5-seed_0", "scale_vae-split_80_10_10-seed_0"]


def test_what_other_arguments_made_is_not_taken_for_what_is_asked(tmp_path):
    trial, _ = planned("--out", str(tmp_path), "--limit", "20")["scale_vae-seed_0"]
    trial.workdir.mkdir(parents=True)
    trial.record.parent.mkdir()
    trial.record.write_text("{}")
    steps = {each.output or each.module: {"command": str(each)} for each in trial.commands}
    (trial.workdir / STEPS).write_text(json.dumps(steps).replace(str(tmp_path), "elsewhere"))
    (trial.workdir / "run.json").write_text('{"steps_per_epoch": 1, "data": {}}')
    (trial.workdir / "eval_test_first20.json").write_text("{}")
    sweep._check(trial)
    assert trial.record.exists()
    more, _ = planned("--out", str(tmp_path), "--limit", "30")["scale_vae-seed_0"]
    sweep._check(more)
    assert not trial.record.exists()  # of 20 sentences
    other, _ = planned("--out", str(tmp_path), "--config.model.latent=3")["scale_vae-seed_0"]
    with pytest.raises(InputError, match=r"scale_vae-seed_0: made by `python -m .*`; choose another --out"):
        sweep._check(other)


def test_a_folder_that_training_refuses_is_refused_at_once(tmp_path, capsys):
    assert sweep.main([*LINE, "--out", str(tmp_path / "a[1]")]) == 2
    assert "takes for a pattern" in capsys.readouterr().err


def test_runs_that_did_not_fail_are_compared(tmp_path, monkeypatch):
    shown = []

    def fail(*_):
        raise InputError("1 runs failed")

    monkeypatch.setattr(runner, "run_all", fail)
    monkeypatch.setattr(runner, "done", lambda trial: trial.name == "vae-seed_0")
    monkeypatch.setattr(comparison, "find", list)
    monkeypatch.setattr(comparison, "compare", lambda found, baseline: (found, baseline))
    monkeypatch.setattr(sweep, "show", lambda compared, out: shown.append(compared))
    arguments = [*LINE, "--methods", "vae,lstm_lm", "--baseline", "lstm_lm", "--out", str(tmp_path)]
    assert sweep.main(arguments) == 2
    assert shown == [([tmp_path / "rows/vae-seed_0.json"], "")]


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

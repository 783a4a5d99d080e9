"""The harness: rows are the paper's, commands exist, runs are shared, stopped ones go on, nothing is done again."""

import csv
import importlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typed
from small import make_run

from scalevae_jax import config
from scalevae_jax.config import Config, MethodConfig, Network, Optim, Train
from scalevae_jax.core.types import InputError
from scalevae_jax.reproduce import __main__ as reproduce
from scalevae_jax.reproduce import figures, page, runner
from scalevae_jax.reproduce.paper import ROWS, SIZES
from scalevae_jax.reproduce.records import CURVES, FLAGS, _command, read
from scalevae_jax.reproduce.runner import Scheduler
from scalevae_jax.reproduce.tables import cells, fill, header, matches, method, trained_on
from scalevae_jax.reproduce.trials import ARRAYS, SCALES, STEPS, WANTED, Command, Trial, plan, shown
from scalevae_jax.runtime import command

ROOT = Path(__file__).parents[2]
ALL = [row for table in ROWS.values() for row in table]


def _plan(scale, out="out", tables=ROWS, seeds=1, methods=(), data=None):
    return plan(tables, SCALES[scale], seeds, methods, data, Path(out))


def test_the_rows_are_those_of_the_paper():
    counts = {"table1": 34, "table2": 6, "table3": 9, "table4": 9, "table5": 2, "table6": 1, "figure1": 6, "figure2": 2}
    assert {name: len(table) for name, table in ROWS.items()} == counts
    assert {len(row.reported) for row in ROWS["table4"]} == {len(SIZES)}
    swept = {tuple(row.hyperparameters.values()): row.reported for row in ROWS["table3"]}
    assert len([row for row in ROWS["table1"] if row.corpus == "yahoo"]) == 17
    for row in ROWS["table1"][:17]:  # what both tables have is the same in both
        key = (row.hyperparameters.get("des_std"), row.hyperparameters.get("f_epo"))
        if key in swept and "warm_up" not in row.hyperparameters:
            assert swept[key] == row.reported


@pytest.mark.parametrize("row", ALL, ids=lambda row: f"{row.corpus} {row.label}")
def test_every_row_is_a_method_with_hyperparameters_it_takes(row):
    config.build_method(Config(method=MethodConfig(name=row.method, **row.hyperparameters)))


def test_paper_scale_is_section_4_and_changes_nothing_but_method_seed_and_place():
    for trial in _plan("paper", seeds=2):
        fields = [argument for argument in trial.steps[0].arguments if argument.startswith("--config.")]
        changed = {field.split("=")[0].removeprefix("--config.") for field in fields}
        assert {name for name in changed if not name.startswith("method.")} <= {
            "train.seed", "data.path", "data.partition",
        }  # fmt: skip
    for name in ("yahoo", "yelp"):
        settings = runpy.run_path(str(config.find(name)))["get_config"]()
        assert settings.model == Network(512, 1024, 32, 0.5, 0.5)
        assert (settings.train.batch_size, settings.train.max_epochs) == (32, 120)
        assert settings.optim == Optim(1.0, 5.0, 5, 0.5, 5, 15, True)
        assert settings.eval.iw_samples == 500
    synthetic = runpy.run_path(str(config.find("synthetic")))["get_config"]()
    assert (synthetic.model, synthetic.train) == (Network(50, 50, 2), Train(steps_per_dispatch=25))


@pytest.mark.parametrize("scale", SCALES)
def test_every_flag_of_every_command_exists(scale):
    fields = config.describe()
    for trial in _plan(scale):
        config.find(trial.setting.config)
        for step in trial.steps:
            flags = importlib.import_module(f"scalevae_jax.{step.module}").FLAGS
            for name in re.findall(r"--([\w.]+)", " ".join(step.arguments)):
                assert name in flags or f"--{name} " in fields or f"--{name}:" in fields, name


def test_runs_are_shared_and_their_steps_joined():
    trials = {trial.name: trial for trial in _plan("cpu", data=None)}
    assert len(trials) < len(ALL)
    both = trials["yelp_sentiment-bn_vae-gamma_0.6-seed_0"]  # of Table 1's Yelp, Table 2 and Table 4
    assert [step.module for step in both.steps] == ["train", "evaluate", "probe"]
    few = trials["yelp_sentiment-agg_vae-seed_0"].steps[2]  # trained on 2,000 lines, and probed with no more
    assert few.arguments[few.arguments.index("--sizes") + 1] == "100,500,1000,2000"
    quality = trials["yahoo_sentences-bn_vae-gamma_0.6-seed_0"]
    assert [step.module for step in quality.steps] == ["train", "evaluate", "text_quality"]
    assert quality.after == trials["yahoo_sentences-lstm_lm-seed_0"].workdir
    names = list(trials)
    assert names.index("yahoo_sentences-lstm_lm-seed_0") < names.index(quality.name)
    assert len(_plan("smoke", tables=("figure1", "figure2"))) == 6


def test_methods_and_seeds_choose():
    trials = _plan("smoke", tables=("table1",), methods=("vae",), seeds=3)
    assert [trial.name for trial in trials] == [f"tiny-vae-seed_{seed}" for seed in range(3)]
    with pytest.raises(InputError, match="no row is left"):
        _plan("smoke", tables=("table6",), methods=("vae",))
    with pytest.raises(InputError, match="no folder yahoo in it"):
        _plan("paper", data=ROOT)


def _record(row, seed=0, **evaluation):
    defaults = {key: p.default for key, p in method.hyperparameters(row.method).items()}
    curves = {key: [1, 2] if key == "epoch" else [3.0, 2.0] for key in CURVES}
    return {
        "run": f"{row.method}-{seed}",
        "corpus": "tiny",
        "method": row.method,
        "hyperparameters": defaults | row.hyperparameters,
        "partition": row.partition,
        "seed": seed,
        "config": {"data": {"limit_train": 0}},
        "sha256": {"train": "abcdef"},
        "git": "f00",
        "device": "1 x cpu",
        "command": "python -m scalevae_jax.train",
        "steps": {},
        "training": {"hours": 2.0 if row.method == "vae" else 1.0, "epochs": 2, "curves": curves},
        "evaluation": evaluation,
    }


SMOKE = SCALES["smoke"]


def test_a_row_has_mean_spread_and_the_papers_figure():
    vae = next(row for row in ROWS["table1"] if row.method == "vae")
    filled = fill("table1", SMOKE, [_record(vae, seed, nll=40.0 + seed, nll_paper=40.0) for seed in (0, 2)])
    by_name = dict(zip(header(filled), cells(filled, filled.lines[1]), strict=True))
    assert filled.lines[1].label == "vae"
    assert by_name["nll"] == "41.00 ± 1.41"
    line = next(each for each in page.rows([filled]) if (each["system"], each["measure"]) == ("vae", "nll_paper"))
    assert (line["mean"], line["seeds"], line["paper"]) == (40.0, 2, 328.6)


def test_a_run_with_another_hyperparameter_is_no_run_of_the_row_and_is_shown_beside():
    row = ROWS["table3"][2]
    other = _record(row, nll=30.0)
    other["hyperparameters"]["encoder_init"] = "paper"
    assert matches(_record(row), row, "tiny")
    assert not matches(other, row, "tiny")
    assert not matches(_record(row), row, "snli")
    last = fill("table1", SMOKE, [other]).lines[-1]
    assert (last.note, last.label) == ("not in the paper", "scale_vae des_std=0.7 f_epo=1 encoder_init=paper")


def test_table_2_is_relative_to_the_vae():
    wanted = shown("table2", SMOKE)
    filled = fill("table2", SMOKE, [_record(row) for row in wanted])
    assert [line.values["ratio_to_vae"] for line in filled.lines] == [[1.0], [0.5], [0.5]]
    assert [line.reported["ratio_to_vae"] for line in filled.lines] == [1.00, 1.01, 0.91]  # as printed


def test_the_report_is_whole_and_the_page_asks_for_nothing_else(tmp_path):
    records = [_record(row, **dict.fromkeys(figures.READINGS, 40.0)) for row in shown("table3", SMOKE)[:3]]
    reproduce.write(["table1", "table3"], "smoke", [], records, tmp_path, tmp_path / "runs")
    html = (tmp_path / "report.html").read_text()
    assert html.count("<img") == html.count('src="data:image/png;base64,') == 2
    assert not re.findall(r'(?:href|src)="(?!data:)', html)
    assert "http" not in html
    assert "f00" in html
    assert "python -m scalevae_jax.train" in html
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert {row["table"] for row in rows} == {"table1", "table3"}
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["table"] == "table1"
    for link in re.findall(r"\]\((.*?)\)", (tmp_path / "report.md").read_text()):
        assert (tmp_path / link).is_file()


def test_the_spaces_of_the_first_seed_are_drawn_with_their_numbers(tmp_path, rng):
    records = []
    for row in shown("figure1", SMOKE):
        for seed in (0, 1):
            numbers = {"kl_aggregate": 1.25 + seed, "kl_aggregate_q": 0.5 + seed, "mi": 2.0, "purity": 0.75}
            found = _record(row, seed) | {"corpus": trained_on(SMOKE, row), "space": numbers}
            found["run"] += row.partition
            (tmp_path / found["run"]).mkdir()
            arrays = {"mean": rng.normal(size=(9, 2)), "logvar": rng.normal(size=(9, 2))}
            np.savez(tmp_path / found["run"] / ARRAYS, **arrays, factor=np.ones(2), labels=np.arange(9) % 3)
            records.append(found)
    made = reproduce.draw(["figure1", "figure2"], SMOKE, records, tmp_path, tmp_path / "figures")
    assert {"figure1.png", "figure2.png"} <= {path.name for path in made if path.stat().st_size > 10_000}
    of_q_hat, of_q = (reproduce._spaces(table, SMOKE, records, tmp_path) for table in ("figure1", "figure2"))
    assert [each.title for each in of_q_hat] == [f"{row.method}, {row.partition}" for row in shown("figure1", SMOKE)]
    assert of_q_hat[0].caption == "purity 0.75, KL from prior 1.25 nats\nMI 2.00 nats"
    assert [each.title for each in of_q] == [row.method for row in shown("figure2", SMOKE)]
    assert of_q[0].caption == "KL from prior 0.50 nats"
    records[0]["space"]["purity"] = None
    assert reproduce._spaces("figure1", SMOKE, records, tmp_path)[0].caption.startswith("KL from prior 1.25 nats\n")


def test_a_file_that_is_no_record_is_named(tmp_path):
    for text in ("{", "{}", "[]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=r"bad.json: not the record of a run .*delete it, and it is made again"):
            reproduce.read_records(tmp_path)


def test_no_record_is_made_of_a_run_that_is_damaged_or_was_not_trained(tmp_path):
    make_run(tmp_path)
    for text, said in (("", "no epoch has been trained yet"), ("{", "metrics.jsonl: not readable: ")):
        (tmp_path / "metrics.jsonl").write_text(text)
        with pytest.raises(InputError, match=said):
            read(tmp_path)


def test_a_record_is_made_of_the_workdir_alone_and_names_no_folder_of_the_machine(tmp_path, capsys):
    make_run(tmp_path / "a_run")
    line = dict.fromkeys((*CURVES, "valid_loss"), 1.0)
    lines = [
        line | {"epoch": i + 1, "step": i, "seconds": s, "seconds_compiling": c, "lr": 1.0, "valid_loss": abs(i - 1.0)}
        for i, (s, c) in enumerate(((9.0, 6.5), (2.5, 0.5), (2.0, 0.0)))
    ]
    (tmp_path / "a_run/metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (tmp_path / "a_run/eval_test.json").write_text(json.dumps({"nll": 3.0, "data": {"path": "/home/me/text"}}))
    found = read(tmp_path / "a_run")
    assert found["evaluation"] == {"nll": 3.0, "data": {"path": "text"}}
    assert found["training"]["seconds_compiling"] == 7.0
    assert found["training"]["seconds_epoch"] == 2.0
    assert found["training"]["hours"] == pytest.approx(6.5 / 3600)
    assert found["training"]["hours_to_best"] == pytest.approx(4.5 / 3600)
    assert (found["training"]["best_epoch"], found["corpus"], found["method"]) == (2, "data", "scale_vae")
    assert str(tmp_path) not in json.dumps(found)
    argv = ["record", str(tmp_path / "a_run"), "--out", str(tmp_path / "kept")]
    for given, code, said in ((argv[:2], 2, "and --out, are wanted"), (argv, 0, "written to")):
        assert command.run("record", _command, FLAGS, "", argv=given, positional=True) == code
        assert said in "".join(capsys.readouterr())
    assert json.loads((tmp_path / "kept/a_run.json").read_text()) == json.loads(json.dumps(found))


def _trial(out, name, *steps, after=None):
    row = ROWS["table6"][0]
    return Trial(row, SMOKE.settings["yahoo"], 0, out / "runs" / name, steps, after)


def test_a_run_that_fails_is_said_and_stops_only_who_needs_it(tmp_path):
    bad = Command("train", ("--config", "no/such.py"), "")
    scheduled = Scheduler(
        tmp_path, [_trial(tmp_path, "bad", bad), _trial(tmp_path, "needs it", bad, after=tmp_path / "runs/bad")], jobs=2
    )
    scheduled.run()
    assert "no/such.py" in scheduled.failed["bad"]
    assert scheduled.failed["needs it"] == "bad, which it needs, failed"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system lets nobody choose cores")
def test_jobs_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5})
    jobs = Scheduler(tmp_path, [], jobs=2)
    assert [jobs._cores(slot) for slot in range(2)] == [[2, 5], [3]]
    assert Scheduler(tmp_path, [], jobs=1)._cores(0) == []
    assert Scheduler(tmp_path, [], jobs=2, devices=["0"])._cores(0) == []


def test_jobs_take_turns_at_devices_and_share_memory_where_they_must(tmp_path):
    environment = Scheduler(tmp_path, [], jobs=3, devices=["0", "5"])._environment
    assert [environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "5", "0"]
    assert environment(0)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert (
        "XLA_PYTHON_CLIENT_PREALLOCATE"
        not in Scheduler(tmp_path, [], 2, ["0", "5"])._environment(0).keys() - os.environ
    )


def test_what_is_left_of_a_trial_is_what_its_files_do_not_show(tmp_path):
    steps = [
        Command(module, (), output) for module, output in (("train", ""), ("evaluate", "e.json"), ("probe", "p.json"))
    ]
    trial = _trial(tmp_path, "a", *steps)
    assert runner.todo(trial) == steps
    trial.workdir.mkdir(parents=True)
    (trial.workdir / STEPS).write_text('{"train": {}}')
    assert runner.todo(trial) == steps[1:]
    (trial.workdir / "p.json").write_text("{}")
    assert runner.todo(trial) == steps[1:2]
    assert not runner.done(trial)
    trial.record.parent.mkdir()
    trial.record.write_text('{"run": "a", "evaluation": {}}')
    assert not runner.done(trial)
    trial.record.write_text('{"run": "a", "evaluation": {}, "probe": {}}')
    assert runner.done(trial)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what is to be reproduced"),
        (["table9"], "table9: of table1, table2"),
        (["table5", "--methods", "mae"], "--methods mae: the tables asked for have bn_vae, scale_vae"),
        (["table1", "--scale", "cpu"], "wants --data=DIR"),
        (["table1", "--scale", "huge"], "--help"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys):
    for flag in ("methods", "scale"):
        reproduce.FLAGS[flag].unparse()
    argv = ["reproduce", *arguments]
    code = command.run("reproduce", reproduce._command, reproduce.FLAGS, "", argv=argv, positional=True)
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    for flag in ("methods", "scale"):
        reproduce.FLAGS[flag].unparse()


def test_a_part_of_smoke_is_stopped_goes_on_and_is_not_done_twice(tmp_path):
    arguments = ["table1", "--methods", "lstm_lm,vae", "--out", str(tmp_path), "--jobs", "2"]
    line = [sys.executable, "-m", "scalevae_jax.reproduce", *arguments]
    environment = os.environ | typed.ONE_DEVICE | {"PYTHONPATH": str(ROOT)}
    options = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(line, **options)
    metrics = tmp_path / "runs/tiny-vae-seed_0/metrics.jsonl"
    while first.poll() is None and not (metrics.is_file() and metrics.read_text().count("\n")):
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=120)
    assert first.returncode == 130, error
    assert "the same command goes on" in error
    second = subprocess.run(line, **options, check=False, timeout=300)
    assert second.returncode == 0, second.stderr
    assert "2/2" in second.stdout
    vae = json.loads((tmp_path / "rows/tiny-vae-seed_0.json").read_text())
    assert vae["training"]["curves"]["epoch"] == [1, 2, 3]
    assert vae["evaluation"]["examples"] == 100
    assert set(vae["steps"]) == {"train", "eval_test.json"}
    assert (tmp_path / "figures/curves_tiny.png").stat().st_size > 10_000
    third = subprocess.run(line, **options, check=True, timeout=120)
    assert "2 runs, 2 done before" in third.stdout
    assert set(WANTED) == set(ROWS)

"""The runner: what is done is kept, a stopped sweep goes on, a failure stops only what needs it.

Small programs take the place of the package's commands, so that only the slow test trains anything.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from runs_by_hand import write_workdir

from scalevae_jax.comparison import runner
from scalevae_jax.comparison.runner import Runner
from scalevae_jax.comparison.trial import STEPS, Command, Trial
from scalevae_jax.reproduce import __main__ as reproduce
from scalevae_jax.reproduce.trials import SCALES, plan

PROGRAMS = {
    # A first training stops after one epoch at a signal, if STOP says so; any other goes on to the end.
    "train": """
        if "no/such.py" in sys.argv:
            sys.exit("error: no/such.py")
        name = next(x.partition("=")[2] for x in sys.argv if x.startswith("--config.method.name="))
        source = pathlib.Path("finished", name)
        if os.environ.get("STOP") and not (folder / "metrics.jsonl").exists():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            (folder / "metrics.jsonl").write_text((source / "metrics.jsonl").read_text().splitlines()[0])
            time.sleep(60)
        shutil.copytree(source, folder, dirs_exist_ok=True)
        """,
    "evaluate": """(folder / "eval_test.json").write_text('{"nll": 3.0}')""",
    "interpolate": """print("a\\nb")""",
}
HEAD = """
import json, os, pathlib, shutil, signal, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which processes find another package of the name scalevae_jax than the real one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scalevae_jax").mkdir()
    (tmp_path / "scalevae_jax/__init__.py").touch()
    for name, text in PROGRAMS.items():
        (tmp_path / f"scalevae_jax/{name}.py").write_text(HEAD + textwrap.dedent(text))
    for method in ("lstm_lm", "scale_vae"):
        write_workdir(tmp_path / "finished" / method, method)
    return tmp_path


def training(workdir: Path, *arguments: str) -> Command:
    return Command("train", ("--workdir", str(workdir), *arguments), "", "")


def test_a_stopped_sweep_goes_on_and_nothing_is_done_twice(folder, monkeypatch, capsys):
    tables, methods, views = ["table1", "table6"], ("lstm_lm", "scale_vae"), []
    sweep = Runner(Path("out"), plan(tables, SCALES["smoke"], 1, methods, None, Path("out")), jobs=2)

    def interrupt() -> None:
        def written() -> int:
            return sum(path.stat().st_size > 0 for path in folder.glob("out/runs/*/metrics.jsonl"))

        while written() < 2 or len(sweep._running) < 2:
            time.sleep(0.02)
        views.append(sweep.view())
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setenv("STOP", "1")
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(runner.Stopped, match="5 of 5 runs are left"):
        sweep.run()
    names, commands, epochs, *_ = [list(column.cells) for column in views[0].columns]
    assert set(names) == {trial.name for trial in sweep._trials[:2]}  # two threads start them, in any order
    assert (commands, epochs) == (["train"] * 2, ["1"] * 2)
    assert views[0].title == "0 of 5 done, 0 failed, eta unknown"
    assert not list(folder.glob("out/rows/*"))

    monkeypatch.delenv("STOP")
    arguments = [*tables, "--methods", ",".join(methods), "--out", "out", "--jobs", "2"]
    assert reproduce.main(arguments) == 0
    assert "done 5/5" in capsys.readouterr().out
    record = json.loads((folder / "out/rows/tiny-scale_vae-des_std_0.7-f_epo_1-seed_0.json").read_text())
    assert record["evaluation"] == {"nll": 3.0}
    assert record["interpolations"] == 2 * [["a", "b"]]
    assert list(record["steps"]) == ["train", "eval_test.json", "interpolations_0.txt", "interpolations_1.txt"]
    assert record["steps"]["eval_test.json"]["command"].startswith("python -m scalevae_jax.evaluate --workdir out/runs")
    assert "| lstm_lm | 3.00 |" in (folder / "out/report.md").read_text()
    assert (folder / "out/figures/curves_tiny.png").stat().st_size > 10_000

    (folder / "scalevae_jax/train.py").write_text("raise SystemExit('a finished run is trained again')")
    assert reproduce.main(arguments) == 0
    assert "5 runs, 5 done before" in capsys.readouterr().out
    assert reproduce.main([*arguments, "--list"]) == 0
    assert capsys.readouterr().out == ""


def test_a_failure_stops_only_the_runs_that_need_it(folder):
    bad = Trial(folder / "runs/bad", (training(folder / "runs/bad", "no/such.py"),))
    needs_it = Trial(folder / "runs/needs it", bad.commands, after=bad.workdir)
    good = Trial(folder / "runs/good", (training(folder / "runs/good", "--config.method.name=lstm_lm"),))
    sweep = Runner(folder, [bad, good, needs_it], jobs=2)
    sweep.run()
    assert "train ended with exit code 1: error: no/such.py (log: " in sweep.failed["bad"]
    assert sweep.failed["needs it"].endswith("bad, which it needs, failed")
    assert good.record.is_file()
    assert len(sweep.failed) == 2


def test_what_is_left_of_a_trial_is_what_its_files_do_not_show(tmp_path):
    measurements = Command("evaluate", (), "evaluation", "e.json"), Command("probe", (), "probe", "p.json")
    trial = Trial(tmp_path / "runs/a", (training(tmp_path), *measurements))
    assert runner.left(trial) == list(trial.commands)
    trial.workdir.mkdir(parents=True)
    (trial.workdir / STEPS).write_text('{"train": {}}')
    assert runner.left(trial) == list(measurements)
    (trial.workdir / STEPS).unlink()
    (trial.workdir / "p.json").write_text("{}")  # nothing can be measured of a run that is not trained
    assert runner.left(trial) == [measurements[0]]
    trial.record.parent.mkdir()
    for record, done in (({"evaluation": {}}, False), ({"evaluation": {}, "probe": {}}, True)):
        trial.record.write_text(json.dumps(record | {"training": {"curves": {}}}))
        assert runner.done(trial) is done


def test_jobs_share_cores_and_devices(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    three = Runner(tmp_path, [], jobs=3, devices=["0", "5"])
    assert [three._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "5", "0"]
    assert three._environment(0)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"  # two jobs on one device
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in Runner(tmp_path, [], 2, ["0", "5"])._environment(0)
    if hasattr(os, "sched_setaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5})
        assert [Runner(tmp_path, [], jobs=2)._cores(slot) for slot in range(2)] == [[2, 5], [3]]
        assert Runner(tmp_path, [], jobs=1)._cores(0) == three._cores(0) == []


@pytest.mark.slow
def test_the_real_commands_fill_tables_and_figures(tmp_path):
    what = ["table1", "table4", "table5", "table6", "figure2", "--methods", "scale_vae", "--jobs", "2"]
    line = [sys.executable, "-m", "scalevae_jax.reproduce", *what, "--out", str(tmp_path)]
    subprocess.run(line, cwd=Path(__file__).parents[2], check=True, timeout=1200)
    sections = {key for path in (tmp_path / "rows").glob("*.json") for key in json.loads(path.read_text())}
    assert {"evaluation", "probe", "text_quality", "interpolations", "space"} <= sections
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {
        "figure2",
        "curves_tiny",
        "curves_synthetic",
    }

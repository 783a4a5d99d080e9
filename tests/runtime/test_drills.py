"""Faults of one host: every living one ends soon, with one clear line, and the run goes on from its last checkpoint."""

import json
import re
import shutil
import signal

import pytest
from hosts import ROOT, Hosts

pytestmark = pytest.mark.slow

SMALL = [
    f"--config={ROOT / 'configs' / 'smoke.py'}",
    "--config.train.max_epochs=500",
    "--config.model.hidden=16",
    "--config.model.embedding=16",
    "--config.data.limit_train=200",
    "--config.data.limit_valid=50",
    "--config.data.buckets=2",
    "--config.checkpoint.every_steps=3",
]


def says(end, code, *parts, seconds=None):
    """One error, with these words, this code, no stack; in time."""
    assert end.code == code, end
    assert end.stderr.count("error:") == 1, end.stderr
    assert "Traceback" not in end.stderr
    assert "Check failure stack" not in end.stderr
    for part in parts:
        assert part in end.stderr, end.stderr
    if seconds is not None:
        assert end.seconds < seconds, end
    print(f"{end.seconds:.1f} s, code {end.code}: {end.stderr.strip()}")


@pytest.mark.parametrize(("dead", "again"), [(0, 2), (1, 1)])
def test_a_host_is_killed_and_the_run_goes_on(dead, again, tmp_path):
    """The other says so; the same command goes on with `again` processes."""
    folder = tmp_path / "run"
    with Hosts(2, [*SMALL, f"--workdir={folder}"]) as hosts:
        for process in (0, 1):
            hosts.start(process)
        hosts.wait_for(folder / "checkpoints" / "latest" / "[1-9]*[0-9]")
        hosts.kill(dead)
        end = hosts.ends()[1 - dead]
    says(end, 3, "the last checkpoint is whole, and the same command", seconds=60)
    log = folder / "metrics.jsonl"
    done = len(log.read_text().splitlines())
    rest = [*SMALL, f"--workdir={folder}", f"--config.train.max_epochs={done + 2}"]
    with Hosts(again, rest) as hosts:
        for process in range(again):
            hosts.start(process)
        ends = hosts.ends()
    assert all(end.code == 0 for end in ends.values()), ends
    assert "resumed in epoch" in ends[0].stdout
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == list(range(1, done + 3))


@pytest.mark.parametrize("present", [0, 1])
def test_a_host_that_never_comes(present, tmp_path):
    with Hosts(2, [*SMALL, f"--workdir={tmp_path / 'run'}"]) as hosts:
        hosts.start(present, "--initialization_timeout=2")
        says(hosts.ends()[present], 2, f"process {present} of 2: not all were there within 2 s")
    assert not (tmp_path / "run" / "config.json").exists()


def test_other_data_on_one_host(tmp_path):
    """All are told, and nothing is begun."""
    for process in "01":
        shutil.copytree(ROOT / "scalevae_jax" / "data" / "tiny", tmp_path / process / "data")
    with (tmp_path / "1" / "data" / "train.txt").open("a") as file:
        file.write("0\tone line more .\n")
    with Hosts(2, [*SMALL, f"--workdir={tmp_path / 'run'}", "--config.data.path=data"]) as hosts:
        for process in (0, 1):
            hosts.start(process, here=tmp_path / str(process))
        ends = hosts.ends()
    for end in ends.values():
        says(end, 2, "train data of process 1 is not that of process 0")
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_error_of_one_host_ends_all(tmp_path):
    """The data is not there: that host says so, and the other says which host it was."""
    shutil.copytree(ROOT / "scalevae_jax" / "data" / "tiny", tmp_path / "0" / "data")
    (tmp_path / "1").mkdir()
    with Hosts(2, [*SMALL, f"--workdir={tmp_path / 'run'}", "--config.data.path=data"]) as hosts:
        for process in (0, 1):
            hosts.start(process, here=tmp_path / str(process))
        ends = hosts.ends()
    says(ends[1], 2, "error: no such file or folder")
    says(ends[0], 2, "error: process 1 of 2: no such file or folder")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "sigint"])
def test_a_signal_at_one_host_saves_and_stops_all(number, tmp_path):
    folder = tmp_path / "run"
    with Hosts(2, [*SMALL, f"--workdir={folder}"]) as hosts:
        for process in (0, 1):
            hosts.start(process)
        hosts.wait_for(folder / "checkpoints" / "latest" / "[1-9]*[0-9]")
        hosts.kill(1, number)
        ends = hosts.ends()
    said = [re.findall(r"^SIGTERM: stopped at step \d+", end.stderr, re.MULTILINE) for end in ends.values()]
    assert [end.code for end in ends.values()] == [143, 143], ends
    assert said[0] == said[1]
    assert len(said[0]) == 1

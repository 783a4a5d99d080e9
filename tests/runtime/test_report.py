"""What a run leaves in metrics.jsonl, and what it says while it works."""

import json

import pytest

from scalevae_jax.runtime import console
from scalevae_jax.training.log import METRICS, EpochLog


def line(epoch: int, **changes) -> dict:
    numbers = dict.fromkeys(
        ("lr", "kl_weight", "train_rec", "valid_rec", "seconds", "seconds_compiling", "tokens_per_second"), 1.0
    )
    nothing = dict.fromkeys(("train_kl", "valid_kl", "mi", "au", "au_hat", "factor_min", "factor_median", "factor_max"))
    return {"epoch": epoch, "step": 10 * epoch} | numbers | nothing | changes


def written(folder) -> list[dict]:
    return [json.loads(text) for text in (folder / METRICS).read_text().splitlines()]


def test_a_resumed_log_has_no_doubled_and_no_torn_line(tmp_path):
    log = EpochLog(tmp_path, 1, 0)
    for epoch in (1, 2, 3):
        log.write(line(epoch), max_epochs=4)
    log.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"epoch": 4, "st')
    log = EpochLog(tmp_path, 3, 20)
    log.write(line(3, lr=0.5), max_epochs=4)
    log.close()
    assert [(each["epoch"], each["lr"]) for each in written(tmp_path)] == [(1, 1.0), (2, 1.0), (3, 0.5)]


def test_an_epoch_line_has_a_dash_where_there_is_no_value_and_the_factor_where_there_is(tmp_path, capsys):
    log = EpochLog(tmp_path, 1, 0)
    log.write(line(1), max_epochs=3)
    log.write(line(2, seconds_compiling=0.4, factor_min=1.5, factor_median=2.0, factor_max=3.25), max_epochs=3)
    log.close()
    without, with_factor = capsys.readouterr().out.strip().splitlines()
    assert "kl -" in without
    assert "factor" not in without
    assert "1 s (1 s compiling) eta" in without
    assert "1 s eta" in with_factor
    assert "factor 1.5/2/3.25" in with_factor
    assert "au_hat" not in with_factor
    assert "eta" in with_factor


def test_the_time_left_is_that_of_epochs_without_compilation(tmp_path, capsys, monkeypatch):
    log = EpochLog(tmp_path, 1, 0)
    started = log._started
    with monkeypatch.context() as patch:
        patch.setattr(console.time, "monotonic", lambda: started + 100)
        log.write(line(1, seconds_compiling=90.0), max_epochs=3)
    log.close()
    assert capsys.readouterr().out.endswith("(90 s compiling) eta 0:20\n")


def test_an_epoch_line_has_the_active_units_of_q_hat_where_they_are_others(tmp_path, capsys):
    log = EpochLog(tmp_path, 1, 0)
    log.write(line(1, au=3, au_hat=16, factor_min=1.5, factor_median=2.0, factor_max=3.25), max_epochs=1)
    log.close()
    assert "au 3 au_hat 16 factor 1.5/2/3.25 |" in capsys.readouterr().out


def test_tensorboard_files_are_written(tmp_path):
    log = EpochLog(tmp_path, 1, 0)
    log.write(line(1), max_epochs=1)
    log.close()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_without_a_terminal_progress_is_a_line_now_and_then_with_an_eta(capsys, monkeypatch):
    monkeypatch.setattr(console.Progress, "EVERY", 0.0)
    with console.Progress("epoch 1/2", total=10) as ticker:
        assert ticker.due
        ticker.tick(4, "loss 3.25")
    assert capsys.readouterr().out.startswith("  epoch 1/2 4/10 loss 3.25 eta ")
    monkeypatch.setattr(console.Progress, "EVERY", 1e9)
    with console.Progress("epoch 1/2", total=10) as ticker:
        assert not ticker.due
        ticker.tick(4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (61.2, "1:01"), (3661.0, "1:01:01"), (-3.0, "0:00")])
def test_durations_read_as_clocks(seconds, text):
    assert console.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (1.234, "1.23"), (3, "3")])
def test_cells(value, text):
    assert console.format_number(value) == text

"""The log of a run: metrics.jsonl, the line of an epoch, TensorBoard."""

import json

import tensorboardX

from scalevae_jax.training import log as training_log
from scalevae_jax.training.log import METRICS, EpochLog


def line(epoch: int, **changes) -> dict:
    numbers = dict.fromkeys(
        ("lr", "kl_weight", "train_rec", "valid_rec", "seconds", "seconds_compiling", "tokens_per_second"), 1.0
    )
    without = dict.fromkeys(("train_kl", "valid_kl", "mi", "au", "au_hat", "factor_min", "factor_median", "factor_max"))
    return {"epoch": epoch, "step": 10 * epoch} | numbers | without | changes


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
    written = [json.loads(text) for text in (tmp_path / METRICS).read_text().splitlines()]
    assert [(epoch["epoch"], epoch["lr"]) for epoch in written] == [(1, 1.0), (2, 1.0), (3, 0.5)]


def test_an_epoch_line_has_a_dash_where_there_is_no_value_and_q_hat_where_it_is_another(tmp_path, capsys):
    log = EpochLog(tmp_path, 1, 0)
    log.write(line(1), max_epochs=3)
    scaled = {"au": 3, "au_hat": 16, "factor_min": 1.5, "factor_median": 2.0, "factor_max": 3.25}
    log.write(line(2, seconds_compiling=0.4, **scaled), max_epochs=3)
    log.close()
    without, with_factor = capsys.readouterr().out.strip().splitlines()
    assert "kl -" in without
    assert "factor" not in without
    assert "au_hat" not in without
    assert " 1 s (1 s compiling), at most " in without
    assert " 1 s, at most " in with_factor
    assert "au 3 au_hat 16 factor 1.5/2/3.25 |" in with_factor


def test_the_time_left_is_that_of_epochs_without_compilation(tmp_path, capsys, monkeypatch):
    log = EpochLog(tmp_path, 1, 0)
    started = log._started
    with monkeypatch.context() as patch:
        patch.setattr(training_log.time, "monotonic", lambda: started + 100)
        log.write(line(1, seconds_compiling=90.0), max_epochs=3)
    log.close()
    assert capsys.readouterr().out.endswith("(90 s compiling), at most 0:20 left\n")


def test_tensorboard_has_curves_by_step_without_what_is_not_finite_and_text_as_it_is(tmp_path, monkeypatch):
    added = []

    class Board:
        def __init__(self, *_, **__): ...

        def add_scalar(self, *values):
            added.append(values)

        add_text = add_scalar

    monkeypatch.setattr(tensorboardX, "SummaryWriter", Board)
    log = EpochLog(tmp_path, 1, 0)
    log.step(50, {"loss": 2.0, "gradient_norm": float("nan")})
    log.text("samples", ["a *dog*", "a cat"], 50)
    assert added == [("step/loss", 2.0, 50), ("samples", "    a *dog*\n    a cat", 50)]
    other = EpochLog(tmp_path, 1, 0, writing=False)
    other.step(100, {"loss": 1.0})
    other.text("samples", [], 100)
    assert (log.has_board, other.has_board, len(added)) == (True, False, 2)

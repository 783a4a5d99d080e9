"""What a command prints: progress, durations, numbers, columns."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from scalevae_jax.core.types import InputError
from scalevae_jax.runtime import console


def test_text_is_printed_as_it_stands(capsys):
    table = Table("label [b]", title=":smile:")
    table.add_row("[/a]")
    console.console.print(table)
    console.log("[/a] [b] :smile:")
    said = capsys.readouterr().out
    assert said.endswith("[/a] [b] :smile:\n")
    assert all(said.count(text) == 2 for text in ("[/a]", "[b]", ":smile:"))


def test_without_a_terminal_progress_is_a_line_now_and_then_with_an_eta(capsys, monkeypatch):
    monkeypatch.setattr(console.Progress, "EVERY", 0.0)
    with console.Progress("epoch 1/2", total=10) as progress:
        assert progress.due
        progress.tick(4, "loss 3.25")
    assert capsys.readouterr().out.startswith("  epoch 1/2 4/10 loss 3.25 eta ")
    with console.Progress("epoch 1/2", total=1000) as progress:
        progress.tick(4, "loss 3.25")  # most of the time so far is that of compiling
    assert capsys.readouterr().out == "  epoch 1/2 4/1000 loss 3.25\n"
    monkeypatch.setattr(console.Progress, "EVERY", 1e9)
    with console.Progress("epoch 1/2", total=10) as progress:
        assert not progress.due
        progress.tick(4)
    assert capsys.readouterr().out == ""


def test_the_time_left_does_not_count_what_came_before_a_restart(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(console.Progress, "EVERY", 0.0)
    with console.Progress("epoch 1/2", total=10) as progress:
        now[0] = 500.0  # of compiling
        progress.restart(2)
        now[0] += 4.0
        progress.tick(4)
    assert capsys.readouterr().out == "  epoch 1/2 4/10 eta 0:12\n"


def test_a_notebook_has_a_bar_that_is_redrawn_and_no_lines(capsys, monkeypatch):
    bar = io.StringIO()
    monkeypatch.setattr(console, "widgets", Console(file=bar, force_terminal=True, width=100))
    monkeypatch.setattr(console.Progress, "EVERY", 0.0)
    with console.Progress("epoch 1/2", total=10) as progress:
        assert progress.due
        progress.tick(4, "loss 3.25")
        print("a line")
    assert "epoch 1/2 loss 3.25" in bar.getvalue()
    assert capsys.readouterr().out == "a line\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (61.2, "1:01"), (3661.0, "1:01:01"), (-3.0, "0:00")])
def test_durations_read_as_clocks(seconds, text):
    assert console.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (1.234, "1.23"), (3, "3")])
def test_numbers_and_missing_ones(value, text):
    assert console.format_number(value) == text


def test_columns_go_to_standard_output_or_to_a_file(tmp_path, capsys):
    columns = {"nll": [1.23456789, 2.0], "tokens": [3, 4], "text": ["a b", "c"]}
    table = "nll\ttokens\ttext\n1.23457\t3\ta b\n2\t4\tc\n"
    console.write_columns(columns, None)
    console.write_columns(columns, tmp_path / "table.tsv")
    assert capsys.readouterr().out == (tmp_path / "table.tsv").read_text() == table
    with pytest.raises(InputError, match=r"^--per_sentence .*/no/table.tsv: cannot be written: "):
        console.write_columns(columns, tmp_path / "no/table.tsv", "--per_sentence")

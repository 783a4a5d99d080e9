"""Records are made of workdirs, and tables of records; the report holds everything that it shows."""

import csv
import json
import re

import pytest
from runs_by_hand import make_record, write_workdir

from scalevae_jax.comparison import records
from scalevae_jax.comparison.trial import STEPS
from scalevae_jax.inference import metrics
from scalevae_jax.reproduce import figures, tables
from scalevae_jax.reproduce.paper import ROWS
from scalevae_jax.reproduce.trials import SCALES, shown

SMOKE = SCALES["smoke"]


def texts(table: tables.Table, system: str, corpus: str) -> dict[str, str]:
    (row,) = (row for row in table.rows if (row.system, row.corpus) == (system, corpus))
    return dict(zip(table.header(), table.cells(row), strict=True))


def test_a_record_is_made_of_the_workdir_alone_and_names_no_folder_of_the_machine(tmp_path):
    folder = write_workdir(tmp_path / "a_run", path="/home/a=b/text")
    outputs = {
        "eval_test.json": {"nll": 3.0, "data": {"path": "/home/a=b/text"}},
        "text_quality.json": {"language_model": "/home/me/lm"},
        "probe.json": {"data": "/home/a=b/text"},
        STEPS: {"train": {"command": f"python --workdir {folder}", "seconds": 1.0}},
    }
    for name, output in outputs.items():
        (folder / name).write_text(json.dumps(output))
    (folder / "interpolations_1.txt").write_text("b\nc\n")
    (folder / "interpolations_0.txt").write_text("a\nb\n")
    record = records.read(folder)
    assert "/home" not in json.dumps(record)
    assert str(tmp_path) not in json.dumps(record)
    assert record["command"] == "train.py --workdir a_run --config.data.path=text"
    assert record["evaluation"] == {"nll": 3.0, "data": {"path": "text"}}
    assert (record["text_quality"], record["probe"]) == ({"language_model": "lm"}, {"data": "text"})
    assert record["interpolations"] == [["a", "b"], ["b", "c"]]
    assert record["steps"] == {"train": {"command": "python --workdir a_run", "seconds": 1.0}}
    assert (record["corpus"], record["method"], record["git"]) == ("text", "scale_vae", "f00")
    training = record["training"]
    assert (training["epochs"], training["best_epoch"], training["steps"]) == (3, 2, 9)
    assert (training["seconds_epoch"], training["seconds_compiling"]) == (2.0, 7.0)
    assert training["hours"] == pytest.approx(6.5 / 3600)
    assert training["hours_to_best"] == pytest.approx(4.5 / 3600)


def test_a_cell_has_the_mean_the_spread_and_the_papers_number():
    row = next(row for row in ROWS["table1"] if row.method == "vae")
    runs = [make_record(row, seed, evaluation={"nll": 40.0 + seed, "nll_paper": 40.0}) for seed in (0, 2)]
    table = tables.fill("table1", SMOKE, runs, ("vae",))
    cells = texts(table, "vae", "tiny")
    assert (cells["nll"], cells["nll_paper"], cells["mpd"]) == ("41.00 ± 1.41", "40.00 ± 0.00 (328.6)", "-")
    number = next(number for number in tables.numbers([table]) if number.measure == "nll_paper")
    assert (number.mean, number.std, number.seeds, number.paper) == (40.0, 0.0, 2, 328.6)


def test_table_2_is_relative_to_the_vae():
    table = tables.fill("table2", SMOKE, [make_record(row) for row in shown("table2", SMOKE)])
    assert [row.values["ratio_to_vae"] for row in table.rows] == [[1.0], [0.5], [0.5]]
    assert [row.reported["ratio_to_vae"] for row in table.rows] == [1.00, 1.01, 0.91]  # as the paper prints them


def test_the_report_is_whole_and_the_page_asks_for_no_other_file(tmp_path):
    evaluation = dict.fromkeys(metrics.ESTIMATES, 40.0)
    runs = [make_record(row, evaluation=evaluation) for row in shown("table3", SMOKE)[:3]]
    runs[0]["interpolations"] = [["a <b>", "c"]]
    pictures = figures.draw(["table3"], SMOKE, runs, tmp_path / "runs", tmp_path / "figures")
    tables.write(["table1", "table3", "table6"], "smoke", [], runs, pictures, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == page.count('src="data:image/png;base64,') == 1
    assert not re.findall(r'(?:href|src)="(?!data:)', page)
    assert "http" not in page
    for text in ("f00", "python -m scalevae_jax.train", "a &lt;b&gt;", "<td>40.00</td>"):
        assert text in page
    numbers = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert {number["table"] for number in numbers} == {"table1", "table3"}
    assert list(json.loads((tmp_path / "report.json").read_text())["rows"][0]) == list(numbers[0])
    markdown = (tmp_path / "report.md").read_text()
    assert "\n```text\na <b>\nc\n```\n" in markdown
    (link,) = re.findall(r"\]\((.*?)\)", markdown)
    assert (tmp_path / link).stat().st_size > 10_000

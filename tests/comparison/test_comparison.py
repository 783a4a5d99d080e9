"""Comparisons of records: systems, their order, the plane's numbers, differences, and what cannot be compared."""

import copy
import csv
import json

import numpy as np
import pytest
from runs_by_hand import make_record, write_workdir

from scalevae_jax.comparison import comparison, records
from scalevae_jax.comparison.comparison import compare
from scalevae_jax.core.types import InputError
from scalevae_jax.inference import metrics
from scalevae_jax.inference.evaluate import RATES
from scalevae_jax.reproduce.paper import Row

COSTS = {
    "vae": dict(zip(metrics.BOUNDS, (42.0, 42.0, 41.5, 41.4, 41.3), strict=True)),
    "scale_vae": dict(zip(metrics.BOUNDS, (45.0, 41.0, 40.5, 40.3, 40.2), strict=True)),
    "lstm_lm": dict.fromkeys(metrics.BOUNDS, 40.0),
}


def run(method, seed=0, hyperparameters=None, shift=0.0, **changes):
    """An evaluated run; sentences differ from each other, and by `shift` from those of other seeds."""
    own = np.random.default_rng(1).normal(size=30)
    latent, scaled = method != "lstm_lm", method == "scale_vae"
    evaluation = {
        **{key: value + shift for key, value in COSTS[method].items()},
        **{key: 3.0 + i for i, key in enumerate(RATES)},
        **{"nll_paper": 39.0, "rec": 36.0 + shift, "kl": 1.0 if latent else None, "mi": 2.0 if latent else None},
        **{"factor_median": 2.0 if scaled else None, "split": "test", "data": {"sha256": "abc"}},
        "iw_samples": 500 if latent else 1,
    }
    if not latent:
        evaluation |= dict.fromkeys(RATES) | {"rec": 40.0}
    bound = min(COSTS[method].values()) + shift
    record = make_record(Row("yelp", method, hyperparameters or {}, {}), seed, evaluation=evaluation)
    record["run"] = f"{method}-{seed}"
    record["config"] = {"data": {"vocab_size": 5000}, "train": {"seed": seed, "batch_size": 32}}
    record["training"] |= {"best_epoch": 2, "seconds_epoch": 1.5}
    record["sentences"] = {"bound": (bound + own - own.mean()).tolist(), "rec": (36 + own).tolist()}
    for field, value in changes.items():
        record["config"]["train"][field] = value
    return record


@pytest.fixture
def found():
    runs = [run("vae", seed, shift=0.1 * seed) for seed in range(3)]
    runs += [run("scale_vae", seed, {"des_std": 0.9}, shift=0.1 * seed) for seed in range(3)]
    return [*runs, run("lstm_lm")]


def test_seeds_are_one_line_and_lines_are_sorted_by_the_tightest_bound(found):
    compared = compare(found, "vae")
    table = compared.table
    assert table["system"] == ["lstm_lm", "scale_vae des_std=0.9", "vae"]
    assert table["seeds"] == [1, 3, 3]
    assert table["prior"] == ["exact", "mixture", "mixture"]
    assert table["bound"] == pytest.approx([40.0, 40.3, 41.4])
    assert table["bound_std"] == [None, pytest.approx(0.1), pytest.approx(0.1)]
    assert table["rate"] == [None, 7.0, 7.0]  # under the mixture, the last of RATES
    assert table["mi"][0] is None
    assert {len(column) for column in table.values()} == {3}


def test_differences_are_those_of_the_sentences(found):
    compared = compare(found, "vae")
    assert compared.baseline.name == "vae"
    assert set(compared.differences) == {"lstm_lm", "scale_vae des_std=0.9"}
    scale = compared.differences["scale_vae des_std=0.9"]
    assert (scale.mean, scale.word, scale.seeds) == (pytest.approx(-1.1), "lower", True)
    assert not compared.differences["lstm_lm"].seeds  # one seed
    assert compare(found).differences == {}


def test_the_plane_has_the_rate_of_the_bound_and_what_eq_7_pays(found):
    points = {(point.system, point.seed): point for point in compare(found).points}
    assert points["lstm_lm", 0][3:] == ("exact", 0.0, 40.0, 40.0, None)
    assert points["vae", 1][3:] == ("mixture", 7.0, pytest.approx(36.1), pytest.approx(41.4), None)
    assert points["scale_vae des_std=0.9", 0].paid == 1.0


def test_fields_that_differ_make_systems_and_have_their_names(found):
    other = [run("vae", 0, shift=-0.5, batch_size=64)]
    assert compare(found + other).table["system"][2:] == ["vae batch_size=64", "vae batch_size=32"]


def test_a_record_that_is_older_than_a_field_had_its_default(found):
    found[0]["config"]["train"]["encoder_from"] = ""
    assert compare(found, "vae").table["seeds"] == [1, 3, 3]
    found[0]["config"]["train"]["encoder_from"] = "runs/other"
    assert sorted(compare(found).table["seeds"]) == [1, 1, 2, 3]


def test_the_report_is_whole(found, tmp_path):
    files = compare(found, "vae").write(tmp_path)
    assert all((tmp_path / name).stat().st_size > 100 for name in files)
    page = (tmp_path / "comparison.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "scale_vae des_std=0.9" in page
    assert "| lower | -1.10 |" in (tmp_path / "comparison.md").read_text()
    plane = list(csv.DictReader((tmp_path / "plane.csv").open()))
    assert [float(row["rate"]) for row in plane] == [0, *[7] * 6]
    systems = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert [row["system"] for row in systems] == compare(found).table["system"]


def test_what_cannot_be_compared_is_named(found, tmp_path, capsys):
    other = copy.deepcopy(found[0])
    other["evaluation"]["data"]["sha256"] = "def"
    with pytest.raises(InputError, match="different sentences"):
        compare([*found, other])
    with pytest.raises(InputError, match="--baseline bn_vae: expected one of lstm_lm, scale_vae"):
        compare(found, "bn_vae")
    other = copy.deepcopy(found[0])
    other["config"]["data"]["vocab_size"] = 100
    compare(found)
    assert capsys.readouterr().out == ""
    compare([*found, other])
    assert "costs of unknown words differ" in capsys.readouterr().out
    other["evaluation"]["iw_samples"] = 50
    compare([*found, other])
    assert "bounds with 50, 500 draws" in capsys.readouterr().out
    with pytest.raises(InputError, match="no evaluated run"):
        comparison.find([tmp_path])
    del other["sentences"]
    (tmp_path / "a.json").write_text(json.dumps(other))
    (tmp_path / "b.json").write_text(json.dumps(found[1]))
    assert [record["run"] for record in comparison.find([tmp_path])] == ["vae-1"]
    assert "vae-0: left out" in capsys.readouterr().out
    assert [record["run"] for record in comparison.find(tmp_path / "b.json")] == ["vae-1"]
    found[1]["evaluation"]["epoch"], found[1]["training"]["best_epoch"] = 1, 3
    (tmp_path / "b.json").write_text(json.dumps(found[1]))
    assert len(comparison.find([tmp_path / "b.json"])) == 1
    assert "vae-1: evaluated before its best epoch, 3" in capsys.readouterr().out


def test_a_baseline_is_its_name_before_it_is_its_method(found):
    other = run("scale_vae", 0, {"des_std": 0.3})
    plain = run("scale_vae", 0)
    assert compare([*found, other, plain], "scale_vae").baseline.name == "scale_vae"


def test_two_runs_of_a_system_with_a_seed_are_refused_unless_their_text_differs(found):
    other = copy.deepcopy(found[0])
    with pytest.raises(InputError, match=r"vae-0 and vae-0: both are vae with seed 0"):
        compare([*found, other])
    other["sha256"]["train"] = "123456789"
    assert "vae text=12345678" in compare([*found, other]).table["system"]


def test_seeds_may_differ_in_the_prior_of_their_bound(found):
    found[0]["evaluation"]["nll_mixture_prior"] = 99.0
    assert compare(found).table["prior"] == ["exact", "mixture", "full, mixture"]


def test_folders_that_hold_no_evaluated_run_are_named(tmp_path, capsys):
    begun = write_workdir(tmp_path / "runs/begun")
    (begun / "metrics.jsonl").write_text("")
    paper = write_workdir(tmp_path / "runs/paper")  # by --estimates nll_paper
    (paper / "eval_test.json").write_text(json.dumps({"nll_paper": 3.0, "data": {"path": "x"}}))
    (paper / "eval_test.tsv").write_text("nll_paper\trec\n3\t1\n")
    other = begun.rename(tmp_path / "runs/other")
    (other / "eval_test2-0123_train.json").write_text('{"nll": 3.0}')
    with pytest.raises(InputError, match="no evaluated run"):
        comparison.find([tmp_path])
    said = capsys.readouterr().out
    assert "no epoch has been trained yet" in said
    assert "paper: left out" in said
    remedy = "delete it, and it is made again"
    for text in ("{", "{}", "[]"):
        (paper / "eval_test.json").write_text(text)
        with pytest.raises(InputError, match=rf"eval_test.json: not the record of a run .*{remedy}"):
            comparison.find([paper / "eval_test.json"])
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="an exported model; give the folder of its run"):
        comparison.find([tmp_path])


def test_a_record_keeps_the_sentences_of_the_tightest_bound(tmp_path):
    (tmp_path / "t.tsv").write_text("nll\tnll_full_prior\trec\n3\t1\t0.12345\n5\t2\t7\n")
    assert records._sentences(tmp_path / "t.tsv", "nll_full_prior") == {"bound": [1.0, 2.0], "rec": [0.1234, 7.0]}

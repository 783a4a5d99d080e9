"""Every command once, end to end: what it prints, what it leaves, its exit code."""

import importlib
import json
import os
import re
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from scalevae_jax.training.log import read_metrics

SMOKE = ["--config", "smoke"]
TEXTS = "a man is sleeping .\ntwo dogs play outside .\n"


@pytest.fixture(scope="module")
def trained(trained_run, tmp_path_factory):
    """A copy of the trained run, which the commands may write to."""
    return shutil.copytree(trained_run, tmp_path_factory.mktemp("commands") / "run")


def test_sigint_in_the_middle_of_an_epoch_saves_and_the_same_command_goes_on(run, tmp_path):
    folder = tmp_path / "a run"
    small = ["--config.data.limit_train=3000", "--config.data.limit_valid=100", "--config.train.batch_size=16"]
    line = [*SMOKE, *small, "--config.checkpoint.every_steps=8", "--workdir", str(folder)]

    def interrupt():
        until = time.monotonic() + 120
        while not (folder / "checkpoints/8").exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    done = run("train", *line)
    assert done.code == 130
    (step,) = re.findall(r"^SIGINT: stopped at step (\d+).*; the same command resumes:$", done.error, re.MULTILINE)
    assert f"\n  python -m scalevae_jax.train {' '.join(line[:-1])} '{folder}'\n" in done.error
    assert "epoch 1/3 step" not in done.out
    done = run("train", *line, "--config.train.max_epochs=1")
    assert done.code == 0, done.error
    assert f"resumed in epoch 1 at step {step}" in done.out
    assert done.out.endswith(f"next: python -m scalevae_jax.evaluate --split test --workdir '{folder}'\n")
    first, *_ = done.out.splitlines()
    assert all(word in first for word in ("jax 0.", "1 x cpu", "seed 0", str(folder)))
    (epoch,) = (json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines())
    keys = "epoch step lr kl_weight train_loss train_rec train_kl valid_loss valid_rec valid_kl mi au au_hat"
    keys += " factor_min factor_median factor_max seconds seconds_compiling tokens_per_second"
    assert set(keys.split()) <= set(epoch)
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "vocab.txt", "run.json", "metrics.jsonl", "tensorboard", "checkpoints", "fitted_prior.json")
    }


def test_a_dry_run_prints_what_a_run_would_take_and_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("train", *SMOKE, "--dry_run")
    assert done.code == 0, done.error
    assert list(tmp_path.iterdir()) == []
    assert '"des_std": 0.7' in done.out
    assert re.search(r"decoder/output +│ 16 x 500 +│ 8,000 +│ 0.03", done.out)
    assert re.search(r"all +│ +│ 28,800 ", done.out)
    assert re.search(r"time: about \d:\d\d an epoch of 126 steps here, ", done.out)


def test_another_method_drops_hyperparameters_and_prints_their_names(run, tmp_path):
    done = run("train", *SMOKE, "--config.method.name=vae", "--config.data.path=nowhere", "--workdir", str(tmp_path))
    assert done.code == 2
    assert "the file's des_std, f_epo (of scale_vae) dropped" in done.out


def test_a_damaged_run_is_one_line_and_fallback_reads_an_older_checkpoint(run, trained_run, tmp_path):
    folder = shutil.copytree(trained_run, tmp_path / "run")
    losses = {line["step"]: line["valid_loss"] for line in read_metrics(folder)}
    best = min(losses, key=losses.__getitem__)
    for manifest in (folder / f"checkpoints/{best}/model").rglob("manifest.ocdbt"):
        manifest.write_bytes(manifest.read_bytes()[:20])
    done = run("sample", "--workdir", str(folder), "--num", "1")
    assert (done.code, len(done.error.splitlines())) == (2, 1)
    assert done.error.startswith(f"error: {folder}: ")
    assert re.search(f"step {best} is damaged.*--fallback takes the newest intact checkpoint", done.error)
    done = run("sample", "--workdir", str(folder), "--num", "1", "--fallback")
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert re.search("WARNING: .*taking the newest intact checkpoint instead", done.error)


def test_evaluate_prints_a_table_and_writes_every_key(run, trained):
    done = run("evaluate", "--workdir", str(trained), "--iw_samples", "3", "--limit", "50")
    assert done.code == 0, done.error
    result = json.loads((trained / "eval_test_first50.json").read_text())
    keys = (
        "split examples tokens rec kl kl_model neg_elbo neg_elbo_paper nll nll_std_error nll_unit_prior "
        "nll_fitted_prior nll_paper ppl iw_samples mi mi_ceiling au au_hat mpd kl_aggregate std_mean_hat factor_min "
        "factor_median factor_max seconds device method git versions"
    ).split()
    assert set(keys) <= set(result)
    assert (result["split"], result["examples"], result["iw_samples"]) == ("test", 50, 3)
    assert result["neg_elbo"] == pytest.approx(result["rec"] + result["kl_model"])
    assert result["neg_elbo_paper"] == pytest.approx(result["rec"] + result["kl"])
    assert result["mi"] <= result["mi_ceiling"]
    assert "NaN" not in (trained / "eval_test_first50.json").read_text()
    assert "nats a sentence" in done.out
    assert "no bound unless the factor is 1" in done.out
    assert sum(result["kl_dims"]) == pytest.approx(result["kl"])


def test_evaluate_repeats_selects_estimates_and_writes_a_line_a_sentence(run, trained, tmp_path):
    scores = tmp_path / "scores.tsv"
    options = ["--limit", "20", "--repeats", "2", "--estimates", "nll,nll_paper", "--per_sentence", str(scores)]
    options += ["--iw_samples", "2", "--compute_dtype", "bfloat16"]
    done = run("evaluate", "--workdir", str(trained), "--split", "valid", *options)
    assert done.code == 0, done.error
    result = json.loads((trained / "eval_valid_first20.json").read_text())
    assert result["nll_unit_prior"] is None
    assert result["compute_dtype"] == "bfloat16"
    assert 0 < result["spread"]["nll"] < 1
    names, *rows = (line.split("\t") for line in scores.read_text().splitlines())
    assert names == ["nll", "rec", "kl", "tokens"]
    assert len(rows) == 20
    for column, key in enumerate(("nll", "rec", "kl")):
        assert sum(float(row[column]) for row in rows) / 20 == pytest.approx(result[key], rel=1e-4)
    assert sum(float(row[3]) for row in rows) == result["tokens"]


def test_sample_prints_sentences_of_known_words(run, trained):
    done = run("sample", "--workdir", str(trained), "--num", "4", "--prior", "aggregate", "--seed", "5", "--as_read")
    assert done.code == 0, done.error
    assert len(done.out.splitlines()) == 4
    words = set((trained / "vocab.txt").read_text().split())
    assert set(done.out.split()) <= words - {"<unk>", "<pad>", "<s>"}


def test_reconstruct_and_interpolate_share_their_ends(run, trained):
    where = ["--workdir", str(trained), "--max_words", "9"]
    done = run("reconstruct", *where, given=TEXTS)
    assert done.code == 0, done.error
    ends = done.out.splitlines()
    assert len(ends) == 2
    a, b = TEXTS.splitlines()
    done = run("interpolate", *where, "--a", a, "--b", b, "--steps", "4")
    assert done.code == 0, done.error
    line = done.out.splitlines()
    assert (len(line), line[0], line[-1]) == (4, *ends)
    done = run("interpolate", *where, "--input", "-", "--steps", "2", given=f"{a}\t{b}\n{b}\t{a}\n")
    assert (done.code, done.out.splitlines()) == (0, [*ends, "", *ends[::-1]]), done.error


def test_encode_and_score_write_a_row_a_sentence(run, trained, tmp_path):
    where = ["--workdir", str(trained)]
    (tmp_path / "texts.txt").write_text(TEXTS)
    done = run("encode", *where, "--input", str(tmp_path / "texts.txt"))
    assert done.code == 0, done.error
    header, *rows = (line.split("\t") for line in done.out.splitlines())
    assert header == [f"{name}_{i}" for name in ("mean", "scale") for i in range(4)] + ["text"]
    assert [row[-1] for row in rows] == TEXTS.splitlines()
    done = run("encode", *where, "--out", str(tmp_path / "points.npz"), given=TEXTS)
    assert (done.code, done.out) == (0, ""), done.error
    points = np.load(tmp_path / "points.npz")
    table = np.array([row[:-1] for row in rows], np.float32)
    np.testing.assert_allclose(np.concatenate([points["mean"], points["scale"]], axis=1), table, rtol=1e-4, atol=1e-6)
    done = run("score", *where, "--iw_samples", "3", given=TEXTS)
    assert done.code == 0, done.error
    lines = done.out.splitlines()
    assert lines[0].split("\t") == ["nll", "rec", "kl", "kl_model", "tokens", "text"]
    assert [line.split("\t")[4] for line in lines[1:]] == ["6", "6"]


def test_an_exported_model_takes_the_place_of_a_workdir(run, trained, tmp_path):
    out = tmp_path / "exported"
    done = run("export", "--workdir", str(trained), "--out", str(out))
    assert done.code == 0, done.error
    assert f"next: python -m scalevae_jax.sample --num 10 --prior model --workdir {out}" in done.out
    drawn = [run("sample", "--workdir", str(folder), "--num", "3").out for folder in (trained, out)]
    assert drawn[0] == drawn[1] != ""


def test_data_describes_a_single_raw_file_and_prints_how_to_train_on_it(run, tmp_path):
    sentences = [
        f"The {a} doesn't see {b} {c}s!" for a in ("cat", "dog", "man") for b in range(8) for c in ("car", "cow")
    ]
    path = tmp_path / "my.txt"
    path.write_bytes("\r\n".join([*sentences, "", "\0bad control", *sentences[:5], "many words " * 30]).encode())
    options = ["max_words=20", "raw=True", f"cache={tmp_path / 'cache'}"]
    done = run("data", "--path", str(path), *[f"--{option}" for option in options])
    assert done.code == 0, done.error
    for part in (
        ": 1 blank lines left out",
        ": 1 lines with control characters, now spaces",
        "sentences of more than 20 words cut",
        "vocabulary: ",
        "buckets: ",
        f"next: python -m scalevae_jax.train --config text --config.data.path={path} ",
        " --config.data.raw=True ",
    ):
        assert part in done.out


def test_data_counts_labels(run):
    done = run("data", "--path", "package:tiny")
    assert done.code == 0, done.error
    row = next(line for line in done.out.splitlines() if line.startswith("│ test"))
    assert row.split("│")[-2].strip() == "0: 51 1: 49"


COMMANDS = ["train", "evaluate", "sample", "reconstruct", "interpolate", "encode", "score", "probe", "export"]
COMMANDS += ["explore", "data.__main__", "reproduce.__main__", "reproduce.latent_space", "reproduce.text_quality"]


@pytest.mark.parametrize("module", COMMANDS)
def test_help_has_an_example_and_every_argument_has_a_meaning(module):
    parser = importlib.import_module(f"scalevae_jax.{module}").parser()
    assert f"\n  python -m scalevae_jax.{module.removesuffix('.__main__')} " in parser.format_help()
    assert all(action.help for action in parser._actions)

"""Every command as a user gives it, in a process of its own: what it prints, what it leaves, its exit code."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import typed
from typed import ROOT, run

from scalevae_jax import probe, sample
from scalevae_jax.reproduce import __main__ as reproduce
from scalevae_jax.runtime import command, console

SMOKE = ["--config", "configs/smoke.py"]
SMALLER = ["--config.data.limit_train=3000", "--config.data.limit_valid=500"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A smoke run stopped by SIGINT after its first epoch: workdir, exit code, standard error."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    running = typed.Running("train", *SMOKE, "--workdir", str(folder), *SMALLER, "--config.train.max_epochs=1000")
    running.until("epoch 1/1000")
    os.kill(running.pid, signal.SIGINT)
    code, _, error = running.wait()
    return folder, code, error


@pytest.fixture(scope="module")
def trained(stopped):
    """The same run, gone on with for some epochs: workdir and standard output."""
    folder, _, _ = stopped
    epochs = len((folder / "metrics.jsonl").read_text().splitlines()) + 3
    code, out, error = run("train", *SMOKE, "--workdir", str(folder), *SMALLER, f"--config.train.max_epochs={epochs}")
    assert code == 0, error
    return folder, out


def test_sigint_saves_and_says_how_to_go_on(stopped):
    folder, code, error = stopped
    assert code == 130
    assert "SIGINT: stopped at step" in error
    assert f"python -m scalevae_jax.train --config configs/smoke.py --workdir {folder}" in error
    assert "Traceback" not in error


def test_sigterm_in_the_middle_of_an_epoch_saves(tmp_path):
    """An epoch of a thousand batches: it is not its end that is waited for."""
    long = ["--config.train.batch_size=16", "--config.eval.batch_size=16", "--config.checkpoint.every_steps=8"]
    running = typed.Running("train", *SMOKE, *long, "--workdir", str(tmp_path))
    running.until_found(lambda: list(tmp_path.glob("checkpoints/latest/[0-9]*")))
    os.kill(running.pid, signal.SIGTERM)
    code, out, error = running.wait()
    assert code == 143
    assert "SIGTERM: stopped at step" in error
    assert "epoch 1/3" not in out


def test_a_second_signal_ends_the_process_at_once():
    script = """if True:
        import signal
        from scalevae_jax import command
        with command.Signals() as signals:
            signal.raise_signal(signal.SIGTERM)
            print(signals.received, flush=True)
            signal.raise_signal(signal.SIGINT)
            print("too late")
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, f"{signal.SIGTERM.value}\n", "")


def test_a_damaged_run_is_one_line_and_fallback_goes_round_it(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    (best,) = (folder / "checkpoints/best").iterdir()
    for manifest in best.rglob("manifest.ocdbt"):
        manifest.write_bytes(manifest.read_bytes()[:20])
    code, _, error = run("sample", "--workdir", str(folder), "--num", "1")
    assert code == 2
    assert error.startswith(f"error: {folder}: the best checkpoint, of step {best.name}, is damaged: ")
    assert len(error.strip().splitlines()) == 1
    code, out, error = run("sample", "--workdir", str(folder), "--num", "1", "--fallback")
    assert (code, len(out.splitlines())) == (0, 1)
    (warning,) = error.splitlines()
    assert warning.endswith("the newest whole checkpoint is taken instead")


def test_the_same_command_goes_on_and_says_where_the_results_are(trained):
    folder, out = trained
    assert "resumed in epoch" in out
    first, *_, last = out.strip().splitlines()
    assert all(word in first for word in ("jax 0.", "1 x cpu", "seed 0", str(folder)))
    assert last == f"next: python -m scalevae_jax.evaluate --split test --workdir {folder}"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    wanted = "epoch step lr kl_weight train_rec train_kl valid_rec valid_kl mi au factor_min factor_median factor_max"
    assert set(f"{wanted} seconds tokens_per_second".split()) <= set(lines[0])
    assert lines[-1]["valid_loss"] < lines[0]["valid_loss"]
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "vocab.txt",
        "run.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "fitted_prior.json",
    } == names


def test_evaluate_prints_a_table_and_writes_every_key(trained):
    folder, _ = trained
    code, out, error = run("evaluate", "--workdir", str(folder), "--iw_samples", "3", "--limit", "50")
    assert code == 0, error
    result = json.loads((folder / "eval_test.json").read_text())
    wanted = (
        "split examples tokens rec kl kl_model neg_elbo neg_elbo_paper nll nll_std_error nll_unit_prior "
        "nll_fitted_prior nll_paper ppl iw_samples mi mi_ceiling au au_hat mpd kl_aggregate std_mean_hat factor_min "
        "factor_median factor_max seconds device method git versions"
    ).split()
    assert set(wanted) <= set(result)
    assert (result["split"], result["examples"], result["iw_samples"]) == ("test", 50, 3)
    assert result["neg_elbo"] == pytest.approx(result["rec"] + result["kl_model"])
    assert result["neg_elbo_paper"] == pytest.approx(result["rec"] + result["kl"])
    assert result["mi"] <= result["mi_ceiling"]
    assert "NaN" not in (folder / "eval_test.json").read_text()
    assert "nats a sentence" in out
    assert "no bound unless the factor is 1" in out
    assert sum(result["kl_dims"]) == pytest.approx(result["kl"])


def test_repeats_readings_and_a_line_a_sentence(trained, tmp_path):
    folder, _ = trained
    scores = tmp_path / "scores.tsv"
    options = ["--limit", "20", "--repeats", "2", "--readings", "nll,nll_paper", "--per_sentence", str(scores)]
    options += ["--iw_samples", "2", "--compute_dtype", "bfloat16"]
    code, _, error = run("evaluate", "--workdir", str(folder), "--split", "valid", *options)
    assert code == 0, error
    result = json.loads((folder / "eval_valid.json").read_text())
    assert result["nll_unit_prior"] is None
    assert result["compute_dtype"] == "bfloat16"
    assert 0 < result["spread"]["nll"] < 1
    names, *rows = (line.split("\t") for line in scores.read_text().splitlines())
    assert names == ["nll", "rec", "kl", "tokens"]
    assert len(rows) == 20
    for at, key in enumerate(("nll", "rec", "kl")):
        assert sum(float(row[at]) for row in rows) / 20 == pytest.approx(result[key], rel=1e-4)
    assert sum(float(row[3]) for row in rows) == result["tokens"]


def test_sample_prints_sentences_of_known_words(trained):
    folder, _ = trained
    code, out, error = run("sample", "--workdir", str(folder), "--num", "4", "--prior", "aggregate", "--seed", "5")
    assert code == 0, error
    assert len(out.splitlines()) == 4
    words = set((folder / "vocab.txt").read_text().split())
    assert set(out.split()) <= words - {"<unk>", "<pad>", "<s>"}
    assert (folder / "fitted_prior.json").is_file()


TEXTS = "a man is sleeping .\ntwo dogs play outside .\n"


def test_reconstruct_and_interpolate_share_their_ends(trained):
    where = ["--workdir", str(trained[0])]
    code, out, error = run("reconstruct", *where, "--max_words", "9", given=TEXTS)
    assert code == 0, error
    ends = out.splitlines()
    assert len(ends) == 2
    a, b = TEXTS.splitlines()
    code, out, error = run("interpolate", *where, "--a", a, "--b", b, "--steps", "4", "--max_words", "9")
    assert code == 0, error
    assert len(out.splitlines()) == 4
    assert [out.splitlines()[0], out.splitlines()[-1]] == ends
    pairs = ["--input", "-", "--steps", "2", "--max_words", "9"]
    code, out, error = run("interpolate", *where, *pairs, given=f"{a}\t{b}\n{b}\t{a}\n")
    assert (code, out.splitlines()) == (0, [*ends, "", *ends[::-1]]), error


def test_encode_and_score_write_a_row_a_sentence(trained, tmp_path):
    where = ["--workdir", str(trained[0])]
    (tmp_path / "texts.txt").write_text(TEXTS)
    code, out, error = run("encode", *where, "--input", str(tmp_path / "texts.txt"))
    assert code == 0, error
    header, *rows = (line.split("\t") for line in out.splitlines())
    assert header == [f"{name}_{i}" for name in ("mean", "scale") for i in range(4)] + ["text"]
    assert [row[-1] for row in rows] == TEXTS.splitlines()
    code, out, error = run("encode", *where, "--out", str(tmp_path / "points.npz"), given=TEXTS)
    assert (code, out) == (0, ""), error
    points = np.load(tmp_path / "points.npz")
    table = np.array([row[:-1] for row in rows], np.float32)
    np.testing.assert_allclose(np.concatenate([points["mean"], points["scale"]], axis=1), table, rtol=1e-4, atol=1e-6)
    code, out, error = run("score", *where, "--iw_samples", "3", given=TEXTS)
    assert code == 0, error
    lines = out.splitlines()
    assert lines[0].split("\t") == ["nll", "rec", "kl", "kl_model", "tokens", "text"]
    assert [line.split("\t")[4] for line in lines[1:]] == ["6", "6"]


def test_an_exported_model_takes_the_place_of_a_workdir(trained, tmp_path):
    out = tmp_path / "exported"
    code, said, error = run("export", "--workdir", str(trained[0]), "--out", str(out))
    assert code == 0, error
    assert f"next: python -m scalevae_jax.sample --workdir {out}" in said
    drawn = [run("sample", "--workdir", str(where), "--num", "3")[1] for where in (trained[0], out)]
    assert drawn[0] == drawn[1]


COMMANDS = "train replay evaluate sample reconstruct interpolate encode score text_quality probe export".split()


@pytest.mark.parametrize("module", COMMANDS)
def test_help_has_an_example_and_every_flag(module):
    main = importlib.import_module(f"scalevae_jax.{module}")
    text = command.help_text(main.__doc__, main.FLAGS)
    assert f"python -m scalevae_jax.{module} --" in text
    assert "--workdir" in text


def test_help_is_printed():
    code, out, _ = run("interpolate", "--help")
    assert code == 0
    assert "--steps [5]: sentences, both ends counted" in out
    assert "--sizes [100,500,1000,2000,10000]: labelled" in command.help_text("", probe.FLAGS)
    assert "--methods: of the rows" in command.help_text("", reproduce.FLAGS)


@pytest.mark.parametrize("say", [console.log, print, lambda text: sys.stdout.write(text * 100_000)])
def test_a_reader_that_has_gone_ends_a_command_with_one_line_and_no_traceback(say, monkeypatch, capfd):
    """As in `sample | head`: by rich, by print, at the flush after the command, and in the middle of it."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert command.run("sample", lambda: say("a dog runs ."), sample.FLAGS, "", argv=["sample"]) == 141
    assert capfd.readouterr().err == "stopped: nobody reads the output any more\n"


def test_list_methods():
    code, out, _ = run("train", "--list_methods")
    assert code == 0
    assert "--config.method.des_std=0.7" in out


@pytest.mark.slow
def test_four_devices_one_and_four_again_give_the_numbers_of_four(tmp_path):
    """Restored arrays are compared with their digests; what is trained after differs by rounding."""

    def train(folder, devices, epochs):
        flags = f"{typed.SOON_COMPILED} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "NPROC": "8"}
        command = [sys.executable, "-m", "scalevae_jax.train", *SMOKE, "--workdir", str(tmp_path / folder)]
        command += ["--config.data.limit_train=3000", "--config.data.limit_valid=500", "--config.data.buckets=1"]
        command.append("--config.method.name=bn_vae")  # has running state, and no factor that makes much of rounding
        command.append(f"--config.train.max_epochs={epochs}")
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert f"{devices} x cpu" in done.stdout
        return [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]

    whole = train("whole", 4, 3)
    for devices, epochs in ((4, 1), (1, 2)):
        train("changing", devices, epochs)
    for line, expected in zip(train("changing", 4, 3), whole, strict=True):
        for key in ("train_loss", "valid_loss", "valid_kl"):
            assert line[key] == pytest.approx(expected[key], rel=1e-4), key


BAD = [
    ("train", [], "--config is wanted"),
    ("train", ["--config", "configs/none.py"], "configs/none.py: no such file"),
    ("train", ["--config", "smok"], "--config smok: no such file; by name there are demo, smoke,"),
    ("train", ["--config=smok", "--config.train.seed=1"], "--config smok: no such file; by name there are demo,"),
    ("train", [*SMOKE, "--config.model.hiden=3"], "--config.model.hiden: no such field, the nearest is model.hidden"),
    ("train", [*SMOKE, "--config.model.hidden=many"], "config.model.hidden=many"),
    ("train", [*SMOKE, "--config.method.name=gan"], "no method 'gan'"),
    ("train", [*SMOKE, "--config.method.gamma=0.6"], "scale_vae has no such hyperparameter"),
    ("train", [*SMOKE, "--config.train.batch_size=0"], "config.train.batch_size: must be more than 0"),
    ("train", ["--config", "configs/yahoo.py", "--config.data.path=nowhere"], "put train.txt, valid.txt, test.txt"),
    ("train", ["--config", "configs/text.py"], "no text is given: --config.data.path="),
    ("train", [*SMOKE, "--config.data.partition=grouped"], "the corpus has no labels"),
    ("train", [*SMOKE, "--config.data.long=keep"], "config.data.long: one of cut, drop"),
    ("train", [*SMOKE, "--num_processes", "2"], "--coordinator, --num_processes and --process_id go together"),
    ("train", [*SMOKE, *"--coordinator a:1 --num_processes 2 --process_id 2".split()], "--process_id 2: must be less"),
    ("train", [*SMOKE, *"--coordinator foo --num_processes 2 --process_id 1".split()], "foo: HOST:PORT is wanted"),
    ("train", [*SMOKE, "--config.train.seed=99999999999"], "config.train.seed: must be under 2,147,483,648"),
    ("data", [], "no text is given"),
    ("data", ["--path", "~no.such.user/text"], "~no.such.user/text: no such user"),
    ("data", ["--path", "package:nope"], "package:nope: no corpus of the package"),
    ("sample", ["--workdir", "nowhere", "--seed", "99999999999"], "seed"),
    ("probe", ["--workdir", "nowhere", "--sizes="], "--sizes : two labelled sentences at least"),
    ("data", ["--path", "nowhere"], "no such file or folder: "),
    ("data", ["--path", "package:snli", "--vocab", "README.md"], "README.md: line 1: a vocabulary begins with"),
    ("data", ["--path", "Makefile"], "Makefile: a file whose name ends in"),
    ("evaluate", ["--workdir", "nowhere"], "not the folder of a run"),
    ("evaluate", [], "--workdir is wanted"),
    ("sample", ["--workdir", "nowhere"], "not the folder of a run"),
    ("sample", ["--number", "3"], "number"),
    ("sample", ["--workdir", "nowhere", "--prior", "flat"], "prior"),
    ("export", ["--workdir", "nowhere"], "--out is wanted"),
]


@pytest.mark.parametrize(("module", "arguments", "message"), BAD)
def test_wrong_input_is_one_clear_line_and_exit_code_2(module, arguments, message, tmp_path):
    where = ["--workdir", str(tmp_path / "new")] if module == "train" else []
    code, _, error = run(module, *arguments, *where)
    assert code == 2
    assert error.startswith("error: ")
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


BAD_TEXT = [
    ("reconstruct", ["--input", "nowhere.txt"], "", "--input nowhere.txt: can not be read"),
    ("score", [], "a man .\n\n", "sentence 2: it is empty"),
    ("interpolate", ["--input", "-"], "a man .\n", "line 1: two sentences with a tab between them"),
    ("interpolate", ["--input", "-", "--a", "a man ."], "a\tb\n", "--input and --a, --b: choose one of them"),
    ("interpolate", ["--input", "-"], "a man .\ta dog .\na man .\t\n", "--input: line 2: sentence 2: it is empty"),
    ("encode", ["--out", "nowhere/points.npz"], "a man .\n", "--out nowhere/points.npz: can not be written"),
    ("encode", ["--out", "nowhere/points.tsv"], "a man .\n", "--out nowhere/points.tsv: can not be written"),
    ("probe", ["--sizes", "4"], "", "no labels; a probe wants"),
]


@pytest.mark.parametrize(("module", "arguments", "given", "message"), BAD_TEXT)
def test_wrong_text_is_one_clear_line_and_exit_code_2(trained, module, arguments, given, message):
    code, out, error = run(module, "--workdir", str(trained[0]), *arguments, given=given)
    assert (code, out) == (2, "")
    assert message in error
    assert error.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in error


CONFIGS = {
    "{}": "get_config() gives dict",
    "Config(data=None)": "config.data: a Data is wanted, got None",
    "Config(train=Train(max_epochs='3'))": "config.train.max_epochs: '3' is not of type int",
    "Config(train=Train(batch_size=2.5))": "config.train.batch_size: 2.5 is not of type int",
}


@pytest.mark.parametrize("made", CONFIGS)
def test_a_configuration_of_wrong_types_is_one_line(made, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"from scalevae_jax.config import Config, Train\n\n\ndef get_config():\n    return {made}\n")
    code, _, error = run("train", "--config", str(path), "--workdir", str(tmp_path / "run"))
    assert code == 2
    assert error.startswith("error: ")
    assert CONFIGS[made] in error
    assert len(error.strip().splitlines()) == 1


def test_a_file_in_the_place_of_a_folder_is_named_and_an_empty_folder_is_kept(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    bad = ["--config.data.partition=grouped"]
    for name, message in (("file", f"{tmp_path / 'file'}: File exists"), ("empty", "the corpus has no labels")):
        code, _, error = run("train", *SMOKE, *bad, "--workdir", str(tmp_path / name))
        assert (code, len(error.splitlines())) == (2, 1)
        assert message in error
        assert (tmp_path / name).exists()


def test_data_counts_labels():
    code, out, error = run("data", "--path", "package:tiny")
    assert code == 0, error
    assert [line.split("│")[-2].strip() for line in out.splitlines() if line.startswith("│ test")] == ["0: 51 1: 49"]


def test_another_method_says_what_it_drops(tmp_path):
    code, out, error = run("train", *SMOKE, "--config.method.name=vae", "--config.train.max_epochs=0")
    assert code == 2, error
    assert "the file's des_std, f_epo (of scale_vae) dropped" in out


def test_data_describes_a_single_raw_file_and_training_starts_from_it(tmp_path):
    sentences = [
        f"The {a} doesn't see {b} {c}s!" for a in ("cat", "dog", "man") for b in range(8) for c in ("car", "cow")
    ]
    path = tmp_path / "my.txt"
    path.write_bytes("\r\n".join([*sentences, "", "\0bad control", *sentences[:5], "many words " * 30]).encode())
    options = ["max_words=20", "raw=True", f"cache={tmp_path / 'cache'}"]
    code, out, error = run("data", "--path", str(path), *[f"--{option}" for option in options])
    assert code == 0, error
    for part in (
        ": 1 blank lines left out",
        "lines ended by CRLF",
        ": 1 lines with control characters, now spaces",
        "sentences of more than 20 words cut",
        "vocabulary: ",
        "--config.data.raw=True",
        "buckets: ",
    ):
        assert part in out
    train = ["--config", "configs/text.py", f"--config.data.path={path}", "--workdir", str(tmp_path / "run")]
    small = ["--config.model.hidden=8", "--config.model.embedding=8", "--config.train.max_epochs=1"]
    code, out, error = run("train", *train, *small, *[f"--config.data.{option}" for option in options])
    assert code == 0, error
    assert "doesn't" not in (words := (tmp_path / "run/vocab.txt").read_text())
    assert "n't" in words
    assert "done: " in out

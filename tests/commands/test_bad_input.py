"""Wrong arguments and wrong text: one clear line, exit code 2, and nothing is left behind."""

import pytest

SMOKE = ["--config", "smoke"]

BAD = [
    ("train", [], "--config is missing: a name, such as demo, or a file"),
    ("train", [*SMOKE, "--config.data.partition=grouped"], "the corpus has no labels"),
    ("train", [*SMOKE, "--config.data.long=keep"], "config.data.long: expected one of cut, drop"),
    ("train", [*SMOKE, "--num_processes", "2"], "--coordinator, --num_processes and --process_id go together"),
    ("train", [*SMOKE, *"--coordinator a:1 --num_processes 2 --process_id 2".split()], "--process_id 2: must be less"),
    ("train", [*SMOKE, *"--coordinator foo --num_processes 2 --process_id 1".split()], "foo: expected HOST:PORT"),
    ("data", ["--path", "package:tiny", "--vocab_size=-1"], "--vocab_size: must be more than 0"),
    ("data", ["--path", "~no.such.user/text"], "~no.such.user/text: no such user"),
    ("data", ["--path", "package:tiny", "--cache", "gs://a/b"], "cache=gs://a/b: expected a folder of this machine"),
    ("evaluate", ["--workdir", "nowhere"], "not the folder of a run"),
    ("sample", ["--workdir", "ftp://a/b"], "ftp://a/b: expected a folder, or gs://BUCKET/FOLDER"),
    ("sample", ["--workdir", "nowhere", "--temperature", "inf"], "temperature: expected 0 to 100, got inf"),
    ("export", [], "the following arguments are required: --workdir, --out"),
    ("export", ["--workdir", "nowhere", "--out", "gs://a/b"], "--out: gs://a/b: expected a place on this machine"),
    ("reproduce", [], "WHAT"),
    ("reproduce", ["table9"], "table9"),
    ("reproduce", ["table5", "--methods", "mae"], "--methods mae: the tables asked for have bn_vae, scale_vae"),
    ("reproduce", ["table1", "--scale", "small"], "--data is missing"),
    ("reproduce", ["table1", "--scale", "huge"], "huge"),
]


@pytest.mark.parametrize(("module", "arguments", "message"), BAD)
def test_wrong_input_is_one_clear_line_and_exit_code_2(module, arguments, message, run, tmp_path):
    where = ["--workdir", str(tmp_path / "new")] if module == "train" else []
    done = run(module, *arguments, *where)
    assert done.code == 2
    assert done.error.startswith("error: ")
    assert message in done.error
    assert len(done.error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


BAD_TEXT = [
    ("reconstruct", ["--input", "nowhere.txt"], "", "--input nowhere.txt: cannot be read"),
    ("interpolate", ["--input", "-"], "a man .\n", "line 1: expected two sentences with a tab between them"),
    ("interpolate", ["--input", "-", "--a", "a man ."], "a\tb\n", "--input and --a, --b: choose one of them"),
    ("encode", ["--out", "nowhere/points.npz"], "a man .\n", "--out nowhere/points.npz: cannot be written"),
    ("encode", ["--out", "nowhere/points.tsv"], "a man .\n", "--out nowhere/points.tsv: cannot be written"),
    ("encode", ["--out", "nowhere/points.npy"], "a man .\n", "points.npy: an .npy file holds one array; expected .npz"),
    ("probe", ["--sizes", "4"], "", "no labels"),
]


@pytest.mark.parametrize(("module", "arguments", "given", "message"), BAD_TEXT)
def test_wrong_text_is_one_clear_line_and_exit_code_2(module, arguments, given, message, run, trained_run):
    done = run(module, "--workdir", str(trained_run), *arguments, given=given)
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert done.error.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.error


def test_a_file_in_the_place_of_a_folder_is_named_and_an_empty_folder_is_kept(run, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, message in (("file", f"{tmp_path / 'file'}: File exists"), ("empty", "the corpus has no labels")):
        done = run("train", *SMOKE, "--config.data.partition=grouped", "--workdir", str(tmp_path / name))
        assert (done.code, len(done.error.splitlines())) == (2, 1)
        assert message in done.error
        assert (tmp_path / name).exists()

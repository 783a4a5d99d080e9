"""Files of sentences given to a command: bad lines are reported and the others answered; text is cleaned."""

import itertools

import numpy as np
import pytest
from small import SENTENCES, run_command, shared_model

from scalevae_jax import encode, interpolate, reconstruct, sample, score
from scalevae_jax.inference import priors

GOOD = SENTENCES[:2]
LINES = [GOOD[0], "", "qux quux", GOOD[1], "the " * 13]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Call `command(module, text, *arguments)`: exit code, standard output, lines of standard error."""

    priors.fitted(shared_model().run)  # an export would say that it computes it
    capsys.readouterr()
    folders = (tmp_path / str(i) for i in itertools.count())

    def call(module, text, *arguments):
        given = []
        if text is not None:
            (tmp_path / "given.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
            given = ["--input", str(tmp_path / "given.txt")]
        code = run_command(module, shared_model().run, next(folders), monkeypatch, *given, *arguments)
        out, error = capsys.readouterr()
        return code, out, error.splitlines()

    return call


def _reported(error):
    assert any(line.startswith("--input: line 2: empty") for line in error)
    assert any(line.startswith("--input: line 3: none of its words is in the model's vocabulary") for line in error)
    assert any(line.startswith("--input: line 5: 13 words; this model reads 12 at most") for line in error)
    assert error[-1] == "error: --input: 3 of 5 lines left out, as said above"


def test_reconstruct_answers_line_n_with_line_n(command):
    code, out, error = command(reconstruct, "\n".join(LINES) + "\n")
    a, b = shared_model().reconstruct(GOOD)
    assert (code, out) == (2, f"{a}\n\n\n{b}\n\n")
    _reported(error)


def test_score_writes_the_rows_of_the_good_lines(command):
    code, out, error = command(score, "\n".join(LINES))
    assert code == 2
    assert [row.split("\t")[-1] for row in out.splitlines()] == ["text", *GOOD]
    _reported(error)


def test_encode_writes_the_rows_of_the_good_lines(command, tmp_path):
    code, out, error = command(encode, "\n".join(LINES), "--out", str(tmp_path / "points.npz"))
    assert (code, out) == (2, "")
    points = np.load(tmp_path / "points.npz")
    np.testing.assert_allclose(points["mean"], shared_model().encode(GOOD)[0], rtol=1e-5)
    assert points["text"].tolist() == GOOD
    _reported(error)


def test_interpolate_leaves_out_bad_pairs(command):
    a, b = GOOD
    code, out, error = command(interpolate, f"{a}\t{b}\n{a}\n{b}\t{a}\n{a}\t \n", "--steps", "3")
    forth, back = (shared_model().interpolate(x, y, 3) for x, y in ((a, b), (b, a)))
    assert (code, out.splitlines()) == (2, [*forth, "", *back])
    assert "--input: line 2: expected two sentences with a tab between them" in error
    assert "--input: line 4: sentence 2: empty; give it a word" in error
    assert error[-1] == "error: --input: 2 of 4 lines left out, as said above"


def test_a_file_without_a_good_line_has_no_output(command):
    assert command(score, "\n")[:2] == (2, "")
    code, out, error = command(score, "")
    assert (code, out) == (2, "")
    assert error[-1].endswith("expected at least one sentence, got none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("".join(f"{i}\t{line}\n" for i, line in enumerate(GOOD)), "2 labels before a tab left out"),
        ("\ufeff" + "\r\n".join(line.replace(" dog", "\u200b dog") for line in GOOD), "lines with zero-width"),
        ("\n".join(GOOD).replace(" runs", "\truns"), ""),
    ],
)
def test_text_is_cleaned_as_in_training(command, text, said):
    code, out, error = command(score, text)
    assert code == 0, error
    rows = [row.split("\t") for row in out.splitlines()]
    assert [row[-1] for row in rows[1:]] == GOOD
    assert {len(row) for row in rows} == {6}
    assert any(said in line for line in error) or not said


def test_sample_says_its_temperature_and_its_prior(command):
    code, out, error = command(sample, None, "--num", "3")
    assert (code, out.splitlines()) == (0, shared_model().written(shared_model().sample(3)))
    assert "temperature 1.0, prior model" in error
    _, out, error = command(sample, None, "--num", "2", "--beam", "3", "--prior", "unit")
    assert out.splitlines() == shared_model().written(shared_model().sample(2, prior="unit", beam=3))
    assert "beam 3, prior unit" in error

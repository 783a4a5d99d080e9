"""The command that describes a text: it reads it as training would."""

import shlex

import pytest

from scalevae_jax.data import __main__ as describe


@pytest.mark.parametrize(
    ("options", "unit", "longest", "changed"),
    [
        ([], "words", 73, ["tokenizer=words", "cache={}", "vocab_size=20000", "max_words=200"]),
        (["--config", "text"], "subwords", 73, ["cache={}"]),
        (["--config", "text", "--max_words=30"], "subwords", 32, ["cache={}", "max_words=30"]),
    ],
)
def test_the_text_is_described_as_the_next_command_reads_it(tmp_path, capsys, options, unit, longest, changed):
    path = tmp_path / "my text.txt"
    path.write_text("\n".join(f"{'word ' * (i % 71)}{i}" for i in range(400)))
    assert describe.main(["--path", str(path), f"--cache={tmp_path}", *options]) == 0
    out = capsys.readouterr().out
    assert f" {longest} tokens ({unit}, `<s>` and `</s>`)" in out
    assert ("defaults: " in out) == (not options)
    given = [f"--config.data.path={path}", *(f"--config.data.{field.format(tmp_path)}" for field in changed)]
    given += ["--workdir", "runs/my text"]
    command = f"next: {shlex.join(['python', '-m', 'scalevae_jax.train', '--config', 'text', *given])}\n"
    assert out.endswith(command)

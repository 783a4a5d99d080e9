"""The command that describes a text: it reads it as training would."""

import shlex

import pytest

from scalevae_jax.data import __main__ as describe


@pytest.mark.parametrize(
    ("options", "longest", "changed"),
    [
        ([], 73, ["--config.data.max_words=200"]),
        (["--config", "text"], 62, []),
        (["--config", "text", "--max_words=30"], 32, ["--config.data.max_words=30"]),
    ],
)
def test_the_text_is_described_as_the_next_command_reads_it(tmp_path, capsys, options, longest, changed):
    path = tmp_path / "my text.txt"
    path.write_text("\n".join(f"{'word ' * (i % 71)}{i}" for i in range(400)))
    assert describe.main(["--path", str(path), f"--cache={tmp_path}", *options]) == 0
    out = capsys.readouterr().out
    assert f" {longest} tokens (words and two marks)" in out
    assert ("defaults: " in out) == (not options)
    given = [f"--config.data.path={path}", f"--config.data.cache={tmp_path}", *changed]
    command = f"next: {shlex.join(['python', '-m', 'scalevae_jax.train', '--config', 'text', *given])}\n"
    assert out.endswith(command)

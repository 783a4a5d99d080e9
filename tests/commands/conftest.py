"""Commands as a user gives them, called in this process; and what `explore` shows of two runs."""

import importlib
import io
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """What a command leaves."""

    code: int
    out: str
    error: str


@pytest.fixture
def run(capsys, monkeypatch):
    """Call `run(module, *arguments, given=...)`: the command with `given` on its standard input, from start to end."""

    def call(module: str, *arguments: str, given: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        name = {"data": "data.__main__", "reproduce": "reproduce.__main__"}.get(module, module)
        code = importlib.import_module(f"scalevae_jax.{name}").main(arguments)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def shown():
    """The views of two runs on the page of `explore`."""
    from small import shared_model  # jaxtyping must see the import, to check shapes

    from scalevae_jax import explore

    return [explore.view(name, shared_model(name), "test", 15) for name in ("scale_vae", "vae")]

"""Programs that are compiled ahead: what a run shows while it waits, and what it waits for."""

import os
import threading

import pytest

from scalevae_jax.training.compiling import Compiling


class Step:
    """A step whose batch is the event that ends its compilation."""

    def __init__(self, batch=None):
        self._batch = batch

    def lower(self, state, batch):
        return Step(batch)

    def compile(self):
        assert self._batch.wait(60)
        if self._batch.wrong:
            raise MemoryError


def event(wrong=False):
    made = threading.Event()
    made.wrong = wrong
    return made


def test_a_run_waits_for_the_program_that_it_needs_and_for_no_other(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)  # three compile ahead
    short, long, never, lines = event(), event(), event(), []
    order = iter([long, short])

    def show(text):
        lines.append(text)
        next(order).set()

    with Compiling(4) as compiling:
        compiling.start(Step(), {}, {5: short, 9: long, 13: never})
        assert compiling.announce(5, 1, show)
        assert lines == ["compiling 2 of 4", "compiling 3 of 4"]
        assert not compiling.announce(5, 1, show)
        assert not compiling.announce(9, 1, show)
        assert compiling.seconds() > 0
        assert compiling.announce(20, 1, lines.append)
        assert lines[2:] == ["compiling 3 of 4: a step of 20 tokens"]
        never.set()


def test_what_a_compilation_raises_reaches_the_run():
    with Compiling(1) as compiling:
        wrong = event(wrong=True)
        compiling.start(Step(), {}, {5: wrong})
        with pytest.raises(MemoryError):
            compiling.announce(5, 1, lambda text: wrong.set())

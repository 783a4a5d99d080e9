"""A training and the measurements of it, as command lines, and the files that they leave."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from scalevae_jax.runtime.command import program

Record = dict[str, Any]  # a finished run; see records.py

STEPS = "steps.json"  # in a workdir: the commands that the runner ran, with their seconds
ARRAYS, NUMBERS = "space.npz", "space.json"  # in a workdir: the latent space, and what was computed from it
OUTPUTS = {
    "evaluation": ("eval_test.json", "eval_test_first[0-9]*.json"),  # of all test sentences, or of the first so many
    "probe": ("probe.json",),
    "text_quality": ("text_quality.json",),
    "space": (NUMBERS,),
}  # sections of a record, and the files of a workdir that they come from


class Command(NamedTuple):
    """One command of a trial."""

    module: str
    arguments: tuple[str, ...]
    section: str  # of the record, where its output goes; "" for a training
    output: str  # the file of the workdir that shows that it has ended well; "" for a training
    captured: bool = False  # whether its standard output is that file

    def __str__(self) -> str:
        return f"{program(f'scalevae_jax.{self.module}')} {shlex.join(self.arguments)}"


class Trial(NamedTuple):
    """A training with the measurements that the tables need of it."""

    workdir: Path
    commands: tuple[Command, ...]  # the training first
    after: Path | None = None  # workdir of the trial that has to be finished before this one can be measured

    @property
    def name(self) -> str:
        """The name of the run, and of its workdir."""
        return self.workdir.name

    @property
    def record(self) -> Path:
        """The file of the finished trial's record."""
        return self.workdir.parent.parent / "rows" / f"{self.name}.json"

    @property
    def line(self) -> str:
        """All its commands as one line of a shell."""
        return " && ".join(
            f"{each} > {shlex.quote(str(self.workdir / each.output))}" if each.captured else str(each)
            for each in self.commands
        )

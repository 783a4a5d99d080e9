"""Take the step again at which a run was stopped because its numbers were not finite.

Examples:
  python -m scalevae_jax.replay --workdir runs/yahoo
  JAX_DEBUG_NANS=True python -m scalevae_jax.replay --workdir runs/yahoo

Prints what the run recorded of the step and what the same step on the same state and batch gives now. With
JAX_DEBUG_NANS the traceback shows the first operation that gave NaN. The run itself is not changed.
"""

import functools
import sys

from scalevae_jax.core.types import InputError
from scalevae_jax.inference import load
from scalevae_jax.runtime import command, console, devices
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import fault, workdir
from scalevae_jax.training.checkpoint import FAULT
from scalevae_jax.training.steps import make_steps

FLAGS = Flags()
WORKDIR = command.define_workdir(FLAGS)


def replay(folder: Path) -> bool:
    """Whether the step gives what it gave."""
    workdir.refuse_links(folder)
    recorded, batch = fault.read(folder)
    settings, words, method, model = load.read_definition(folder)
    shares = devices.rows_for(1, settings.optim.accumulate)
    if batch.tokens.max() >= len(words) or batch.tokens.min() < 0 or batch.tokens.shape[0] % shares:
        raise InputError(f"{folder / fault.FILE}: a batch of other words, or for another number of devices")
    steps_per_epoch = workdir.read_record(folder)["steps_per_epoch"]
    keeper = workdir.checkpoints(folder, settings, words)
    state = keeper.only(FAULT, workdir.abstract_state(settings, model, method, steps_per_epoch))
    keeper.close()
    steps = make_steps(model, method, workdir.optimizer(settings), steps_per_epoch)
    now = fault.take_again(fault.Fault(state, recorded["move"], batch), steps, method, steps_per_epoch)
    console.log(f"recorded: {fault.line(recorded)}")
    console.log(f"again:    {fault.line(now)}")
    for row, length, weight in zip(batch.tokens, batch.lengths, batch.weight, strict=True):
        if weight:
            console.log(f"  {words.decode(row[:length])}")
    return now == recorded


def _command() -> None:
    folder = WORKDIR()
    devices.start()
    same = replay(folder)
    console.log("the same numbers" if same else "other numbers: another device or another version computes them")


main = functools.partial(command.run, "scalevae_jax.training.replay", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())

"""Saved training states, by orbax: the latest, to go on from, and the best, to use. Kept apart, so that neither evicts
the other."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scalevae_jax.state import TrainState
from scalevae_jax.types import InputError

LATEST, BEST = "latest", "best"


def _abstract(state: TrainState) -> Any:
    """Shapes, dtypes, and a placement on the devices of now, whichever the state was saved on."""
    everywhere = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state)


class Checkpoints:
    """The two keepers of a run's states, under `workdir/checkpoints`. Saving goes on behind; `close` waits for it."""

    def __init__(self, workdir: Path):
        root = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=1)
        self._managers = {which: ocp.CheckpointManager(root / which, options=options) for which in (LATEST, BEST)}
        self._root = root

    def save(self, which: str, state: TrainState) -> None:
        """Keep this state as the latest or the best; a step that is kept already is left as it is."""
        manager, step = self._managers[which], int(state.step)
        if step != manager.latest_step():
            manager.save(step, args=ocp.args.StandardSave(state))

    def step(self, which: str) -> int | None:
        """The step that is kept, or None."""
        return self._managers[which].latest_step()

    def restore(self, which: str, like: TrainState) -> TrainState:
        """The kept state, in the shape of `like`. Raises InputError where there is none."""
        manager = self._managers[which]
        manager.wait_until_finished()
        step = manager.latest_step()
        if step is None:
            raise InputError(f"{self._root / which}: no checkpoint here; train first")
        restored: Any = manager.restore(step, args=ocp.args.StandardRestore(_abstract(like)))
        return restored

    def close(self) -> None:
        """Wait until all is on disk."""
        for manager in self._managers.values():
            manager.close()

"""Checkpoints of a run, by orbax: the two newest, to resume from, and the best, to use.

Each holds three items: `model` (parameters and method state), `state` (everything else of the training state), and
`meta`, a record of what the checkpoint belongs to, with a digest of every array, since orbax checks none.
"""

import contextlib
import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import checkpoint_managers

from scalevae_jax.core.types import InputError, Params, leaves_by_path
from scalevae_jax.runtime import console, devices, processes, storage
from scalevae_jax.runtime.storage import Path, first_line
from scalevae_jax.training.state import TrainState

FOLDER = "checkpoints"
MODEL = ("params", "method_state")  # fields of the training state that make the item `model`
NEWEST = 2  # kept beside the best, so that a damaged or torn checkpoint does not lose the run

logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)  # it logs what it raises
_write_unraisable = sys.unraisablehook


def _ignore_late_reads(unraisable: Any) -> None:
    """At the first damaged file, orbax ends the event loop in which its other reads still run; each complains."""
    if str(unraisable.exc_value) != "Event loop is closed":
        _write_unraisable(unraisable)


sys.unraisablehook = _ignore_late_reads
# On a full disk orbax drops the writes that it has not begun, of which Python warns when it collects them.
warnings.filterwarnings("ignore", message="coroutine 'async_serialize", category=RuntimeWarning)


class Damaged(InputError):  # noqa: N818 (names the state of a file)
    """A checkpoint is not what was saved."""


class _Best(checkpoint_managers.PreservationPolicy):
    """Preserves the checkpoint with the lowest validation loss; of equals, the first.

    orbax's own BestN reads each loss from a file of its own, and if one of those is damaged, it opens no checkpoint.
    """

    def __init__(self, losses: dict[int, float | None]):
        self._losses = losses

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        best = _lowest({checkpoint.step: self._losses.get(checkpoint.step) for checkpoint in checkpoints})
        return [checkpoint.step == best for checkpoint in checkpoints]


def _lowest(losses: dict[int, float | None]) -> int | None:
    validated = [(loss, step) for step, loss in losses.items() if loss is not None]
    return min(validated)[1] if validated else None


def _signature(x: Any) -> list[Any]:
    return [str(x.dtype), list(x.shape)]


def _digest(x: jax.Array) -> str:
    data: Any = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return hashlib.blake2b(np.ascontiguousarray(data).data, digest_size=16).hexdigest()


def describe(tree: Any) -> dict[str, list[Any]]:
    """For every array its dtype, its shape, and a digest of its bytes (BLAKE2b, 128 bits)."""
    return {name: [*_signature(x), _digest(x)] for name, x in leaves_by_path(tree).items()}


def _record_digest(record: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).hexdigest()


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
    """The fields of a state by the item that holds them."""
    fields = state._asdict()
    model = {name: fields.pop(name) for name in MODEL}
    return {"model": model, "state": fields}


class Checkpoints:
    """The checkpoints in `workdir/checkpoints`.

    `about` names what they belong to (method, vocabulary), and is compared when one is read. Saving happens in the
    background; `close` waits for it. Nothing on disk changes unless `writing`.
    """

    def __init__(self, workdir: Path, about: dict[str, str], writing: bool = False):
        self._workdir, self._about, self._writing = workdir, about, writing
        self._root = epath.Path(workdir / FOLDER)
        if not storage.is_remote(workdir):
            self._root = self._root.resolve()  # orbax takes no relative path
        self._losses: dict[int, float | None] = {}
        newest = checkpoint_managers.LatestN(NEWEST)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([newest, _Best(self._losses)]),
            cleanup_tmp_directories=writing,
            create=writing,
            read_only=not writing,
        )
        self._manager = ocp.CheckpointManager(self._root, options=options)
        for step in self.steps():
            with contextlib.suppress(Damaged):  # reading it says so
                self._record(step)

    def steps(self) -> list[int]:
        """The steps at which there is a checkpoint, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, state: TrainState, valid_loss: float | None = None) -> None:
        """Save a state; one at the end of an epoch has a validation loss, or what `train.select_by` ranks epochs by, in
        nats a sentence.

        The state replaces another one of the same step. Raises InputError if it cannot be written.
        """
        step, items = int(state.step), _items(state)
        record: dict[str, Any] = {
            "about": self._about,
            "epoch": int(state.epoch) - 1,
            "valid_loss": None if valid_loss is None else float(np.float32(valid_loss)),
            "arrays": {item: describe(tree) for item, tree in items.items()},
        }
        arrays = {item: ocp.args.StandardSave(devices.to_global(tree)) for item, tree in items.items()}
        meta = ocp.args.JsonSave(record | {"digest": _record_digest(record)})
        try:
            self._manager.wait_until_finished()
            if step in self.steps() and self._record(step)["arrays"] == record["arrays"]:
                return  # a signal came just after the end of an epoch
            for other in self.steps():
                if other >= step:
                    self._manager.delete(other)
            self._losses[step] = record["valid_loss"]
            self._manager.save(step, args=ocp.args.Composite(meta=meta, **arrays), force=True)
        except Exception as error:  # orbax passes on whatever its threads raised
            self._not_written(error)

    def _not_written(self, error: Exception) -> NoReturn:
        if isinstance(error, jax.errors.JaxRuntimeError):  # another process is lost
            raise error
        steps = self.steps()
        raise InputError(
            f"{self._root}: a checkpoint could not be written ({first_line(error)}); the newest intact one is "
            f"{f'of step {steps[0]}' if steps else 'missing'}. Make room, then the same command resumes"
        ) from error

    def _record(self, step: int) -> dict[str, Any]:
        try:
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            record = dict(self._manager.restore(step, args=args)["meta"])
            if record.pop("digest") != _record_digest(record):
                raise ValueError("its digest differs")
        except Exception as error:  # orbax has no error of its own for damage
            raise self._damaged(step, f"its record is not readable ({first_line(error)})") from error
        self._losses[step] = record["valid_loss"]
        return record

    def _damaged(self, step: int, what: str) -> Damaged:
        return Damaged(f"{self._workdir}: the checkpoint of step {step} is damaged: {what}")

    def _restore(self, step: int, item: str, like: Any) -> tuple[Any, int]:
        """An item in the shape of `like`, each array compared with its digest, and the number of whole epochs.

        Raises Damaged, or InputError if the checkpoint belongs to another method, vocabulary or network.
        """
        record = self._record(step)
        where = f"{self._workdir}: the checkpoint of step {step}"
        for name, value in self._about.items():
            if record["about"].get(name) != value:
                raise InputError(f"{where} has {name} {record['about'].get(name)}, the run has {value}")
        saved = record["arrays"][item]
        expected = {name: _signature(x) for name, x in leaves_by_path(like).items()}
        for name in [*expected, *saved]:
            is_saved, is_expected = saved.get(name, [])[:2], expected.get(name, [])
            if is_saved != is_expected:
                has, needs = (" of ".join(map(str, x)) or "nothing" for x in (is_saved, is_expected))
                raise InputError(f"{where} has {name} as {has}, the run expects {needs}")
        # The present devices, whatever devices the arrays were saved on.
        everywhere = NamedSharding(Mesh(jax.devices(), (devices.AXIS,)), PartitionSpec())
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), like)
        try:
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(placed)})
            tree: Any = self._manager.restore(step, args=args)[item]
        except Exception as error:
            raise self._damaged(step, f"its arrays are not readable ({first_line(error)})") from error
        for name, array in leaves_by_path(tree).items():
            if _digest(array) != saved[name][2]:
                raise self._damaged(step, f"array {name} is not the one that was saved (its digest differs)")
        return devices.to_local(tree), record["epoch"]

    def _restore_model(self, step: int, like: tuple[Params, Any]) -> tuple[Params, Any, int]:
        model, epoch = self._restore(step, "model", dict(zip(MODEL, like, strict=True)))
        return model["params"], model["method_state"], epoch

    def best_step(self) -> int | None:
        """The step of the epoch with the lowest validation loss, None before the first epoch's end. Raises Damaged."""
        self.wait()
        return _lowest({step: self._record(step)["valid_loss"] for step in self.steps()})

    def best_epoch(self) -> int:
        """The number of the epoch with the lowest validation loss, 0 before the first epoch's end. Raises Damaged."""
        step = self.best_step()
        return 0 if step is None else self._record(step)["epoch"]

    def best_model(self, like: tuple[Params, Any]) -> tuple[Params, Any, int]:
        """Parameters, method state and number of the epoch with the lowest validation loss; `like` has their shapes.

        Raises InputError if there is none yet, Damaged if it is not intact.
        """
        step = self.best_step()
        if step is None:
            raise InputError(f"{self._root}: no epoch has ended yet; train first")
        return self._restore_model(step, like)

    def newest_model(self, like: tuple[Params, Any]) -> tuple[Params, Any, int]:
        """The model of the newest intact checkpoint, in place of a damaged best one.

        Raises Damaged if none is intact.
        """
        problems: list[Damaged] = []
        for step in self.steps():
            try:
                return self._restore_model(step, like)
            except Damaged as damaged:
                problems.append(damaged)
        raise self._none_intact(problems)

    def newest(self, like: TrainState) -> TrainState | None:
        """The newest intact state, with a warning for every damaged checkpoint; None if there is no checkpoint at all.

        A run that writes reads all of its checkpoints here, and renames the damaged ones: so it learns at its start
        that its best one is damaged, and can save the step of a damaged one again. Raises Damaged if none is intact.
        """
        items, problems = _items(like), dict[int, Damaged]()
        state: TrainState | None = None
        for step in self.steps():
            try:
                fields = [self._restore(step, item, tree)[0] for item, tree in items.items()]
                state = state or TrainState(**fields[0], **fields[1])
            except Damaged as damaged:
                problems[step] = damaged
            if state is not None and not self._writing:
                break
        if state is None:
            if problems:
                raise self._none_intact(list(problems.values()))
            return None
        for step, damaged in problems.items():
            console.warn(f"{damaged}; the newest intact one, of step {int(state.step)}, is used")
            if self._writing:
                self._rename(step)
        return state

    def _none_intact(self, problems: list[Damaged]) -> Damaged:
        return Damaged(f"{'; '.join(map(str, problems))}; no intact checkpoint is left")

    def _rename(self, step: int) -> None:
        processes.barrier("all processes have read the damaged checkpoint")
        if processes.is_main_process():
            aside = self._root / f"damaged-{step}"  # not in a folder of its own, which a bucket could not make
            aside.rmtree(missing_ok=True)
            (self._root / str(step)).rename(aside)
        processes.barrier("the damaged checkpoint is renamed")
        self._manager.reload()

    def preempted(self, step: int) -> bool:
        """Whether all processes must save and stop at this step: one of them received SIGTERM."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Wait until everything is on disk. Raises InputError if it cannot be written."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._not_written(error)

    def close(self) -> None:
        """Wait, then end orbax's threads. Raises InputError if something cannot be written."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # `wait` has raised it
                self._manager.close()

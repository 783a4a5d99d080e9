"""Saved training states, by orbax: the latest, to go on from, and the best, to use. Kept apart, so that neither evicts
the other. Beside the arrays stand their digests, which orbax does not check, and what they are arrays of."""

import contextlib
import gc
import hashlib
import logging
import sys
from collections.abc import Generator
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scalevae_jax.core.types import InputError, leaves_by_path
from scalevae_jax.runtime import console, devices, processes, storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training.state import TrainState

FOLDER = "checkpoints"
LATEST, BEST, FAULT = "latest", "best", "fault"  # FAULT: the state before a step whose numbers were not finite
KEPT = {LATEST: 2, BEST: 1, FAULT: 1}
LARGEST_RATIO = 1000  # bytes of arrays that a byte on disk may become


class Damaged(InputError):  # noqa: N818 (of the file)
    """A checkpoint that is not what was saved."""


class Saved(NamedTuple):
    """A checkpoint's name."""

    which: str
    step: int

    def __str__(self) -> str:
        return f"the {self.which} checkpoint, of step {self.step},"


def _signature(x: Any) -> list[Any]:
    return [str(x.dtype), list(x.shape)]


def _digest(x: jax.Array) -> str:
    data: Any = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return hashlib.blake2b(np.ascontiguousarray(data).data, digest_size=16).hexdigest()


def describe(state: TrainState) -> dict[str, list[Any]]:
    """Of every array: dtype, shape, and a digest (BLAKE2b, 128 bits) of its bytes."""
    return {name: [*_signature(x), _digest(x)] for name, x in leaves_by_path(state).items()}


def _placed(like: TrainState) -> Any:
    """Shapes, dtypes, and a placement on the devices of now, whichever the state was saved on."""
    everywhere = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), like)


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without the pages that orbax's reading threads print about a damaged file; the exception says it too."""
    hook, level = sys.unraisablehook, logging.root.manager.disable

    def mostly(said: Any, hook: Any = hook) -> None:
        if str(said.exc_value) != "Event loop is closed":  # of threads that outlive the failed read
            hook(said)

    sys.unraisablehook = lambda _: None
    logging.disable(logging.CRITICAL)
    try:
        yield
    except Exception:
        gc.collect()  # or the pages come later
        hook = mostly
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # which tells the same again at the end
        raise
    finally:
        sys.unraisablehook = hook
        logging.disable(level)


REASONS = {
    "NOT_FOUND": "a file is missing",
    "OUT_OF_RANGE": "a file is cut short",
    "RESOURCE_EXHAUSTED": "no room on the disk",
    "DATA_LOSS": "a file is cut short or changed",
    "was not found in the checkpoint": "its folder is missing",
    "JSONDecodeError": "a file is cut short or changed",
}  # what orbax and tensorstore say, for the reader


def _reason(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    known = [reason for code, reason in REASONS.items() if code in text]
    return known[0] if known else text.splitlines()[0][:200]


class Checkpoints:
    """The keepers of a run's states, under `workdir/checkpoints`. `about` names what the states belong to (method,
    vocabulary) and must agree when one is read. Saving goes on behind; `close` waits for it.

    Without `writing` nothing on the disk is touched.
    """

    def __init__(self, workdir: Path, about: dict[str, str], writing: bool = False):
        self._root, self._about, self._writing = storage.absolute(workdir / FOLDER), about, writing
        there = [which for which in KEPT if writing or (self._root / which).is_dir()]
        with _quiet():
            self._managers = {which: self._manager(which) for which in there}

    def _manager(self, which: str) -> ocp.CheckpointManager:
        apart = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=which)  # from the other managers' threads
        if self._writing:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEPT[which], cleanup_tmp_directories=True, multiprocessing_options=apart
            )
        else:
            options = ocp.CheckpointManagerOptions(read_only=True, multiprocessing_options=apart)
        return ocp.CheckpointManager(self._root / which, options=options)

    def save(self, which: str, state: TrainState) -> None:
        """Keep this state, instead of another one of the same step. Raises InputError where it can not be written.

        The latest is written when the best is whole on disk, so that no latest state speaks of a best that is not.
        """
        manager, step = self._managers[which], int(state.step)
        meta = {"about": self._about, "arrays": describe(state)}
        try:
            with _quiet():  # orbax warns of every wait
                if which == LATEST:
                    self._managers[BEST].wait_until_finished()
                manager.wait_until_finished()
                for there in manager.all_steps():
                    if there == step and self._read_meta(Saved(which, step)) == meta:
                        return
                    if there >= step:
                        manager.delete(there)
                arrays = ocp.args.StandardSave(devices.to_global(state))
                args = ocp.args.Composite(state=arrays, meta=ocp.args.JsonSave(meta))
                written = manager.save(step, args=args, force=True)
        except Exception as error:  # orbax passes on whatever its threads met
            self._unwritten(error)
        if not written:
            raise InputError(f"{self._root / which}: step {step} was not saved: a later step is there")

    def _unwritten(self, error: Exception) -> NoReturn:
        """Raises what the user can mend as InputError; where another process has gone, the error itself."""
        if isinstance(error, jax.errors.JaxRuntimeError) or processes.lost(error):
            raise error
        whole = [str(saved.step) for saved in self.saved() if saved.which == LATEST]
        raise InputError(
            f"{self._root}: a checkpoint could not be written ({_reason(error)}); whole on disk: "
            f"{'step ' + whole[0] if whole else 'none'}. Make room, then the same command goes on"
        ) from error

    def saved(self) -> list[Saved]:
        """All that can be gone on from, the newest first."""
        kept = [Saved(which, step) for which in (LATEST, BEST) for step in self._steps(which)]
        return sorted(kept, key=lambda saved: -saved.step)

    def _steps(self, which: str) -> list[int]:
        root = self._root / which
        there = [path for path in root.iterdir() if path.name.isdecimal()] if root.is_dir() else []
        return [int(path.name) for path in there if ocp.utils.is_checkpoint_finalized(path)]

    def _read_meta(self, saved: Saved) -> Any:
        with _quiet():
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            return self._managers[saved.which].restore(saved.step, args=args)["meta"]

    def restore(self, saved: Saved, like: TrainState) -> TrainState:
        """The kept state, in the shape of `like`, every array compared with its digest.

        Raises Damaged where it is not what was saved, InputError where it belongs to another model or method.
        """
        manager = self._managers[saved.which]
        try:
            meta = self._read_meta(saved)
            arrays = {
                name: ([str(dtype), list(shape)], str(digest))
                for name, (dtype, shape, digest) in meta["arrays"].items()
            }
            about = dict(meta["about"])
        except Exception as error:  # orbax has no error of its own for damage
            raise self._damaged(saved, f"its record is not readable ({_reason(error)})") from error
        self._compare(saved, arrays, about, like)
        try:
            with _quiet():
                args = ocp.args.Composite(state=ocp.args.StandardRestore(_placed(like)))
                state: Any = manager.restore(saved.step, args=args)["state"]
        except Exception as error:
            raise self._damaged(saved, f"its arrays are not readable ({_reason(error)})") from error
        for name, array in leaves_by_path(state).items():
            if _digest(array) != arrays[name][1]:
                raise self._damaged(saved, f"array {name} is not the one that was saved (its digest differs)")
        return devices.to_local(state)

    def _damaged(self, saved: Saved, what: str) -> Damaged:
        return Damaged(f"{self._root.parent}: {saved} is damaged: {what}")

    def _compare(self, saved: Saved, arrays: dict[str, Any], about: dict[str, str], like: TrainState) -> None:
        """Raises where the record speaks of another state than `like`, before anything large is read."""
        for name, value in self._about.items():
            if about.get(name) != value:
                raise InputError(f"{self._root.parent}: {saved} has {name} {about.get(name)}, and the run has {value}")
        wanted = {name: _signature(x) for name, x in leaves_by_path(like).items()}
        for name in [*wanted, *arrays]:
            there = arrays[name][0] if name in arrays else None
            if there != wanted.get(name):
                is_there, is_wanted = (" of ".join(map(str, x)) if x else "nothing" for x in (there, wanted.get(name)))
                raise InputError(f"{self._root.parent}: {saved} has {name} as {is_there}; the run wants {is_wanted}")
        folder = self._root / saved.which / str(saved.step)
        on_disk = storage.size_below(folder)
        in_memory = sum(np.prod(shape) for _, shape in wanted.values()) * 4
        if in_memory > LARGEST_RATIO * on_disk:
            raise self._damaged(saved, f"{on_disk:,} bytes on disk can not hold arrays of {int(in_memory):,} bytes")

    def newest(self, like: TrainState) -> TrainState | None:
        """The newest whole checkpoint, loudly where a newer one is damaged; None where there is none at all.

        Where this run writes, the damaged one is moved to `checkpoints/damaged`, since a step that is there is not
        written again. Raises Damaged where none is whole.
        """
        damaged: dict[Saved, str] = {}
        for saved in self.saved():
            try:
                state = self.restore(saved, like)
            except Damaged as damage:
                damaged[saved] = str(damage)
                continue
            for bad, what in damaged.items():
                console.warn(f"{what}; {saved} is whole and taken instead")
                if self._writing:
                    self._set_aside(bad)
            return state
        if damaged:
            raise Damaged(f"{'; '.join(damaged.values())}; no whole checkpoint is left")
        return None

    def only(self, which: str, like: TrainState) -> TrainState:
        """The checkpoint of this kind. Raises InputError where there is none, Damaged where it is not whole."""
        if self._writing:
            self._managers[which].wait_until_finished()
        kept = self._steps(which)
        if not kept:
            raise InputError(f"{self._root}: no {which} checkpoint here; train first")
        return self.restore(Saved(which, max(kept)), like)

    def check_best(self, like: TrainState) -> bool:
        """Whether there is a whole best checkpoint; a damaged one is moved aside, loudly."""
        try:
            if not self._steps(BEST):
                return False
            self.only(BEST, like)
        except Damaged as damage:
            console.warn(f"{damage}; it is put aside, and the next epoch becomes the best")
            self._set_aside(Saved(BEST, max(self._steps(BEST))))
            return False
        return True

    def _set_aside(self, saved: Saved) -> None:
        processes.barrier("a damaged checkpoint is seen by all")
        if processes.is_main_process():
            aside = self._root / "damaged" / f"{saved.which}-{saved.step}"
            storage.move(self._root / saved.which / str(saved.step), aside)
        processes.barrier("a damaged checkpoint is put aside")
        self._managers[saved.which].reload()

    def preempted(self, step: int) -> bool:
        """Whether all processes are to save and stop at this step; SIGTERM at one of several tells all of them."""
        return jax.process_count() > 1 and self._managers[LATEST].reached_preemption(step)

    def wait(self) -> None:
        """Until all is on disk. Raises InputError where it can not be written."""
        try:
            for manager in self._managers.values():
                manager.wait_until_finished()
        except Exception as error:
            self._unwritten(error)

    def close(self) -> None:
        """Wait, and end orbax's threads. Raises InputError where something can not be written."""
        try:
            self.wait()
        finally:
            for manager in self._managers.values():
                with contextlib.suppress(Exception):  # `wait` has said it
                    manager.close()

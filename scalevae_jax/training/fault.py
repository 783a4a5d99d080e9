"""A step whose loss or gradient was not finite: what is kept of it, and the step taken again."""

import json
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scalevae_jax.core.types import Batch, InputError, leaves_by_path
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import devices, storage
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training.state import TrainState
from scalevae_jax.training.steps import PARAM_GROUPS, Steps

FILE = "fault.json"


class Fault(NamedTuple):
    """The state before the step, the step's move, its batch."""

    state: TrainState
    move: str
    batch: Batch


def find(state: TrainState, batch: Batch, draw: Any) -> Fault:
    """What happened to a state that has a fault; `batch` and `draw` are those of the training step."""
    move = list(PARAM_GROUPS)[int(state.fault) - 1]
    inner = int(state.substep)
    batch = draw(inner) if move == "encoder" and inner else batch
    return Fault(state._replace(fault=jnp.zeros_like(state.fault)), move, batch)


def take_again(fault: Fault, steps: Steps, method: Method, steps_per_epoch: int) -> dict[str, Any]:
    """The step's numbers, in nats a sentence, of a state that has survived; what is not finite is a word."""
    state = fault.state
    copy = devices.replicate(jax.tree.map(lambda x: x.copy(), state))
    _, told = getattr(steps, fault.move)(copy, devices.shard(fault.batch))
    factor = np.atleast_1d(np.asarray(method.posterior.factor(state.method_state), np.float64))
    done = np.float32((int(state.step) + 1) / steps_per_epoch)
    return {
        "step": int(state.step) + 1,
        "epoch": int(state.epoch),
        "move": fault.move,
        "substep": int(state.substep),
        "lr": float(state.plateau.learning_rate),
        "kl_weight": float(method.kl_weight(done)),
        "loss": _number(told.loss),
        "gradient_norm": _number(told.norm),
        "factor": [_number(f) for f in factor],
        "parameters_not_finite": [
            name for name, x in leaves_by_path(state.params).items() if not np.all(np.isfinite(x))
        ],
    }


def _number(x: Any) -> float | str:
    return float(x) if math.isfinite(x) else str(float(x))


def line(facts: dict[str, Any]) -> str:
    """The facts for the eye."""
    factor = [float(f) for f in facts["factor"]]
    spread = f"{min(factor):.3g} to {max(factor):.3g}" if factor else "none"
    blown = facts["parameters_not_finite"]
    return (
        f"step {facts['step']} of epoch {facts['epoch']} ({facts['move']}): loss {facts['loss']}, gradient norm "
        f"{facts['gradient_norm']}, lr {facts['lr']:g}, kl weight {facts['kl_weight']:g}, factor {spread}"
        + (f", not finite before it: {', '.join(blown)}" if blown else "")
    )


def write(folder: Path, fault: Fault, facts: dict[str, Any]) -> None:
    """The facts and the batch, as JSON; the state is a checkpoint."""
    batch = {name: np.asarray(x).tolist() for name, x in fault.batch._asdict().items()}
    storage.write_json(folder / FILE, facts | {"batch": batch})


def read(folder: Path) -> tuple[dict[str, Any], Batch]:
    """What `write` wrote. Raises InputError where there is none, or it is not that."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{path}: not there: no step of this run was stopped for numbers that are not finite")
    try:
        facts = json.loads(storage.read_text(path))
        batch = facts.pop("batch")
        tokens, lengths, row = (np.asarray(batch[name], np.int32) for name in ("tokens", "lengths", "row"))
        weight = np.asarray(batch["weight"], np.float32)
        rows = tokens.shape[:1]
        if tokens.ndim != 2 or {lengths.shape, row.shape, weight.shape} != {rows} or facts["move"] not in PARAM_GROUPS:
            raise ValueError("not a batch")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: not a readable record of a step ({error})") from error
    return facts, Batch(tokens, lengths, weight, row)

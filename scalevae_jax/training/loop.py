"""The training loop: epochs of Algorithm 1, validation, the learning-rate rule, checkpoints, the log."""

import collections
import functools
import math
import signal
import time
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scalevae_jax.config import Config
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Batch, InputError
from scalevae_jax.data.loader import Loader
from scalevae_jax.inference import posteriors
from scalevae_jax.inference.posteriors import make_inference
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import Method
from scalevae_jax.methods.plan import Draw
from scalevae_jax.runtime import allocator, console, devices
from scalevae_jax.runtime.signals import Interrupted, Signals, Stopped
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import fault, plateau, workdir
from scalevae_jax.training.checkpoint import BEST, FAULT, LATEST, Checkpoints
from scalevae_jax.training.compiling import Compiling
from scalevae_jax.training.log import EpochLog
from scalevae_jax.training.plateau import Decision
from scalevae_jax.training.profiler import Profiler
from scalevae_jax.training.state import TrainState
from scalevae_jax.training.steps import StepInfo, Steps, make_steps

RUNAWAY_FACTOR = 50.0
IN_FLIGHT = 1.0  # seconds of training steps given to the device ahead of what the host has seen the end of
MOST_IN_FLIGHT = 20  # dispatches, however short
LONG = 0.1  # seconds; on a CPU a dispatch that takes longer is waited for,
FREED = 0.001  # seconds more, in which XLA frees its memory: the next one would take as much again
TICK_EVERY = 20  # steps


def epoch_line(
    state: TrainState,
    method: Method,
    valid: dict[str, Any],
    steps_per_epoch: int,
    seconds: float,
    compiling: float,
    tokens: float,
) -> dict[str, Any]:
    """What is logged of an epoch, nats a sentence; of it, `seconds` were trained in this life of the run, from the
    token on that is given, `compiling` of them before there was a program to run."""
    sums = jax.tree.map(float, state.sums)
    count = max(sums.sentences, 1.0)
    return {
        "epoch": int(state.epoch),
        "step": int(state.step),
        "lr": float(state.plateau.learning_rate),
        "kl_weight": float(method.kl_weight(jnp.float32(int(state.step) / steps_per_epoch))),
        "train_rec": sums.rec / count,
        "train_kl": sums.kl / count if valid["kl"] is not None else None,
        "train_loss": sums.loss / count,
        "valid_rec": valid["rec"],
        "valid_kl": valid["kl"],
        "valid_loss": valid["loss"],
        **{key: valid[key] for key in ("kl_model", "mi", "mi_ceiling", "au", "au_hat", "std_mean_hat")},
        **{key: valid[key] for key in ("factor_min", "factor_median", "factor_max")},
        "skipped": int(state.skipped),
        "seconds": seconds,
        "seconds_compiling": compiling,
        "tokens_per_second": (sums.tokens - tokens) / seconds or None,  # of a life that began at the epoch's end
    }


def warnings(line: dict[str, Any], method: Method) -> dict[str, str | None]:
    """What a user should not discover a day later: for each ill its remedy, or None where all is well."""
    collapsed = runaway = None
    full = float(method.kl_weight(jnp.float32(1e6)))  # that of a late epoch: 1, but for beta_vae
    if line["mi"] is not None and line["kl_weight"] >= full and (line["mi"] < 0.1 or line["au_hat"] == 0):
        collapsed = (
            f"the posterior has collapsed (mi {line['mi']:.3f} nats, {line['au_hat']} active units of q_hat): z is "
            "ignored. Try --config.method.name=scale_vae --config.method.des_std=0.9, or bn_vae with a larger gamma"
        )
    largest = line["factor_max"]
    if largest is not None and line["epoch"] > method.posterior.own_epochs and largest > RUNAWAY_FACTOR:
        runaway = (
            f"the factor has run away (largest {largest:.3g}): the posterior means have nearly no spread of their own. "
            "Try a smaller --config.method.des_std, more steps an epoch, or --config.method.factor_average=population"
        )
    return {"collapsed": collapsed, "runaway": runaway}


class Training(NamedTuple):
    """What does not change while a run trains."""

    folder: Path
    settings: Config
    model: Model
    method: Method
    train: Loader
    valid: Loader
    keeper: Checkpoints
    log: EpochLog
    signals: Signals
    profiler: Profiler
    compiling: Compiling


class Flight:
    """Training steps that the device has been given, one or several a dispatch, and that the host has not seen the end
    of: about IN_FLIGHT seconds of them, so that a signal is soon obeyed, and always one dispatch, so that the device
    never waits; but on a CPU none that is LONG, and none at all of several virtual devices, which deadlock with many
    collectives in flight."""

    def __init__(self) -> None:
        self._steps: collections.deque[tuple[StepInfo, list[Batch], Draw]] = collections.deque()
        self._room, self._seen = 0, time.monotonic()
        cpu = jax.default_backend() == "cpu"
        self._wait, self._long = cpu and jax.device_count() > 1, LONG if cpu else math.inf

    def add(self, told: StepInfo, batches: list[Batch], draw: Draw) -> None:
        """One more; waits for older ones. Raises Faulted where one of them was not taken."""
        self._steps.append((told, batches, draw))
        self.land(0 if self._wait else self._room)

    def land(self, room: int = 0) -> None:
        """Wait until at most so many are left. Raises Faulted where one was not taken."""
        while len(self._steps) > room:
            told, batches, draw = self._steps.popleft()
            faults = np.atleast_1d(told.fault)
            if faults.any():
                raise Faulted(batches[int(np.argmax(faults > 0))], draw)
            now = time.monotonic()
            took = now - self._seen
            if took > self._long:
                self._room = 0
                time.sleep(FREED)
            else:
                self._room = max(1, min(self._room + 1, int(IN_FLIGHT / (took + 1e-6)), MOST_IN_FLIGHT))
            self._seen = now


class Faulted(Exception):  # noqa: N818 (of the numbers, not of the program)
    """A step's numbers were not finite; its batch, and the draws of its inner steps."""

    def __init__(self, batch: Batch, draw: Draw):
        super().__init__()
        self.batch, self.draw = batch, draw


def fit(run: Training, state: TrainState) -> TrainState:
    """Train from `state` until the rule stops it, or `max_epochs`, or `max_steps`.

    Raises command.Stopped after a signal, and InputError when the loss or a gradient is not finite; the state is saved.
    """
    settings, method = run.settings, run.method
    optimizer = workdir.optimizer(settings)
    steps = make_steps(run.model, method, optimizer, len(run.train), settings.train.skip_nonfinite)
    inference = make_inference(run.model, method)
    valid_key = jax.random.key(settings.train.seed)
    while not finished(settings, state):
        started, tokens = time.monotonic(), float(state.sums.tokens)
        run.compiling.take()
        state, signal_number = train_epoch(run, steps, state)
        if signal_number is not None:
            _stop(run, state, signal_number)
        seconds, compiling = time.monotonic() - started, run.compiling.take()
        method_state = method.posterior.end_epoch(state.method_state)
        try:
            with run.signals.at_once():
                valid = posteriors.infer(
                    inference, method, state.params, method_state, run.valid, valid_key, run.model.latent
                ).summary(method)
        except Interrupted:
            _stop(run, state, run.signals.received)
        _check(run, state, valid)
        state = state._replace(method_state=method_state)
        line = epoch_line(state, method, valid, len(run.train), seconds, compiling, tokens)
        ills = warnings(line, method)
        run.log.write(line | {ill: text is not None for ill, text in ills.items()}, settings.train.max_epochs)
        for text in filter(None, ills.values()):
            console.warn(text)
        state, decision = _end_epoch(run, optimizer, state, valid)
        if Decision.BEST in decision:
            run.keeper.save(BEST, state)
        if Decision.DECAY in decision and settings.optim.reload_best:
            best = run.keeper.only(BEST, state)
            state = state._replace(params=best.params, method_state=best.method_state)
        run.keeper.save(LATEST, state)
        allocator.give_back()
    return state


def finished(settings: Config, state: TrainState) -> bool:
    """Whether there is nothing left to train."""
    return (
        int(state.epoch) > settings.train.max_epochs
        or int(state.step) >= (settings.train.max_steps or math.inf)
        or plateau.finished(workdir.rule(settings), state.plateau)
    )


def _stop(run: Training, state: TrainState, number: int | None) -> NoReturn:
    run.keeper.save(LATEST, state)
    raise Stopped(number or signal.SIGTERM, f"stopped at step {int(state.step)}, and saved")


def _check(run: Training, state: TrainState, valid: dict[str, Any]) -> None:
    if not math.isfinite(valid["loss"]):
        run.keeper.save(LATEST, state)
        raise InputError(
            f"{run.folder}: the validation loss is {valid['loss']} after epoch {int(state.epoch)} (step "
            f"{int(state.step)}, lr {float(state.plateau.learning_rate):g}), which is saved; train anew with a smaller "
            "--config.optim.learning_rate"
        )


def _end_epoch(
    run: Training, optimizer: optax.GradientTransformation, state: TrainState, valid: dict[str, Any]
) -> tuple[TrainState, Decision]:
    """The state at the start of the next epoch."""
    rate, decision = plateau.update(workdir.rule(run.settings), state.plateau, valid["loss"], int(state.epoch) - 1)
    state = state._replace(
        epoch=state.epoch + 1,
        position=jnp.zeros_like(state.position),
        plan=run.method.plan.end_epoch(state.plan, valid["mi"]),
        plateau=jax.tree.map(jnp.asarray, rate),
        sums=objective.zero_sums(),
    )
    if Decision.DECAY in decision:
        state = state._replace(opt_state=optimizer.init(state.params))
    return state, decision


def train_epoch(run: Training, steps: Steps, state: TrainState) -> tuple[TrainState, int | None]:
    """The rest of the state's epoch, or less where a signal or the limit of steps comes first; the signal's number."""
    state = devices.replicate(state)
    epoch, step, position = int(state.epoch), int(state.step), int(state.position)
    often = run.settings.checkpoint
    saved, seen = time.monotonic(), _seen(state)
    flight = Flight()
    alone = jax.process_count() == 1  # several processes save at the same step, and their clocks differ
    what = f"epoch {epoch}/{run.settings.train.max_epochs}"
    number = None
    most = run.settings.train.steps_per_dispatch if run.method.plan.several else 1
    end = position + max(0, limit - step) if (limit := run.settings.train.max_steps) else None
    try:
        with console.Progress(what, len(run.train), position) as ticker:
            for batches in run.train.groups(epoch, position, end, most):
                number = run.signals.received or (signal.SIGTERM if run.keeper.preempted(step) else None)
                if number is not None:
                    break
                draw, count = functools.partial(run.train.draw, epoch, step), len(batches)
                sharded = [devices.shard(batch) for batch in batches]
                if count > 1:
                    state, told = steps.several(state, devices.stack_batches(sharded))
                else:
                    state, told = run.method.plan.step(
                        steps, state, sharded[0], lambda k, draw=draw: devices.shard(draw(k))
                    )
                flight.add(told, batches, draw)
                step, position = step + count, position + count
                run.profiler.after_dispatch(flight.land)
                if step % TICK_EVERY < count and ticker.due:
                    before, seen = seen, _seen(state)
                    ticker.tick(position, f"loss {(seen[0] - before[0]) / max(seen[1] - before[1], 1):.2f}")
                late = alone and often.every_minutes and time.monotonic() - saved > 60 * often.every_minutes
                due = late or (often.every_steps and step % often.every_steps < count)
                if due and position < len(run.train):  # the end of the epoch is saved in a moment
                    flight.land()
                    run.keeper.save(LATEST, state)
                    saved = time.monotonic()
        flight.land()
    except Faulted as faulted:
        _fault(run, steps, fault.find(state, faulted.batch, faulted.draw))
    return state, number


def _fault(run: Training, steps: Steps, found: fault.Fault) -> NoReturn:
    """Keep all that the step was made of, and stop."""
    run.keeper.save(FAULT, found.state)
    run.keeper.save(LATEST, found.state._replace(substep=jnp.zeros_like(found.state.substep)))
    found = found._replace(batch=run.train.whole(found.batch))
    facts = fault.take_again(found, steps, run.method, len(run.train))
    fault.write(run.folder, found, facts)
    raise InputError(
        f"{run.folder}: numbers that are not finite in {fault.line(facts)}. Nothing was trained on them, all before is "
        f"saved; look with python -m scalevae_jax.replay --workdir {run.folder}, then go on with "
        "--config.train.skip_nonfinite, or train anew with a smaller --config.optim.learning_rate"
    )


def _seen(state: TrainState) -> tuple[float, float]:
    """Loss and sentences of the epoch so far; numbers, since the state's own arrays are donated to the next step."""
    return float(state.sums.loss), float(state.sums.sentences)

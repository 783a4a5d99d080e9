"""The training loop: epochs of Algorithm 1, validation, the learning-rate rule, checkpoints, the log."""

import collections
import functools
import math
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from scalevae_jax.config import Config
from scalevae_jax.core.network import Model
from scalevae_jax.core.types import Batch, InputError, Params
from scalevae_jax.data.loader import Loader
from scalevae_jax.methods import objective
from scalevae_jax.methods.method import Method
from scalevae_jax.runtime import console, devices
from scalevae_jax.runtime.signals import Interrupted, Signals, Stopped
from scalevae_jax.runtime.storage import Path
from scalevae_jax.training import optimizer, plateau, problems
from scalevae_jax.training.checkpoint import Checkpoints
from scalevae_jax.training.compiling import Compiling
from scalevae_jax.training.log import EpochLog, epoch_line
from scalevae_jax.training.plateau import Decision
from scalevae_jax.training.state import TrainState
from scalevae_jax.training.steps import StepInfo, Steps, make_steps

IN_FLIGHT = 8  # dispatches given to the device whose end the host has not seen: it never idles, and soon obeys a signal
LONG = 0.1  # seconds; on a CPU the host waits for a dispatch that takes longer,
FREED = 0.001  # and these seconds more, until XLA has freed its memory: the next one would take as much again
TICK_EVERY = 20  # steps
CURVE_EVERY = 50  # steps between points of TensorBoard's curves
TEXTS_EVERY = 5  # epochs


class Training(NamedTuple):
    """What does not change while a run trains."""

    folder: Path
    settings: Config
    model: Model
    method: Method
    train: Loader
    checkpoints: Checkpoints
    log: EpochLog
    signals: Signals


def fit(
    run: Training,
    state: TrainState,
    validate: Callable[[Params, Any], dict[str, Any]],
    texts: Callable[[Params, Any], dict[str, list[str]]] | None = None,
) -> TrainState:
    """Train from `state` until the learning-rate rule ends it, or `early_stop`, `max_epochs`, or `max_steps`.

    `validate` measures parameters and method state on the validation split, in nats a sentence (the summary of
    `SplitPosteriors`), and `texts` gives sentences for TensorBoard by title. Raises Stopped after a signal, with the
    state saved, and InputError if a loss or gradient is not finite.
    """
    settings, method = run.settings, run.method
    built = optimizer.build(settings, len(run.train))
    steps = make_steps(run.model, method, built, len(run.train))
    programs = len(run.train.edges) * (2 if settings.train.steps_per_dispatch > 1 and method.plan.scan_steps else 1)
    warnings = problems.Warnings(settings, method)
    with Compiling(programs) as compiling:
        if programs == len(run.train.edges) and method.plan.scan_steps and jax.process_count() == 1:
            state = devices.replicate(state)
            compiling.start(steps.joint, state, _first_batches(run.train, int(state.epoch), int(state.position)))
        while not finished(settings, state, run.checkpoints):
            started, tokens = time.monotonic(), float(state.sums.tokens)
            compiling.seconds()
            state, signal_number = train_epoch(run, steps, state, compiling.announce)
            if signal_number is not None:
                _stop(run, state, signal_number)
            clock = time.monotonic() - started, compiling.seconds()
            method_state = method.posterior.end_epoch(state.method_state)
            try:
                with run.signals.at_once():
                    valid = validate(state.params, method_state)
            except Interrupted:
                _stop(run, state, run.signals.received)
            rate = float(built.rate(state.plateau.learning_rate, int(state.step) - 1))
            _check_validation(run, state, valid, rate)
            state = state._replace(method_state=method_state)
            line = epoch_line(state, method, valid, rate, len(run.train), *clock, tokens)
            states = {"collapsed": problems.collapsed(line, method), "runaway": problems.runaway(line, method)}
            run.log.write(line | states, settings.train.max_epochs)
            warnings.hear(line)
            if texts is not None and int(state.epoch) % TEXTS_EVERY == 0:
                for title, lines in texts(state.params, method_state).items():
                    run.log.text(title, lines, int(state.step))
            state = _end_epoch(run, state, valid)
            devices.give_back()
    if stopped_early(settings, state, run.checkpoints):
        epochs = f"{settings.optim.early_stop} epochs"
        console.log(f"no better validation {settings.train.select_by} in {epochs}: training ends")
    warnings.end()
    return state


def _first_batches(train: Loader, epoch: int, position: int) -> dict[int, Batch]:
    """A sharded batch of each padded length, the length of the next batch first."""
    batches = train.partition(epoch)
    first: dict[int, np.integer] = {}
    for i in np.roll(train.order(epoch), -position):
        first.setdefault(batches.lengths[i], i)
    return {length: devices.shard(train.batch(batches, i)) for length, i in first.items()}


def plateau_rule(settings: Config) -> plateau.Rule:
    """When the learning rate is cut, and when training ends; a rate that follows a cosine is never cut."""
    optim = settings.optim
    patience = optim.patience if optim.schedule == "plateau" else sys.maxsize
    return plateau.Rule(patience, optim.decay, optim.max_decays, optim.min_decay_epoch)


def stopped_early(settings: Config, state: TrainState, checkpoints: Checkpoints) -> bool:
    """Whether `optim.early_stop` epochs have ended since the one of the best checkpoint."""
    most = settings.optim.early_stop
    return most > 0 and int(state.epoch) - 1 - checkpoints.best_epoch() >= most


def finished(settings: Config, state: TrainState, checkpoints: Checkpoints) -> bool:
    """Whether nothing is left to train."""
    return (
        int(state.epoch) > settings.train.max_epochs
        or int(state.step) >= (settings.train.max_steps or math.inf)
        or plateau.finished(plateau_rule(settings), state.plateau)
        or stopped_early(settings, state, checkpoints)
    )


def _stop(run: Training, state: TrainState, number: int | None) -> NoReturn:
    run.checkpoints.save(state)
    raise Stopped(number or signal.SIGTERM, f"stopped at step {int(state.step)}, and saved")


def _check_validation(run: Training, state: TrainState, valid: dict[str, Any], rate: float) -> None:
    measure = run.settings.train.select_by
    if not math.isfinite(valid[measure]):
        run.checkpoints.save(state)
        raise InputError(
            f"{run.folder}: the validation {measure} is {valid[measure]} after epoch {int(state.epoch)} (step "
            f"{int(state.step)}, lr {rate:g}), which is saved; train anew with a smaller "
            "--config.optim.learning_rate"
        )


def _end_epoch(run: Training, state: TrainState, valid: dict[str, Any]) -> TrainState:
    """Apply the learning-rate rule and save; returns the state at the start of the next epoch."""
    loss, optim = valid[run.settings.train.select_by], run.settings.optim
    rate, decision = plateau.update(plateau_rule(run.settings), state.plateau, loss, int(state.epoch) - 1)
    state = state._replace(
        epoch=state.epoch + 1,
        position=jnp.zeros_like(state.position),
        plan=run.method.plan.end_epoch(state.plan, valid["mi"]),
        plateau=jax.tree.map(jnp.asarray, rate),
        sums=objective.zero_sums(),
    )
    if Decision.DECAY in decision:
        direction = optimizer.build(run.settings, len(run.train)).direction
        state = state._replace(opt_state=direction.init(state.params))
        if optim.reload_best and run.checkpoints.best_step() is not None:
            params, method_state, _ = run.checkpoints.best_model((state.params, state.method_state))
            state = state._replace(params=params, method_state=method_state)
            loss = None  # it is not that of these parameters, and must not compete for the best
    run.checkpoints.save(state, loss)
    return state


def train_epoch(
    run: Training,
    steps: Steps,
    state: TrainState,
    announce: Callable[[int, int, Callable[[str], None]], bool] = lambda tokens, together, show: False,
) -> tuple[TrainState, int | None]:
    """Train the rest of the state's epoch, or less if a signal or the limit of steps comes first.

    `announce` shows what a dispatch is about to compile, if anything, by its padded tokens and its number of steps.
    Returns the state and the number of the signal. Raises InputError if a step is not finite, unless the configuration
    says to skip it.
    """
    state = devices.replicate(state)
    epoch, step, position = int(state.epoch), int(state.step), int(state.position)
    rate = functools.partial(optimizer.build(run.settings, len(run.train)).rate, float(state.plateau.learning_rate))
    settings, often = run.settings.train, run.settings.checkpoint
    alone = jax.process_count() == 1  # several processes save at the same step, and their clocks differ
    most = settings.steps_per_dispatch if run.method.plan.scan_steps else 1
    end = position + max(0, settings.max_steps - step) if settings.max_steps else None
    in_flight: collections.deque[tuple[int, StepInfo]] = collections.deque()
    saved = landed = time.monotonic()
    room, seen, number = 0, _seen(state), None

    def wait_until(left: int) -> None:
        while len(in_flight) > left:
            first, info = in_flight.popleft()
            finite = np.atleast_1d(info.finite)  # waits for the device
            if not (finite.all() or settings.skip_nonfinite):
                wrong = first + int(np.argmin(finite))
                _not_finite(run, wrong, epoch, float(rate(wrong - 1)), info)
            if (i := -first % CURVE_EVERY) < len(finite):  # the device has just ended this dispatch: nothing waits
                run.log.step(first + i, _numbers(info, i) | {"lr": float(rate(first + i - 1))})

    with console.Progress(f"epoch {epoch}/{settings.max_epochs}", len(run.train), position) as progress:
        for batches in run.train.groups(epoch, position, end, most):
            number = run.signals.received or (signal.SIGTERM if run.checkpoints.preempted(step) else None)
            if number is not None:
                break
            draw, count = functools.partial(run.train.draw, epoch, step), len(batches)
            sharded = [devices.shard(batch) for batch in batches]
            news = announce(batches[0].tokens.shape[-1], count, functools.partial(_show, progress, position))
            if count > 1:
                state, info = steps.scan_steps(state, devices.stack_batches(sharded))
            else:
                state, info = run.method.plan.step(
                    steps, state, sharded[0], lambda k, draw=draw: devices.shard(draw(k))
                )
            in_flight.append((step + 1, info))
            step, position = step + count, position + count
            if news:
                progress.tick(position)  # it has compiled
                progress.restart(position)
            wait_until(room)
            room, landed = dispatches_ahead(time.monotonic() - landed), time.monotonic()
            if step % TICK_EVERY < count and progress.due:
                before, seen = seen, _seen(state)
                progress.tick(position, f"loss {(seen[0] - before[0]) / max(seen[1] - before[1], 1):.2f}")
            late = alone and often.every_minutes and time.monotonic() - saved > 60 * often.every_minutes
            due = late or (often.every_steps and step % often.every_steps < count)
            if due and position < len(run.train):  # the end of the epoch is saved in a moment
                wait_until(0)
                run.checkpoints.save(state)
                saved = time.monotonic()
    wait_until(0)
    return state, number


def dispatches_ahead(seconds: float) -> int:
    """How many dispatches the device may be given before the host waits, when the last one took so many seconds."""
    if jax.default_backend() != "cpu":
        return IN_FLIGHT
    if jax.device_count() > 1:  # virtual devices deadlock with many collectives in flight
        return 0
    if seconds > LONG:
        time.sleep(FREED)
        return 0
    return IN_FLIGHT


def _show(progress: console.Progress, position: int, text: str) -> None:
    """Show a text at once: in the bar, or as a line where there is none."""
    if progress.is_bar:
        progress.tick(position, text)
    else:
        console.log(f"  {text}")


def _numbers(info: StepInfo, i: int) -> dict[str, float]:
    """What is reported of the i-th step of a dispatch."""
    values = {"loss": info.loss, "gradient_norm": info.norm, "kl_weight": info.kl_weight}
    return {name: float(np.atleast_1d(value)[i]) for name, value in values.items()}


def _not_finite(run: Training, step: int, epoch: int, rate: float, info: StepInfo) -> NoReturn:
    loss, norm, weight = _numbers(info, int(np.argmin(np.atleast_1d(info.finite)))).values()
    raise InputError(
        f"{run.folder}: step {step} of epoch {epoch} is not finite: loss {loss:g}, gradient norm {norm:g}, lr "
        f"{rate:g}, KL weight {weight:g}. The last checkpoint is as it was: resume from it with "
        "--config.train.skip_nonfinite, or train anew with a smaller --config.optim.learning_rate"
    )


def _seen(state: TrainState) -> tuple[float, float]:
    """Loss and sentences of the epoch so far; numbers, since the next step reuses the memory of the state's arrays."""
    return float(state.sums.loss), float(state.sums.sentences)

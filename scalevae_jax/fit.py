"""The training loop: epochs of Algorithm 1, validation, the learning-rate rule, checkpoints, the log."""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from scalevae_jax import command, measure, parallel, plateau, report, workdir
from scalevae_jax import state as training
from scalevae_jax.checkpoint import BEST, LATEST, Checkpoints
from scalevae_jax.config import Config
from scalevae_jax.data.loader import Loader
from scalevae_jax.method import Method
from scalevae_jax.model import Model
from scalevae_jax.plateau import Decision
from scalevae_jax.state import TrainState
from scalevae_jax.steps import Steps, make_inference, make_steps

RUNAWAY_FACTOR = 50.0
BLOCK_EVERY = 20  # steps in flight at most


def epoch_line(
    state: TrainState, method: Method, valid: dict[str, Any], steps_per_epoch: int, seconds: float, tokens: float
) -> dict[str, Any]:
    """What is logged of an epoch, nats a sentence; of it, `seconds` were trained in this life of the run, from the
    token on that is given."""
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
        "seconds": seconds,
        "tokens_per_second": (sums.tokens - tokens) / seconds,
    }


def warnings(line: dict[str, Any], method: Method) -> list[str]:
    """What a user should not discover a day later."""
    said = []
    if line["mi"] is not None and line["kl_weight"] >= 1 and (line["mi"] < 0.1 or line["au_hat"] == 0):
        said.append(
            f"the posterior has collapsed (mi {line['mi']:.3f} nats, {line['au_hat']} active units): z is ignored. "
            "Try --config.method.name=scale_vae --config.method.des_std=0.9, or bn_vae with a larger gamma"
        )
    largest = line["factor_max"]
    if largest is not None and line["epoch"] > method.posterior.own_epochs and largest > RUNAWAY_FACTOR:
        said.append(
            f"the factor has run away (largest {largest:.3g}): the posterior means have nearly no spread of their own. "
            "Try a larger --config.method.f_epo or a smaller --config.method.des_std"
        )
    return said


class Fit(NamedTuple):
    """What does not change while a run trains."""

    settings: Config
    model: Model
    method: Method
    train: Loader
    valid: Loader
    keeper: Checkpoints
    log: report.EpochLog
    signals: command.Signals

    @property
    def rule(self) -> plateau.Rule:
        optim = self.settings.optim
        return plateau.Rule(optim.patience, optim.decay, optim.max_decays, optim.min_decay_epoch)

    @property
    def max_steps(self) -> float:
        return self.settings.train.max_steps or math.inf


def fit(run: Fit, state: TrainState) -> TrainState:
    """Train from `state` until the rule stops it, or `max_epochs`, or `max_steps`.

    Raises command.Stopped after a signal, when the state is saved; FloatingPointError when the loss is not finite.
    """
    settings, method = run.settings, run.method
    optimizer = workdir.optimizer(settings)
    steps = make_steps(run.model, method, optimizer, len(run.train))
    inference = make_inference(run.model, method)
    valid_key = jax.random.key(settings.train.seed)
    while _unfinished(run, state):
        started, tokens = time.monotonic(), float(state.sums.tokens)
        state = _one_epoch(run, steps, state)
        if run.signals.received is not None:
            run.keeper.save(LATEST, state)
            raise command.Stopped(run.signals.received, f"stopped at step {int(state.step)}, and saved")
        seconds = time.monotonic() - started
        state = state._replace(method_state=method.posterior.end_epoch(state.method_state))
        valid = measure.infer(
            inference, method, state.params, state.method_state, run.valid, valid_key, run.model.latent
        ).summary(method)
        line = epoch_line(state, method, valid, len(run.train), seconds, tokens)
        _check(line)
        run.log.write(line, settings.train.max_epochs)
        for text in warnings(line, method):
            report.warn(text)
        state, decision = _end_epoch(run, optimizer, state, valid)
        if Decision.BEST in decision:
            run.keeper.save(BEST, state)
        if Decision.DECAY in decision and settings.optim.reload_best:
            best = run.keeper.restore(BEST, state)
            state = state._replace(params=best.params, method_state=best.method_state)
        run.keeper.save(LATEST, state)
    return state


def _unfinished(run: Fit, state: TrainState) -> bool:
    return (
        int(state.epoch) <= run.settings.train.max_epochs
        and int(state.step) < run.max_steps
        and int(state.plateau.decays) < run.rule.max_decays
    )


def _check(line: dict[str, Any]) -> None:
    for key in ("train_loss", "valid_loss"):
        if not math.isfinite(line[key]):
            raise FloatingPointError(
                f"{key} is {line[key]} in epoch {line['epoch']} (step {line['step']}, lr {line['lr']:g}, "
                f"kl weight {line['kl_weight']:g}); the checkpoints are those of the epoch before"
            )


def _end_epoch(
    run: Fit, optimizer: optax.GradientTransformation, state: TrainState, valid: dict[str, Any]
) -> tuple[TrainState, Decision]:
    """The state at the start of the next epoch."""
    rate, decision = plateau.update(run.rule, state.plateau, valid["loss"], int(state.epoch) - 1)
    state = state._replace(
        epoch=state.epoch + 1,
        position=jnp.zeros_like(state.position),
        plan=run.method.plan.end_epoch(state.plan, valid["mi"]),
        plateau=jax.tree.map(jnp.asarray, rate),
        sums=training.zero_sums(),
    )
    if Decision.DECAY in decision:
        state = state._replace(opt_state=optimizer.init(state.params))
    return state, decision


def _one_epoch(run: Fit, steps: Steps, state: TrainState) -> TrainState:
    """The rest of the state's epoch, or less where a signal or the limit of steps comes first."""
    epoch, step, position = int(state.epoch), int(state.step), int(state.position)
    often = run.settings.checkpoint
    saved, seen = time.monotonic(), _seen(state)
    several = jax.device_count() > 1  # virtual devices deadlock with many collectives in flight
    what = f"epoch {epoch}/{run.settings.train.max_epochs}"
    with report.Ticker(what, len(run.train), position) as ticker:
        for batch in run.train.epoch(epoch, position):
            if step >= run.max_steps or run.signals.received is not None:
                break

            def draw(k: int, at: int = step) -> Any:
                return parallel.shard(run.train.draw(epoch, at, k))

            state = run.method.plan.step(steps, state, parallel.shard(batch), draw)
            step, position = step + 1, position + 1
            if several or step % BLOCK_EVERY == 0:
                jax.block_until_ready(state.step)
            if step % BLOCK_EVERY == 0 and ticker.due:
                before, seen = seen, _seen(state)
                ticker.tick(position, f"loss {(seen[0] - before[0]) / max(seen[1] - before[1], 1):.2f}")
            late = often.every_minutes and time.monotonic() - saved > 60 * often.every_minutes
            if late or (often.every_steps and step % often.every_steps == 0):
                run.keeper.save(LATEST, state)
                saved = time.monotonic()
    return jax.block_until_ready(state)


def _seen(state: TrainState) -> tuple[float, float]:
    """Loss and sentences of the epoch so far; numbers, since the state's own arrays are donated to the next step."""
    return float(state.sums.loss), float(state.sums.sentences)

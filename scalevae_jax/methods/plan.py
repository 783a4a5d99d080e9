"""Which parameters move at a training step. A plan runs on the host, because batches differ in shape."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

Draw = Callable[[int], Any]  # the k-th random training batch of this step


class Plan(NamedTuple):
    """`step(steps, state, batch, draw)` takes one training step on the batch by the functions of
    `training.steps.Steps`. It returns the next state and the `StepInfo` of the step, or of the first inner step that
    was not finite."""

    init: Callable[[], Any]  # the plan's own state, kept in TrainState.plan
    step: Callable[[Any, Any, Any, Draw], Any]
    end_epoch: Callable[[Any, float], Any]  # of the plan's state and the validation MI in nats: the next state
    scan_steps: bool = False  # every step is the joint one, so that steps may follow one another without the host


joint = Plan(
    init=lambda: (),
    step=lambda steps, state, batch, draw: steps.joint(state, batch),
    end_epoch=lambda plan_state, mi: plan_state,
    scan_steps=True,
)


class AggressiveState(NamedTuple):
    """Whether the inner loop still runs, and the validation MI of the previous epoch (nats)."""

    on: Any
    mi: Any


def aggressive(inner_steps: int, window: int) -> Plan:
    """Encoder steps until the loss a token stops falling, then one decoder step (He et al. 2019).

    The inner loop starts on the batch and continues with random training batches, for at most `inner_steps`. Every
    `window` steps it compares their mean loss a token with the previous window's. It ends for good when the validation
    MI falls.
    """

    if inner_steps < 1 or window < 1:
        raise ValueError(f"aggressive training needs inner_steps and window of 1 or more, got {inner_steps}, {window}")

    def step(steps: Any, state: Any, batch: Any, draw: Draw) -> Any:
        if not bool(state.plan.on):
            return steps.joint(state, batch)
        inner, previous, infos = batch, 1e4, []  # 1e4 nats a token: the first window always counts as better
        for k in range(1, inner_steps + 1):
            state, info = steps.encoder(state, inner)
            infos.append(info)
            if k % window == 0:
                sums = [info.sums for info in infos[-window:]]
                loss = sum(float(x.loss) for x in sums) / max(sum(float(x.tokens) for x in sums), 1.0)
                if loss > previous:
                    break
                previous = loss
            inner = draw(k)
        state, info = steps.decoder(state, batch)
        # The training loop stops at a step that is not finite, and must learn of an inner one too.
        return state, next((inner_info for inner_info in infos if not inner_info.finite), info)

    def end_epoch(plan_state: AggressiveState, mi: float) -> AggressiveState:
        on = bool(plan_state.on) and mi >= float(plan_state.mi)
        return AggressiveState(jnp.bool_(on), jnp.float32(mi))

    return Plan(init=lambda: AggressiveState(jnp.bool_(True), jnp.float32(0)), step=step, end_epoch=end_epoch)

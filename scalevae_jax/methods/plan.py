"""Which parameters move at a training step. A plan runs on the host, since batches differ in shape."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

Draw = Callable[[int], Any]  # the k-th random training batch of this step


class Plan(NamedTuple):
    """`init` makes the plan's state, `step(steps, state, batch, draw)` takes one training step of the batch and returns
    the state and what the step told, `end_epoch(plan_state, mi)` hears the validation MI (nats). `several` says that a
    step is nothing but the joint one, so that steps may follow one another without the host."""

    init: Callable[[], Any]
    step: Callable[[Any, Any, Any, Draw], Any]
    end_epoch: Callable[[Any, float], Any]
    several: bool = False


joint = Plan(
    init=lambda: (),
    step=lambda steps, state, batch, draw: steps.joint(state, batch),
    end_epoch=lambda plan_state, mi: plan_state,
    several=True,
)


class AggressiveState(NamedTuple):
    """Whether the inner loop still runs, and the validation MI of the epoch before (nats)."""

    on: Any
    mi: Any


def aggressive(inner_steps: int, window: int) -> Plan:
    """Encoder steps until the loss a token stops falling, then one decoder step (He et al. 2019).

    The inner loop starts on the batch and goes on with random training batches, `inner_steps` at most; every `window`
    steps their mean loss a token is held against the window before. It ends for good when validation MI falls.
    """

    if inner_steps < 1 or window < 1:
        raise ValueError(f"aggressive training needs inner_steps and window of 1 or more, got {inner_steps}, {window}")

    def step(steps: Any, state: Any, batch: Any, draw: Draw) -> Any:
        if not bool(state.plan.on):
            return steps.joint(state, batch)
        inner, before, losses = batch, 1e4, []
        for k in range(1, inner_steps + 1):
            state, told = steps.encoder(state, inner)
            losses.append((told.sums.loss, told.sums.tokens))
            if k % window == 0:
                loss = sum(float(x) for x, _ in losses) / max(sum(float(n) for _, n in losses), 1.0)
                if loss > before:
                    break
                before, losses = loss, []
            inner = draw(k)
        return steps.decoder(state, batch)

    def end_epoch(plan_state: AggressiveState, mi: float) -> AggressiveState:
        on = bool(plan_state.on) and mi >= float(plan_state.mi)
        return AggressiveState(jnp.bool_(on), jnp.float32(mi))

    return Plan(init=lambda: AggressiveState(jnp.bool_(True), jnp.float32(0)), step=step, end_epoch=end_epoch)

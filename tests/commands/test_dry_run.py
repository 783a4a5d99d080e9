"""What a dry run counts and says, and that it leaves nothing."""

import re

import jax
import jax.numpy as jnp
import pytest
import tiny
import typed

from scalevae_jax.runtime import devices
from scalevae_jax.training import dry_run, steps


def test_a_product_in_loops_and_branches_counts_as_often_as_it_runs(rng):
    a, b = jnp.ones((2, 3)), jnp.ones((3, 5))
    product = 2 * 2 * 3 * 5

    def twice_seven(a, b):
        body = jax.jit(lambda carry, _: (carry + (a @ b).sum(), jax.vmap(lambda row: row @ b)(a)))
        return jax.lax.scan(body, 0.0, None, length=7)

    def branches(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: (a @ b).sum() + (a @ b).max(), lambda: (a @ b).sum())

    assert dry_run.operations(jax.make_jaxpr(twice_seven)(a, b).jaxpr) == 14 * product
    assert dry_run.operations(jax.make_jaxpr(branches)(a, b).jaxpr) == 2 * product
    endless = jax.make_jaxpr(lambda a: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, a))(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="unknown length"):
        dry_run.operations(endless.jaxpr)


def test_the_operations_of_a_step_are_those_counted_by_hand(rng):
    """Two a multiplication, forward and twice that backward; the encoder reads one token more than the decoder."""
    method = tiny.make_method("vae")
    model, batch = tiny.make_model(method), tiny.make_batch(rng)
    joint = steps.make_steps(model, method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH).joint
    counted = dry_run.operations(jax.make_jaxpr(joint)(tiny.make_state(method), devices.shard(batch)).jaxpr)
    hidden, latent = tiny.HIDDEN, tiny.LATENT
    lstm = 8 * hidden * (tiny.EMBEDDING + hidden)
    tokens = lstm * tiny.TIME + (lstm + 2 * hidden * tiny.VOCABULARY) * (tiny.TIME - 1)
    once = 2 * hidden * 2 * latent + 2 * latent * hidden + 8 * hidden * latent  # the posterior, and z's two ways in
    rows = tiny.ROWS // jax.device_count()  # of a device
    assert 3 * rows * tokens <= counted <= 3 * rows * (tokens + once)


def test_a_dry_run_says_what_a_run_would_take_and_leaves_nothing(tmp_path):
    code, out, error = typed.run("train", "--config", "smoke", "--dry_run", folder=tmp_path)
    assert code == 0, error
    assert list(tmp_path.iterdir()) == []
    assert '"des_std": 0.7' in out
    assert re.search(r"decoder/output +│ 16 x 500 +│ 8,000 +│ 0.03", out)
    assert re.search(r"all +│ +│ 28,800 ", out)
    assert re.search(r"│ 14 +│ 67 +│ 8\.6% +│ 0\.\d+ +│", out)
    assert re.search(r"\d MiB in all \(compiled in \d+\.\d s\)", out)
    assert re.search(r"an epoch: 126 steps, 0\.0\d+ TFLOP; .* at least 0:0\d", out)

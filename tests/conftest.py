"""Four virtual devices, and a thread pool that does not deadlock, set before jax is imported."""

import os
from pathlib import Path

import typed

os.environ.setdefault("NPROC", "8")
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=4 {typed.SOON_COMPILED}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parents[1] / ".cache")  # prepared corpora

import hypothesis
import jax
import numpy as np
import pytest

hypothesis.settings.register_profile("tests", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("tests")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's name."""
    return np.random.default_rng(list(request.node.name.encode()))


def on_axis(function):
    """A per-device function on one device: adds and removes the leading axis that `parallel.spmd` splits."""

    def call(*args):
        one = jax.vmap(function, axis_name="data", in_axes=0)(*jax.tree.map(lambda x: np.asarray(x)[None], args))
        return jax.tree.map(lambda x: x[0], one)

    return call

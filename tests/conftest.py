"""One CPU device, or DEVICES=n virtual ones, set before jax is imported; and the fixtures that all tests share."""

import os
from pathlib import Path

import process

# With fewer threads than twice the devices, collectives deadlock.
os.environ.setdefault("NPROC", str(2 * int(os.environ.get("DEVICES", "1"))))
os.environ.setdefault(
    "XLA_FLAGS", f"--xla_force_host_platform_device_count={os.environ.get('DEVICES', '1')} {process.SOON_COMPILED}"
)
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


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished Scale-VAE: configs/smoke.py on a fifth of its text. Copy it to change it."""
    from scalevae_jax import train  # jaxtyping must see the import, to check shapes

    folder = tmp_path_factory.mktemp("trained") / "run"
    less = ["--config.data.limit_train=3000", "--config.data.limit_valid=500", "--config.train.max_epochs=2"]
    assert train.main(["--config", "smoke", *less, "--workdir", str(folder)]) == 0
    return folder


def on_axis(function):
    """A per-device function on one device: adds and removes the leading axis that `pmap_over_devices` splits."""

    def call(*args):
        one = jax.vmap(function, axis_name="data", in_axes=0)(*jax.tree.map(lambda x: np.asarray(x)[None], args))
        return jax.tree.map(lambda x: x[0], one)

    return call

"""All methods on layouts of processes and devices: ten steps over ragged batches, then evaluation.

  python tests/layouts.py [METHOD ...]                  prints the largest differences from one process with one device
  DTYPE=float64 python tests/layouts.py [METHOD ...]    the same in double precision

Not a test: `pytest tests/devices` and tests/runtime/test_processes.py check the same on one layout each.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from process import SOON_COMPILED, free_port

LAYOUTS = {"1x1": (1, 1), "1x4": (1, 4), "2x2": (2, 2), "4x1": (4, 1)}  # processes, devices of each
METHODS = (
    "lstm_lm vae cyclical beta_vae free_bits delta_vae sa_vae skip_vae agg_vae mae bn_vae du_vae scale_vae "
    "scale_vae_matched scale_vae_fixed minimum_rate"
).split()
STEPS = 10
Result = dict[str, dict[str, np.ndarray]]  # by method and name of the array


def run(layout: str, out: Path, methods: list[str]) -> Result:
    """What the first process of a layout computes; every process must end well."""
    processes, devices = LAYOUTS[layout]
    folder = Path(__file__).parent
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "NPROC": "16",
        "PYTHONPATH": os.pathsep.join([str(folder.parent), str(folder)]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {SOON_COMPILED}",
    }
    line = [sys.executable, __file__, "--process", str(out), str(processes), str(free_port())]
    started = [subprocess.Popen([*line, str(i), *methods], env=environment) for i in range(processes)]
    codes = [process.wait() for process in started]
    assert not any(codes), f"{layout}: exit codes {codes}"
    return pickle.loads(out.read_bytes())


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference between the arrays of two results, relative where they are above 1."""
    assert a.keys() == b.keys()
    return max(float(np.max(np.abs(a[key] - b[key]) / np.maximum(1, np.abs(a[key])), initial=0)) for key in a)


def compute(name: str, dtype: str) -> dict[str, np.ndarray]:
    """Losses, state and estimates of a method on the devices of this process and of the others."""
    import jax
    import tiny

    from scalevae_jax.core import gaussian, mixture
    from scalevae_jax.inference import importance, posteriors
    from scalevae_jax.runtime.devices import replicate, shard, unshard
    from scalevae_jax.training.steps import make_steps

    def widened(tree):
        return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == "float32" else x, tree)

    rng, result = np.random.default_rng(0), {}
    # eight rows, so that four devices share them; ragged lengths, and two batches of three real rows
    batches = [shard(widened(tiny.make_batch(rng, real=3 if i % 5 == 4 else 7))) for i in range(STEPS)]
    method = tiny.make_method(name)
    model = tiny.make_model(method)
    steps = make_steps(model, method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH)
    state = replicate(widened(tiny.make_state(method)))
    for i, batch in enumerate(batches):
        state, info = method.plan.step(steps, state, batch, lambda k, i=i: batches[(i + k) % STEPS])
        result[f"loss {i}"] = np.asarray(info.loss)
        if i % tiny.STEPS_PER_EPOCH == tiny.STEPS_PER_EPOCH - 1:
            after = method.posterior.end_epoch(state.method_state)
            state = replicate(state._replace(epoch=state.epoch + 1, method_state=after))
    for path, x in jax.tree_util.tree_flatten_with_path((state.params, state.method_state))[0]:
        result[f"state{jax.tree_util.keystr(path)}"] = np.asarray(x)
    arguments = (state.params, state.method_state, batches[4], jax.random.key(1))
    drawn = posteriors.make_inference(model, method)(*arguments)
    fitted = widened(mixture.diagonal(gaussian.standard(model.latent)))
    estimates = importance.make_importance(model, method, 6, 3)(*arguments, {"nll_fitted_prior": fitted}, np.int32(0))
    real = unshard(batches[4].weight) > 0
    rows = {"rec": drawn.rec, "mean": drawn.q.mean} | estimates
    return result | {key: unshard(values)[real] for key, values in rows.items()}


def process(out: str, processes: str, port: str, index: str, *methods: str) -> None:
    """One process of a layout."""
    import jax

    if int(processes) > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(index), initialization_timeout=60)
    dtype = os.environ.get("DTYPE", "float32")
    jax.config.update("jax_enable_x64", dtype == "float64")
    result = {name: compute(name, dtype) for name in methods}
    if int(index) == 0:
        Path(out).write_bytes(pickle.dumps(result))
    if int(processes) > 1:
        jax.distributed.shutdown()


def main(methods: list[str]) -> None:
    """Print the table of methods and layouts."""
    with tempfile.TemporaryDirectory() as folder:
        results = {layout: run(layout, Path(folder) / layout, methods) for layout in LAYOUTS}
    alone = results.pop("1x1")
    print(f"| method | {' | '.join(results)} |\n|---|{'---|' * len(results)}")
    for name in methods:
        differences = [difference(alone[name], result[name]) for result in results.values()]
        print(f"| {name} | {' | '.join(f'{x:.1e}' for x in differences)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--process"]:
        process(*sys.argv[2:])
    else:
        main(sys.argv[1:] or METHODS)

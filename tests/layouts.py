"""All methods on a layout of processes and devices: ten steps over ragged batches, then evaluation, as arrays.

`python tests/layouts.py [OUT]` runs the layouts of LAYOUTS for every method, prints the table, and ends in a line of
JSON; DTYPE=float64 does so in double precision. What is in the folder OUT already is not computed again.
`python tests/layouts.py OUT PROCESS PROCESSES PARTS PORT DTYPE METHOD...` is one process of a layout.
"""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from typed import SOON_COMPILED

LAYOUTS = {  # processes, devices of each, parts that a device takes one after the other
    "1x1": (1, 1, 1),
    "1x1, 4 parts": (1, 1, 4),
    "1x4": (1, 4, 1),
    "2x2": (2, 2, 1),
    "4x1": (4, 1, 1),
}
RESULT = "result.pickle"
METHODS = (
    "lstm_lm vae cyclical beta_vae free_bits delta_vae sa_vae skip_vae agg_vae mae bn_vae du_vae scale_vae "
    "scale_vae_matched"
).split()


def run(layout: str, out: Path, methods=METHODS, dtype: str = "float32", timeout: int = 1200):
    """What the first process of a layout computed, by method and what it is; every process must end well."""
    missing = [name for name in methods if not (out / name / RESULT).is_file()]
    for name in missing:
        shutil.rmtree(out / name, ignore_errors=True)
    if missing:
        _start(layout, out, missing, dtype, timeout)
    kept = {name: pickle.loads((out / name / RESULT).read_bytes()) for name in methods}
    return {(name, key): value for name, values in kept.items() for key, value in values.items()}


def _start(layout: str, out: Path, methods, dtype: str, timeout: int) -> None:
    processes, devices, parts = LAYOUTS[layout]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = Path(__file__).parent
    flags = f"--xla_force_host_platform_device_count={devices} {SOON_COMPILED}"
    paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"NPROC": "16", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": paths}
    out.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, __file__, str(out)]
    rest = [str(processes), str(parts), port, dtype, *methods]
    started = [subprocess.Popen([*line, str(i), *rest], env=env) for i in range(processes)]
    try:
        codes = [process.wait(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    assert not any(codes), f"{layout}: exit codes {codes}"


def difference(a, b) -> float:
    """The largest one between the arrays of two results, relative where they are above 1."""
    import numpy as np

    assert a.keys() == b.keys()
    return max(float(np.max(np.abs(a[key] - b[key]) / np.maximum(1, np.abs(a[key])), initial=0)) for key in a)


def _process(out: Path, process: int, processes: int, parts: int, port: str, dtype: str, methods: list[str]) -> None:
    import jax

    if processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, process, initialization_timeout=60)
    jax.config.update("jax_enable_x64", dtype == "float64")
    import numpy as np
    import tiny

    from scalevae_jax.core import gaussian
    from scalevae_jax.inference import posteriors
    from scalevae_jax.runtime.devices import replicate, shard, unshard
    from scalevae_jax.training import checkpoint, steps

    rng = np.random.default_rng(0)
    # eight rows a batch, filled up so that four devices share it; ragged lengths, and a last batch of three
    batches = [tiny.make_batch(rng, real=3 if i % 5 == 4 else 7) for i in range(10)]
    for name in methods:
        result, begun = {}, time.monotonic()
        method = tiny.make_method(name)
        model = tiny.make_model(method, parts)
        made = steps.make_steps(model, method, tiny.OPTIMIZER, tiny.STEPS_PER_EPOCH)

        def wide(x):
            return x.astype(dtype) if x.dtype == "float32" else x

        state = replicate(jax.tree.map(wide, tiny.make_state(method)))
        for i, batch in enumerate(batches):
            batch = jax.tree.map(wide, batch)
            draw = lambda k, i=i: shard(jax.tree.map(wide, batches[(i + k) % 10]))  # noqa: E731
            state, told = method.plan.step(made, state, shard(batch), draw)
            result[f"loss {i}"] = np.asarray(told.loss)
            if i % tiny.STEPS_PER_EPOCH == tiny.STEPS_PER_EPOCH - 1:
                ended = method.posterior.end_epoch(state.method_state)
                state = replicate(state._replace(epoch=state.epoch + 1, method_state=ended))
        for path, x in jax.tree_util.tree_flatten_with_path((state.params, state.method_state))[0]:
            result["state" + jax.tree_util.keystr(path)] = np.asarray(x)
        key, last = jax.random.key(1), shard(jax.tree.map(wide, batches[4]))
        inferred = posteriors.make_inference(model, method)(state.params, state.method_state, last, key)
        fitted = jax.tree.map(wide, gaussian.standard(model.latent))
        weigh = posteriors.make_importance(model, method, 6, 3)
        nll = weigh(state.params, state.method_state, last, key, fitted)
        real = batches[4].weight > 0
        for reading, values in nll.items():
            result[reading] = unshard(values)[real]
        result["rec"] = unshard(inferred.rec)[real]
        result["mean"] = unshard(inferred.q.mean)[real]
        folder = out / name
        for which in checkpoint.KEPT:
            (folder / checkpoint.FOLDER / which).mkdir(parents=True, exist_ok=True)
        keeper = checkpoint.Checkpoints(folder, {"method": name}, writing=True)
        keeper.save(checkpoint.LATEST, state)
        keeper.wait()
        again = keeper.only(checkpoint.LATEST, state)
        assert checkpoint.describe(again) == checkpoint.describe(state)
        again = replicate(again)
        state, _ = made.joint(again, shard(jax.tree.map(wide, batches[0])))  # a restored state goes on
        result["after"] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
        for other in sorted(out.parent.iterdir()):  # what the layouts before this one saved
            if (other / name / checkpoint.FOLDER).is_dir() and other != out:
                reader = checkpoint.Checkpoints(other / name, {"method": name})
                reader.only(checkpoint.LATEST, again)
                reader.close()
        keeper.close()
        if process == 0:
            (folder / RESULT).write_bytes(pickle.dumps(result))
            print(f"{out.name} {dtype} {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    if processes > 1:
        jax.distributed.shutdown()


def main(out: Path) -> None:
    """The table of all methods and layouts."""
    dtype = os.environ.get("DTYPE", "float32")
    results = {layout: run(layout, out / dtype / layout, dtype=dtype) for layout in LAYOUTS}
    table, others = {}, list(LAYOUTS)[1:]
    print(f"| {dtype} | " + " | ".join(others) + " |\n|---|" + "---|" * len(others))
    for name in METHODS:
        own = {layout: {k[1]: v for k, v in of.items() if k[0] == name} for layout, of in results.items()}
        table[name] = {layout: difference(own["1x1"], own[layout]) for layout in others}
        print(f"| {name} | " + " | ".join(f"{x:.1e}" for x in table[name].values()) + " |", flush=True)
    print(json.dumps({"dtype": dtype, "largest": max(max(row.values()) for row in table.values()), "methods": table}))


if __name__ == "__main__":
    if len(sys.argv) <= 2:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(sys.argv[1] if len(sys.argv) == 2 else folder))
    else:
        where, which, of, pieces, port, kind, *names = sys.argv[1:]
        _process(Path(where), int(which), int(of), int(pieces), port, kind, names)

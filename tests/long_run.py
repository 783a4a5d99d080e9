"""Memory over a long run of a tiny model: resident memory at the end of every epoch.

Example:
  python tests/long_run.py --steps 20000

Saves every 100 steps, and the best and the latest at every epoch of 250. Prints a line of JSON: the least and the most
MiB resident in each quarter of the run.
"""

import argparse
import json
import tempfile
from pathlib import Path

import kill_loop
import numpy as np

from scalevae_jax import config, train
from scalevae_jax.training.log import EpochLog


def resident() -> float:
    """MiB of this process, as the system counts it."""
    kib = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(kib.split()[1]) / 1024


def measure(steps: int, folder: Path) -> dict:
    kill_loop.write_corpus(folder / "corpus", train=4000)
    settings = config.Config(
        data=config.Data(path=str(folder / "corpus"), buckets=1),
        model=config.Network(embedding=5, hidden=6, latent=3),
        method=config.MethodConfig(name="scale_vae"),
        optim=config.Optim(learning_rate=0.1, max_decays=10**6),
        train=config.Train(max_epochs=10**6, max_steps=steps, batch_size=16),
        eval=config.Eval(batch_size=32),
        checkpoint=config.Checkpoint(every_steps=100),
    )
    seen = []
    write = EpochLog.write

    def spy(log, line, max_epochs):
        write(log, line, max_epochs)
        seen.append((line["step"], resident()))

    EpochLog.write = spy
    train.train(settings, folder / "run")
    quarters = np.array_split(np.array([mib for _, mib in seen]), 4)
    return {
        "steps": seen[-1][0],
        "mib_of_each_quarter": [{"least": round(min(q), 1), "most": round(max(q), 1)} for q in quarters],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="of training")
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(parser.parse_args().steps, Path(name))))

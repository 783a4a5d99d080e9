"""What checkpoints cost a run at the size of the paper's networks: the training loop's own wait, digests included.

Example:
  python tests/saving_cost.py

Saves a state of the Yahoo configuration as the loop does, while nothing is trained. Prints a line of JSON: seconds the
loop waits for a save, seconds of it for digests, seconds until it is whole on disk, processor seconds, and the share of
wall time at the default of a save every ten minutes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from configs.yahoo import get_config
from scalevae_jax import config
from scalevae_jax.training import checkpoint, workdir


def measure(saves: int, folder: Path) -> dict:
    settings = config.with_defaults(get_config())
    method = config.build_method(settings)
    model = config.build_model(settings, method, settings.data.vocab_size)
    state = workdir.create_state(settings, model, method, 3125)
    mib = sum(x.nbytes for x in jax.tree.leaves(state.params)) / 2**20
    keeper = checkpoint.Checkpoints(folder, {}, writing=True)
    waits, wholes, digests, processors = [], [], [], []
    for _ in range(saves):
        state = state._replace(step=state.step + 1)
        started, used = time.monotonic(), time.process_time()
        keeper.save(checkpoint.LATEST, state)
        waits.append(time.monotonic() - started)
        keeper.wait()
        wholes.append(time.monotonic() - started)
        processors.append(time.process_time() - used)
        started = time.monotonic()
        checkpoint.describe(state)
        digests.append(time.monotonic() - started)
    keeper.close()
    wait, whole, digest, processor = (float(np.median(x[1:])) for x in (waits, wholes, digests, processors))
    often = 60 * settings.checkpoint.every_minutes
    return {
        "mib": round(mib, 1),
        "seconds_the_loop_waits": round(wait, 3),
        "of_which_digests": round(digest, 3),
        "seconds_until_whole": round(whole, 3),
        "processor_seconds": round(processor, 3),
        "share_of_wall_time": round(wait / often, 5),
        "share_if_writing_stops_training": round(whole / often, 5),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=6, help="of which the first is not counted")
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(parser.parse_args().saves, Path(name))))

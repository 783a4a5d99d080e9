"""From the command to the end of the first step, in a run whose configuration has been compiled before.

Examples:
  python -m benchmarks.start
  python -m benchmarks.start --data DIR --rounds 3

Full size: configs/yahoo.py (vocabulary at most 20,000, embedding 512, hidden 1,024, latent 32), on the captions that
come with the package without --data. The first start compiles into an empty cache; then the median of starts that find
it. The last line is JSON.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import timing
from scalevae_jax.runtime import command
from scalevae_jax.runtime.flags import Flags

ROOT = Path(__file__).parents[1]
FLAGS = Flags()
DATA = FLAGS.string("data", "package:snli", "the corpus, as config.data.path")
ROUNDS = FLAGS.integer("rounds", 3, "second starts", 1)


def start(folder: Path, cache: Path) -> float:
    """Seconds of a run from its command to the checkpoint that it saves after its first step; it is ended there."""
    line = [sys.executable, "-m", "scalevae_jax.train", f"--config={ROOT}/configs/yahoo.py", f"--workdir={folder}"]
    line += [f"--config.data.path={DATA.value}", "--config.checkpoint.every_steps=1"]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    begun = time.perf_counter()
    with subprocess.Popen(line, cwd=folder.parent, env=environment, stdout=subprocess.DEVNULL) as process:
        while not any((folder / "checkpoints/latest").glob("[0-9]*")):
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with {process.returncode}")
            time.sleep(0.01)
        seconds = time.perf_counter() - begun
        process.kill()
    return seconds


def _command() -> None:
    with tempfile.TemporaryDirectory() as name:
        first, *others = [start(Path(name, str(i)), Path(name, "cache")) for i in range(ROUNDS.value + 1)]
    figures = {"first_seconds": first, "seconds": statistics.median(others)}
    timing.line("full", figures)
    timing.finish({"full": figures}, "full")


def main() -> int:
    """The command."""
    return command.run("benchmarks.start", _command, FLAGS, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())

"""From the command to the end of the first step, in a run whose configuration has been compiled before.

Examples:
  python -m benchmarks.start
  python -m benchmarks.start --data DIR --rounds 3

Full size: configs/yahoo.py (vocabulary at most 20,000, embedding 512, hidden 1,024, latent 32), on the captions that
come with the package without --data. The first start compiles into an empty cache; then the median of starts that find
it. The last line is JSON.
"""

import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing
from scalevae_jax.runtime import command
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import workdir

ROOT = Path(__file__).parents[1]


def run(folder: Path, cache: Path, data: str, arguments: Sequence[str], **more: str) -> subprocess.Popen[bytes]:
    """A run at full size, begun, with `more` in its environment."""
    line = [sys.executable, "-m", "scalevae_jax.train", f"--config={ROOT}/configs/yahoo.py", f"--workdir={folder}"]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    line += [f"--config.data.path={data}", *arguments]
    return subprocess.Popen(line, cwd=folder.parent, env=environment | more, stdout=subprocess.DEVNULL)


def start(folder: Path, cache: Path, data: str, arguments: Sequence[str] = ()) -> float:
    """Seconds of a run from its command to the checkpoint that it saves after its first step; it is ended there."""
    begun = time.perf_counter()
    with run(folder, cache, data, ["--config.checkpoint.every_steps=1", *arguments]) as process:
        while not workdir.has_checkpoint(folder):
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with {process.returncode}")
            time.sleep(0.01)
        seconds = time.perf_counter() - begun
        process.kill()
    return seconds


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.start", __doc__)
    arguments.add_argument("--data", default="package:snli", help="the corpus, as config.data.path")
    arguments.add_argument("--rounds", type=integer(1), default=3, help="second starts")
    return arguments


def _command(options: Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(i)) for i in range(options.rounds + 1)]
        first, *others = [start(folder, Path(name, "cache"), options.data) for folder in folders]
    figures = {"first_seconds": first, "seconds": statistics.median(others)}
    timing.line("full", figures)
    timing.finish({"full": figures}, "full")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())

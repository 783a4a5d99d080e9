"""A corpus of a million lines: described, prepared and delivered, with seconds, lines a second and peak memory.

Example:
  python -m benchmarks.million_lines --lines 1000000

Writes a single file of random words (Zipf, 2 to 40 a line), and in a process of its own each: describes it with nothing
prepared (which prepares it), describes it again, and builds the vocabulary, encodes the training split and delivers
batches of 32. Peak memory is that of each process, as Linux reports it (VmHWM). Nothing is left behind; the last line
is JSON.
"""

import functools
import json
import multiprocessing
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scalevae_jax.data import __main__ as data_command
from scalevae_jax.data import corpus, loader
from scalevae_jax.data.config import Data
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.command import Parser, integer

BLOCK = 10_000


def write(path: Path, lines: int) -> int:
    """The file; returns its bytes."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, lines, BLOCK):
            lengths = rng.integers(2, 41, min(BLOCK, lines - start))
            words = np.char.add("word", np.minimum(rng.zipf(1.3, lengths.sum()), 200_000).astype(str))
            for row in np.split(words, np.cumsum(lengths)[:-1]):
                file.write(" ".join(row) + "\n")
    return path.stat().st_size


def deliver(data: Data, batches: int) -> dict[str, float]:
    """Seconds to the first batch of a prepared corpus, and of each batch after it."""
    started = time.monotonic()
    text = corpus.open(data)
    train = text.split("train", text.vocabulary())
    edges = loader.bucket_lengths(train.lengths, data.buckets)
    epoch = iter(loader.Loader(train, edges, 32, 32, seed=0).epoch(1))
    next(epoch)
    first = time.monotonic()
    done = sum(1 for _, _ in zip(range(batches), epoch, strict=False))
    return {"first_batch_s": first - started, "batch_ms": 1e3 * (time.monotonic() - first) / done}


def _child(work: Callable[..., Any], arguments: tuple, answers: Any) -> None:
    started = time.monotonic()
    result = work(*arguments)
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # ru_maxrss would count the parent's
    peak = int(status.split("VmHWM:")[1].split()[0])
    answers.put(
        {"seconds": time.monotonic() - started, "cpu_s": time.process_time(), "peak_mib": peak / 1024, **(result or {})}
    )


def apart(work: Callable[..., Any], *arguments: Any) -> dict[str, float]:
    """What `work` took in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_child, args=(work, arguments, answers))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}")
    return answers.get()


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.million_lines", __doc__)
    arguments.add_argument("--lines", type=integer(100), default=1_000_000, help="lines of the file")
    arguments.add_argument("--batches", type=integer(1), default=2000, help="batches to deliver after the first")
    return arguments


def _command(options: Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        size = write(path, options.lines)
        console.log(f"{options.lines:,} lines, {size / 2**20:.0f} MiB")
        data = Data(path=str(path), cache=folder)
        result: dict[str, Any] = {"lines": options.lines, "bytes": size}
        for name, work in (
            ("prepare_and_describe", lambda: apart(data_command.describe, data)),
            ("describe", lambda: apart(data_command.describe, data)),
            ("deliver", lambda: apart(deliver, data, options.batches)),
        ):
            took = work()
            took["lines_per_second"] = options.lines / took.get("first_batch_s", took["seconds"])
            console.log(f"{name}: {', '.join(f'{key} {value:,.2f}' for key, value in took.items())}")
            result[name] = took
        console.log(json.dumps(result))


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())

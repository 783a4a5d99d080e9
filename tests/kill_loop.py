"""Kill a training run at random moments, start it again each time, and compare its end with that of a run left alone.

Example:
  python tests/kill_loop.py --kills 40 --seed 0

Each life is a process, ended by SIGKILL. The moments are uniform over the time that a life needs after its imports, so
that they hit compilation, steps, saves (one every other step) and validation. Prints a line of JSON, and exits with 1
if the arrays of any kept checkpoint differ, or metrics.jsonl without the clock's values.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLOCK = ("seconds", "seconds_compiling", "tokens_per_second")
WORDS = "a the cat dog sees hears runs red old big".split()


def write_corpus(folder: Path, train: int = 120) -> Path:
    """Sentences of random words: `train` of them, 30 to validate, 30 to test."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", train), ("valid", 30), ("test", 30)):
        lines = [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(rows)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def live(corpus: Path) -> None:
    """One life of the run: import everything, read the workdir from standard input, train."""
    from scalevae_jax import config, train

    settings = config.Config(
        data=config.Data(path=str(corpus), buckets=1),
        model=config.Network(embedding=5, hidden=6, latent=3),
        method=config.MethodConfig(name="scale_vae", f_epo=1, factor_average="median"),
        optim=config.Optim(min_decay_epoch=0, patience=1, learning_rate=4.0),
        train=config.Train(max_epochs=4, batch_size=16),
        eval=config.Eval(batch_size=32),
        checkpoint=config.Checkpoint(every_steps=2),
    )
    train.train(settings, Path(sys.stdin.readline().strip()))


class Lives:
    """Life after life; the next one imports while this one trains."""

    def __init__(self, corpus: Path, log: Path):
        self._command, self._log = [sys.executable, __file__, "--live", str(corpus)], log
        self._next = self._start()

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("a") as file:
            return subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=file, stderr=file, text=True)

    def run(self, workdir: Path, limit: float) -> int | None:
        """The exit code of a life; None if it was killed at its limit, in seconds."""
        life, self._next = self._next, self._start()
        assert life.stdin is not None
        life.stdin.write(f"{workdir}\n")
        life.stdin.flush()
        try:
            return life.wait(limit)
        except subprocess.TimeoutExpired:
            life.kill()
            life.wait()
            return None

    def end(self) -> None:
        self._next.kill()
        self._next.wait()


def outcome(workdir: Path) -> dict:
    """The digests of all arrays that are kept, and the log without the clock. Raises ValueError for a torn line."""
    folders = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    arrays = {int(path.name): json.loads((path / "meta/metadata").read_text())["arrays"] for path in folders}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {
        "arrays": arrays,
        "lines": [{key: value for key, value in line.items() if key not in CLOCK} for line in lines],
    }


def loop(kills: int, seed: int, folder: Path) -> dict:
    """Run after run until all kills are spent; returns the tally."""
    rng = np.random.default_rng(seed)
    lives = Lives(write_corpus(folder / "corpus"), folder / "log.txt")
    lives.run(folder / "compiles", 600.0)  # later lives find its programs in the cache
    began = time.monotonic()
    if lives.run(folder / "undisturbed", 600.0) != 0:
        raise SystemExit((folder / "log.txt").read_text())
    needed = time.monotonic() - began
    expected = outcome(folder / "undisturbed")
    tally = {"kills": 0, "resumes": 0, "runs": 0, "mismatches": 0, "failed_lives": 0, "during_saves": 0}
    while tally["kills"] < kills:
        workdir, code = folder / f"run-{tally['runs']}", None
        while code is None:
            killing = tally["kills"] < kills
            code = lives.run(workdir, rng.uniform(0.0, needed) if killing else 600.0)
            tally["kills"] += code is None
            tally["during_saves"] += code is None and bool(list(workdir.glob("checkpoints/*tmp*")))
            tally["resumes"] += code is None and (workdir / "config.json").exists()
        tally["failed_lives"] += code != 0
        tally["mismatches"] += code == 0 and outcome(workdir) != expected
        tally["runs"] += 1
    lives.end()
    return tally | {"seconds_of_a_life": round(needed, 1), "seed": seed}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="SIGKILLs in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--live", type=Path, metavar="CORPUS", help="be a life: read the workdir from standard input")
    options = parser.parse_args()
    if options.live:
        live(options.live)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        tally = loop(options.kills, options.seed, Path(folder))
        if tally["failed_lives"]:
            sys.stderr.write((Path(folder) / "log.txt").read_text())
    print(json.dumps(tally))
    return int(tally["mismatches"] + tally["failed_lives"] > 0)


if __name__ == "__main__":
    sys.exit(main())

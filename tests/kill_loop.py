"""Kill a training run at random moments, start it again each time, and compare its end with a run nobody disturbed.

Example:
  python tests/kill_loop.py --kills 40 --seed 0

Each life is a process of its own, ended by SIGKILL. The moments are uniform over the time that a life needs, imports
aside, so that compilation, steps, saves (one every other step) and validation are all hit.
A run that ends before all kills are spent is compared and another one begun. Prints a line of JSON and exits with 1 on
any difference: in the arrays of the latest and the best checkpoint, in metrics.jsonl without the clock's values, or in
its form.
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
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", train), ("valid", 30), ("test", 30)):
        lines = [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(rows)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def live(corpus: Path) -> None:
    """One life of the run; in a process of its own."""
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


class Life:
    """A process that has imported everything and waits for its workdir."""

    def __init__(self, corpus: Path, log: Path):
        command = [sys.executable, __file__, "--live", str(corpus)]
        with log.open("a") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, text=True)

    def run(self, workdir: Path, limit: float) -> int | None:
        """The exit code; None where it had to be killed at its limit, in seconds."""
        self._process.stdin.write(f"{workdir}\n")
        self._process.stdin.flush()
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Lives:
    """Life after life; the next one imports while this one runs."""

    def __init__(self, corpus: Path, log: Path):
        self._make = lambda: Life(corpus, log)
        self._next = self._make()

    def run(self, workdir: Path, limit: float) -> int | None:
        life, self._next = self._next, self._make()
        return life.run(workdir, limit)

    def end(self) -> None:
        self._next.kill()


def outcome(workdir: Path) -> dict:
    """The digests of all arrays that are kept, and the log without the clock. Raises ValueError for a torn line."""
    found = {}
    for which in ("latest", "best"):
        newest = max((workdir / "checkpoints" / which).iterdir(), key=lambda path: int(path.name))
        found[which] = (newest.name, json.loads((newest / "meta/metadata").read_text())["arrays"])
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found["lines"] = [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]
    found["epochs"] = [line["epoch"] for line in lines]
    return found


def loop(kills: int, seed: int, folder: Path) -> dict:
    """The tally."""
    rng = np.random.default_rng(seed)
    lives = Lives(write_corpus(folder / "corpus"), folder / "log.txt")
    lives.run(folder / "compiles", 600.0)
    began = time.monotonic()
    if lives.run(folder / "undisturbed", 600.0) != 0:
        raise SystemExit((folder / "log.txt").read_text())
    needed = time.monotonic() - began
    expected = outcome(folder / "undisturbed")
    tally = {"kills": 0, "resumes": 0, "runs": 0, "mismatches": 0, "failed_lives": 0, "during_saves": 0}
    while tally["kills"] < kills:
        workdir = folder / f"run-{tally['runs']}"
        code = None
        while code is None:
            killing = tally["kills"] < kills
            code = lives.run(workdir, rng.uniform(0.0, needed) if killing else 600.0)
            tally["kills"] += code is None
            tally["during_saves"] += code is None and bool(list(workdir.glob("checkpoints/*/*tmp*")))
            tally["resumes"] += code is None and (workdir / "config.json").exists()
        tally["failed_lives"] += code != 0
        tally["runs"] += 1
        found = outcome(workdir) if code == 0 else {}
        different = [key for key, value in expected.items() if found.get(key) != value]
        tally["mismatches"] += bool(different)
        if different:
            sys.stderr.write(f"{workdir.name}: {', '.join(different)} differ\n")
    lives.end()
    return tally | {"epochs": expected["epochs"], "seconds_of_a_life": round(needed, 1), "seed": seed}


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

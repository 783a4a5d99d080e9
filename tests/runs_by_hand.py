"""Runs that nobody trained, and records of them."""

import json
from pathlib import Path

from scalevae_jax import config
from scalevae_jax.comparison.records import CURVES
from scalevae_jax.config import Config, Data, MethodConfig, Network
from scalevae_jax.methods import method
from scalevae_jax.training import log, workdir

NETWORK = Network(encoder_init="torch", decoder_init="torch")  # the initial values of scale smoke


def make_record(row, seed: int = 0, **sections) -> dict:
    """The record of a run of this row at scale smoke. The VAE trained for two hours, other methods for one."""
    defaults = {key: parameter.default for key, parameter in method.hyperparameters(row.method).items()}
    curves = {key: [1, 2] if key == "epoch" else [3.0, 2.0] for key in CURVES}
    return {
        "run": f"{row.method}-{row.partition}-seed_{seed}",
        "corpus": "synthetic" if row.corpus == "synthetic" else "tiny",
        "method": row.method,
        "hyperparameters": defaults | row.hyperparameters,
        "partition": row.partition,
        "seed": seed,
        "config": {"data": {"limit_train": 0}, "model": {"encoder_init": "torch", "decoder_init": "torch"}},
        "sha256": {"train": "abcdef"},
        "git": "f00",
        "device": "1 x cpu",
        "command": "python -m scalevae_jax.train",
        "steps": {},
        "training": {"hours": 2.0 if row.method == "vae" else 1.0, "epochs": 2, "curves": curves},
        **sections,
    }


def write_workdir(folder: Path, name: str = "scale_vae", path: str = "package:tiny") -> Path:
    """A workdir as three epochs of training would leave it, without checkpoints."""
    folder.mkdir(parents=True)
    settings = config.with_defaults(Config(Data(path=path), NETWORK, MethodConfig(name=name)))
    (folder / workdir.CONFIG).write_text(config.to_json(settings))
    command = ["/home/me/train.py", "--workdir", f"{folder}", f"--config.data.path={path}"]
    run = {"data": {"train": "abc"}, "steps_per_epoch": 3, "git": "f00", "command": command}
    (folder / workdir.RUN).write_text(json.dumps(run))
    with (folder / log.METRICS).open("w") as file:
        for epoch, loss, seconds, compiling in ((1, 2.0, 9.0, 6.5), (2, 1.0, 2.5, 0.5), (3, 1.5, 2.0, 0.0)):
            line = dict.fromkeys(CURVES, 1.0) | {"epoch": epoch, "step": 3 * epoch, "valid_loss": loss, "lr": 1.0}
            file.write(json.dumps(line | {"seconds": seconds, "seconds_compiling": compiling}) + "\n")
    return folder

"""An epoch of the synthetic experiment with its validation, ours against PyTorch's, in one run.

Example:
  python -m benchmarks.epoch_small --rounds 5

Section 4.4's set as configs/synthetic.py has it: 16,000 training and 2,000 validation sentences of 10 words, embedding
and hidden 50, latent 2, batch 32; a plain VAE, ours by the package's own loop, 25 steps a dispatch and one; Scale-VAE
too. Our validation takes rec, KL, mutual information and active units, PyTorch's the loss alone. The last line is JSON.
"""

import contextlib
import functools
import runpy
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import torch

from benchmarks import peer, timing
from scalevae_jax import config
from scalevae_jax.config import Config
from scalevae_jax.inference import posteriors
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.runtime import command, signals
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import optimizer, prepare, steps, workdir
from scalevae_jax.training import state as training
from scalevae_jax.training.log import EpochLog
from scalevae_jax.training.loop import Training, train_epoch
from scalevae_jax.training.prepare import TrainingData


def ours(settings: Config, data: TrainingData, folder: Path) -> Callable[[], object]:
    """An epoch of the package's loop, then its validation."""
    method = config.build_method(settings)
    model = config.build_model(settings, method, len(data.words))
    checkpoints = workdir.checkpoints(folder, settings, data.words, writing=True)
    run = Training(folder, settings, model, method, data.train, checkpoints, EpochLog(folder, 1, 0), signals.Signals())
    made = steps.make_steps(model, method, optimizer.build(settings, len(data.train)), len(data.train))
    key = jax.random.key(0)
    state = training.create_state(settings, model, method, len(data.train))

    def epoch() -> object:
        nonlocal state
        state, _ = train_epoch(run, made, state._replace(position=state.position * 0))
        current = LoadedModel(folder, settings, data.words, model, method, state.params, state.method_state, 0)
        valid = posteriors.infer(current, data.valid, key)
        return valid.summary(method)["loss"]

    return epoch


def theirs(data: TrainingData, settings: Config) -> Callable[[], object]:
    """An epoch of the reference code's loop over batches made beforehand, and the loss on those of validation."""
    torch.manual_seed(0)
    sizes = settings.model
    network = peer.Vae(len(data.words), sizes.embedding, sizes.hidden, sizes.latent).to(peer.device())
    batches = [torch.from_numpy(batch.tokens).long().to(peer.device()) for batch in data.train.epoch(1)]
    valid = [torch.from_numpy(batch.tokens[batch.weight > 0]).long().to(peer.device()) for batch in data.valid.epoch(1)]

    def epoch() -> object:
        network.train()
        for at in np.random.permutation(len(batches)):
            network.step(batches[at])
        network.eval()
        with torch.no_grad():
            return sum(network.losses(batch, 1.0).sum().item() for batch in valid)

    return epoch


def parser() -> Parser:
    """The arguments of this program."""
    arguments = Parser("benchmarks.epoch_small", __doc__)
    arguments.add_argument("--rounds", type=integer(1), default=5, help="turns of each")
    return arguments


def _command(options: Namespace) -> None:
    peer.alike()
    path = Path(__file__).parents[1] / "configs/synthetic.py"
    settings = config.with_defaults(runpy.run_path(str(path))["get_config"]())
    data = prepare.read(settings)
    vae = replace(settings, method=config.MethodConfig(name="vae"))
    one = replace(vae, train=replace(vae.train, steps_per_dispatch=1))
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
        contestants = {
            "ours": ours(vae, data, folders[0]),
            "one_a_dispatch": ours(one, data, folders[1]),
            "scale_vae": ours(settings, data, folders[2]),
            "torch": theirs(data, settings),
            "matmul": timing.matmul(),
        }
        seconds = timing.turns(options.rounds, contestants)
    figures = {
        "seconds": seconds["ours"],
        "seconds_torch": seconds["torch"],
        "ratio_vs_torch": seconds["torch"] / seconds["ours"],
        "one_a_dispatch_vs_ours": seconds["one_a_dispatch"] / seconds["ours"],
        "scale_vae_vs_vae": seconds["scale_vae"] / seconds["ours"],
        "matmul_gflops": timing.rate(seconds["matmul"]) / 1e9,
    }
    timing.line("synthetic", figures)
    timing.finish({"synthetic": figures}, "synthetic")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())

"""A run on disk that was never trained: a corpus of a few words, random weights large enough for z to matter."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

from scalevae_jax import config, export
from scalevae_jax.config import Config, Data, Eval, MethodConfig, Network
from scalevae_jax.data import corpus, subwords, tokenizer, vocab
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import console
from scalevae_jax.training import workdir

NOUNS, VERBS = "dog cat man bird horse".split(), "runs sleeps eats sings".split()
SENTENCES = [f"the {noun} {verb} ." for noun in NOUNS for verb in VERBS]
STEPS_PER_EPOCH = 3


def write_corpus(folder: Path, labels: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in corpus.SPLITS:
        lines = [f"{i % 2}\t{text}" if labels else text for i, text in enumerate(SENTENCES)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def make_run(
    folder: Path, name: str = "scale_vae", labels: bool = False, spread: float = 0.8, tokens: str = "words"
) -> LoadedModel:
    """Weights are uniform in +-spread, the factor is 2, 2.5 and 3; `folder` holds config.json, run.json and the
    vocabulary."""
    data = write_corpus(folder / "data", labels)
    settings = Config(
        data=Data(path=str(data), max_words=12, tokenizer=tokens),
        model=Network(embedding=4, hidden=6, latent=3),
        method=MethodConfig(name=name),
        eval=Eval(batch_size=8, iw_samples=7),
    )
    if tokens == "bpe":
        words = subwords.learn(SENTENCES, 280)
    else:
        separator = tokenizer.SEPARATORS[tokens]
        words = vocab.build(map(vocab.vocabulary([], separator).split, SENTENCES), 50, separator=separator)
    method = config.build_method(settings)
    model = config.build_model(settings, method, len(words))
    init_posterior = functools.partial(method.posterior.init_params, model.latent)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)) | {"posterior": init_posterior()})
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(rng.uniform(-spread, spread, x.shape)), shapes)
    method_state = method.posterior.init(model.latent, STEPS_PER_EPOCH)
    if method.posterior.own_epochs:
        method_state = method_state._replace(f_bar=np.float32([2, 2.5, 3]))
    (folder / workdir.CONFIG).write_text(config.to_json(settings))
    words.save(folder / tokenizer.FILES[tokens])
    record = {"versions": {"scalevae_jax": "0"}, "data": {}, "steps_per_epoch": STEPS_PER_EPOCH}
    (folder / workdir.RUN).write_text(json.dumps(record))
    return LoadedModel(folder, settings, words, model, method, params, method_state, 2)


@functools.cache
def shared_model(name: str = "scale_vae") -> TrainedModel:
    """One labelled run for all tests that do not change its folder."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return TrainedModel(make_run(folder, name, labels=True))


def run_command(
    module: ModuleType, run: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> int:
    """A command on the run, exported into `folder`, in this process; its exit code."""
    export.save(run, folder)
    monkeypatch.setattr(console.console, "stderr", False)  # put back afterwards: the command sets it
    return module.main(["--workdir", str(folder), *arguments])

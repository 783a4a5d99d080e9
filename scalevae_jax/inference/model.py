"""A trained model to use: sentences in, sentences out."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from scalevae_jax.core import gaussian
from scalevae_jax.core.types import Array, Gaussian, InputError, Keys
from scalevae_jax.data import corpus, loader, tokens
from scalevae_jax.data.vocab import UNKNOWN
from scalevae_jax.inference import decoding as inference_decoding
from scalevae_jax.inference import load as inference_load
from scalevae_jax.inference import posteriors
from scalevae_jax.inference.decoding import Decoding, sample_prior
from scalevae_jax.inference.load import WEIGHTS, LoadedModel, load_exported
from scalevae_jax.methods import objective, penalty
from scalevae_jax.runtime import devices, storage
from scalevae_jax.training.journal import Journal

PRIORS = ("model", "unit", "aggregate")
AT_ONCE = 128  # sentences decoded together


def _size(rows: int, most: int) -> int:
    """So few batch sizes that few are compiled: the next power of two, `most` at most."""
    return min(1 << (rows - 1).bit_length(), most)


class TrainedModel:
    """A model as `load` gives it. A sentence is a str of words separated by spaces, as in the training data.

    Points z are [n, latent] in the decoder's space, where Scale-VAE's factor is already in. `**decoding` are fields of
    `generate.Decoding`: temperature, top_k, top_p, beam, length_penalty, max_words, mask_unknown. Chance is a function
    of `seed` and a sentence's place in its list. Every method raises InputError for text that is empty, too long or of
    unknown words only, and for what a language model, which has no z, can not do.
    """

    def __init__(self, run: LoadedModel):
        self.run = run

    def __repr__(self) -> str:
        settings = self.run.settings
        return f"<{settings.method.name} of {settings.data.path}, {self.latent} dimensions, {self.run.workdir}>"

    @property
    def latent(self) -> int:
        """Dimensions of z; 0 for a language model."""
        return self.run.model.latent

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the posterior q_hat(z|x) of each sentence: two of [n, latent], float32."""
        self._need_latent()
        q_hat = self.infer(self._read(texts)).posteriors.q_hat
        return np.asarray(q_hat.mean), np.exp(0.5 * np.asarray(q_hat.logvar))

    def decode(self, z: Float[Array, "n latent"], seed: int = 0, **decoding: Any) -> list[str]:
        """A sentence for each z; greedy unless `temperature` or `beam` say otherwise."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise InputError(f"z: [n, {self.latent}] is wanted, got {list(z.shape)}")
        return self._sentences(z, jax.random.key(seed), Decoding(**decoding))

    def reconstruct(self, texts: Sequence[str], seed: int = 0, **decoding: Any) -> list[str]:
        """Each sentence decoded from its posterior mean."""
        return self.decode(self.encode(texts)[0], seed, **decoding)

    def draw(self, n: int, seed: int = 0, prior: str = "model") -> np.ndarray:
        """n points of the prior, [n, latent]: the model's own, N(0, I) times the factor ("model"); N(0, I) without it
        ("unit"); a Gaussian fitted to the aggregated posterior of the training split ("aggregate")."""
        return np.asarray(sample_prior(self._prior(prior), self._keys(n, seed)[0]))

    def sample(
        self, num: int, seed: int = 0, prior: str = "model", *, temperature: float | None = None, **decoding: Any
    ) -> list[str]:
        """`num` sentences of points drawn from the prior (see `draw`); words too are drawn, at temperature 1 unless
        given, or searched where `beam` is more than 1."""
        if temperature is None:
            temperature = 0.0 if decoding.get("beam", 1) > 1 else 1.0
        how = Decoding(temperature=temperature, **decoding)
        return self._sentences(self.draw(num, seed, prior), self._keys(num, seed)[1], how)

    def interpolate(
        self, a: str | None = None, b: str | None = None, steps: int = 5, seed: int = 0, **decoding: Any
    ) -> list[str]:
        """`steps` sentences on the line from a to b, both ends included; an end that is None is a prior draw."""
        self._need_latent()
        if steps < 2:
            raise InputError(f"steps: 2 or more, both ends are included; got {steps}")
        drawn = self.draw(2, seed)
        given = [text for text in (a, b) if text is not None]
        means = iter(self.encode(given)[0] if given else ())
        start, end = (z if text is None else next(means) for text, z in zip((a, b), drawn, strict=True))
        return self.decode(np.asarray(inference_decoding.interpolate(start, end, steps)), seed, **decoding)

    def analogy(self, a: str, b: str, c: str, seed: int = 0, **decoding: Any) -> str:
        """What is to c as b is to a: the sentence at mean(c) + mean(b) - mean(a)."""
        z = self.encode([a, b, c])[0]
        return self.decode((z[2] + z[1] - z[0])[None], seed, **decoding)[0]

    def nearest(self, text: str, corpus: Sequence[str], num: int = 5) -> list[str]:
        """The `num` sentences of a corpus whose posterior means are nearest to that of `text`, the nearest first."""
        z = self.encode([text, *corpus])[0]
        order = np.argsort(np.sum(np.square(z[1:] - z[0]), axis=1), kind="stable")
        return [str(corpus[i]) for i in order[:num]]

    def score(self, texts: Sequence[str], samples: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
        """For each sentence, [n] each, in nats, `</s>` counted: `nll` by `samples` importance-weighted draws (the run's
        own `eval.iw_samples` unless given), `rec` = -log p(x|z) of one draw, `kl` = KL(q || N(0, I)) and `kl_model` =
        KL(q_hat || prior as sampled); and `tokens`, the predicted ones."""
        if samples is not None and samples < 1:
            raise InputError(f"samples: 1 or more, got {samples}")
        batches, key = self._read(texts), jax.random.key(seed)
        inference = self.infer(batches, seed)
        draws = (samples or self.run.settings.eval.iw_samples) if self.latent else 1
        job = posteriors.Job(self.run, batches, draws, 0, ("nll",), gaussian.standard(self.latent), {})
        with tempfile.TemporaryDirectory() as folder:
            nll = posteriors.importance(job, key, Journal(Path(folder) / "nll", {}))["nll"]
        return {
            "nll": nll,
            "rec": inference.rec,
            "kl": np.sum(np.asarray(penalty.unit_rate(inference.posteriors)), axis=1),
            "kl_model": np.sum(np.asarray(penalty.matched_rate(inference.posteriors)), axis=1),
            "tokens": inference.tokens,
        }

    def batches(self, split: corpus.Split) -> loader.Loader:
        """A split in few shapes: lengths and batches are powers of two."""
        edges = np.unique([max(8, 1 << (int(n) - 1).bit_length()) for n in split.lengths])
        size = _size(len(split), self.run.settings.eval.batch_size)
        return loader.Loader(split, edges, size, devices.rows_for(size))

    def infer(self, batches: loader.Loader, seed: int = 0) -> posteriors.SplitPosteriors:
        """Posteriors, a draw from each, and its rec in nats; rows in the order of the split."""
        return posteriors.infer_by(self.run, batches, jax.random.key(seed))

    def _need_latent(self) -> None:
        if not self.latent:
            name = self.run.settings.method.name
            raise InputError(f"{self.run.workdir}: {name} is a language model without z: it can sample and score alone")

    def _read(self, texts: Sequence[str]) -> loader.Loader:
        if isinstance(texts, str) or not isinstance(texts, Sequence | np.ndarray):
            raise InputError(f"a list of sentences is wanted, got {type(texts).__name__}")
        if not len(texts):
            raise InputError("no sentence is given; one at least is wanted")
        most, raw, rows = self.run.settings.data.max_words, self.run.settings.data.raw, []
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str):
                raise InputError(f"sentence {number}: text is wanted, got {type(text).__name__}")
            words = (tokens.tokenize(text) if raw else text).split()
            if not words:
                raise InputError(f"sentence {number}: it is empty; give it a word")
            if len(words) > most:
                raise InputError(f"sentence {number}: {len(words):,} words; this model reads {most} at most")
            ids = self.run.words.encode(words)
            if set(ids[1:-1]) == {UNKNOWN}:
                start = " ".join(words[:5])
                raise InputError(f"sentence {number}: no word of it is in the model's vocabulary: {start!r}")
            rows.append(ids)
        return self.batches(corpus.Split.of(rows))

    def _prior(self, name: str) -> Gaussian:
        if name == "aggregate":
            self._need_latent()
            return posteriors.fitted_prior(self.run)
        if name not in PRIORS:
            raise InputError(f"prior: one of {', '.join(PRIORS)}; got {name!r}")
        unit = gaussian.standard(self.latent)
        return unit._replace(logvar=2 * jnp.log(self.run.factor)) if name == "model" else unit

    def _keys(self, n: int, seed: int) -> tuple[Keys, Keys]:
        if n < 1:
            raise InputError(f"1 sentence or more, got {n}")
        z_key, word_key = jax.random.split(jax.random.key(seed))
        return objective.row_keys(z_key, jnp.arange(n)), word_key

    def _sentences(self, z: np.ndarray, key: Keys, how: Decoding) -> list[str]:
        keys = objective.row_keys(key, jnp.arange(len(z)))
        sentences = []
        for start in range(0, len(z), AT_ONCE):
            left = min(len(z) - start, AT_ONCE)
            rows = np.minimum(start + np.arange(_size(left, AT_ONCE)), len(z) - 1)  # the last one fills the batch
            tokens = inference_decoding.decode(self.run.model, self.run.params, z[rows], keys[rows], how)[:left]
            sentences += [self.run.words.decode(row) for row in tokens]
        return sentences


def load(folder: str | os.PathLike[str], fallback: bool = False) -> TrainedModel:
    """The best model of a run (with `fallback` the newest whole checkpoint, where the best is damaged), or an exported
    one. Raises InputError where the folder is neither."""
    folder = storage.path(folder)
    devices.start()
    if not (folder / WEIGHTS).is_file():
        return TrainedModel(inference_load.load(folder, fallback))
    if not isinstance(folder, Path):
        raise InputError(f"{folder}: an exported model is read from a folder of this machine alone; copy it")
    return TrainedModel(load_exported(folder))

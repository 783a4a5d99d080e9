"""A trained model to use: sentences in, sentences out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from scalevae_jax.core import gaussian, mixture
from scalevae_jax.core.streams import Stream, stream_key
from scalevae_jax.core.types import Array, InputError, Keys
from scalevae_jax.data import corpus, loader, tokenizer
from scalevae_jax.data.lines import clean_line
from scalevae_jax.data.vocab import UNKNOWN, tokenize
from scalevae_jax.inference import decoding as decoder
from scalevae_jax.inference import importance, posteriors, priors
from scalevae_jax.inference.decoding import TEMPERATURE, Decoding, check_whole
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.methods import objective, penalty
from scalevae_jax.runtime import devices

FITTED_PRIORS = {name: estimate for estimate, name in priors.FITTED.items()}
PRIORS = ("model", "unit", *FITTED_PRIORS)
AT_ONCE = 128  # sentences decoded together
LONGEST = 30  # words of a decoded sentence, unless given; a sentence of other tokens may be as long as in training


def _batch_size(rows: int, largest: int) -> int:
    """The next power of two, at most `largest`: few sizes, so that few programs are compiled."""
    return min(1 << (rows - 1).bit_length(), largest)


def _key(seed: int, stream: Stream) -> Keys:
    """The key of a stream of a seed that a user gave. JAX itself would take a larger seed modulo 2^32."""
    check_whole("seed", seed, 0)
    return stream_key(seed, stream)


class TrainedModel:
    """A trained model, as `scalevae_jax.load` gives it. A sentence is a str as in the training data (with
    data.tokenizer=words, words separated by spaces), and is repaired as training text is (`data.lines.clean_line`).

    Points z are [n, latent] in the decoder's space, so that Scale-VAE's factor is already in them. `**decoding` are
    fields of `inference.decoding.Decoding`: temperature, top_k, top_p, beam, length_penalty, max_words, mask_unknown.
    Random draws depend on `seed` and on a sentence's place in its list only. Every method raises InputError for text
    that is empty, too long or without a known word, and for what a language model, which has no z, cannot do.
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
        """Mean and standard deviation of the posterior q_hat(z|x) of each sentence, [n, latent] each, float32."""
        self._require_latent()
        q_hat = self.infer(self._read(texts)).posteriors.q_hat
        return np.asarray(q_hat.mean), np.exp(0.5 * np.asarray(q_hat.logvar))

    def decode(self, z: Float[Array, "n latent"], seed: int = 0, **decoding: Any) -> list[str]:
        """A sentence for each z; greedy unless `temperature` or `beam` is given."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise InputError(f"z: expected shape [n, {self.latent}], got {list(z.shape)}")
        if not np.isfinite(z).all():
            raise InputError("z: expected finite numbers")
        # The key is not that of `draw`: the words of a sentence do not depend on how its z was drawn.
        how, keys = self.decoding(**decoding), objective.row_keys(_key(seed, Stream.WORDS), jnp.arange(len(z)))
        sentences: list[str] = []
        for start in range(0, len(z), AT_ONCE):
            count = min(len(z) - start, AT_ONCE)
            rows = np.minimum(start + np.arange(_batch_size(count, AT_ONCE)), len(z) - 1)  # the last row is repeated
            tokens = decoder.decode(self.run.model, self.run.params, z[rows], keys[rows], how)[:count]
            sentences += [self.run.words.decode(row) for row in tokens]
        return sentences

    def decoding(self, **given: Any) -> Decoding:
        """How this model decodes with these fields given."""
        data = self.run.settings.data
        given.setdefault("max_words", LONGEST if data.tokenizer == "words" else data.max_words)
        return Decoding(**given)

    def written(self, sentences: Sequence[str]) -> list[str]:
        """The sentences as a person writes them: words are joined with their punctuation and clitics."""
        return [self.run.words.written(sentence) for sentence in sentences]

    def reconstruct(self, texts: Sequence[str], seed: int = 0, **decoding: Any) -> list[str]:
        """Each sentence decoded from its posterior mean."""
        return self.decode(self.encode(texts)[0], seed, **decoding)

    def draw(self, n: int, seed: int = 0, prior: str = "model") -> np.ndarray:
        """n points drawn from a prior, [n, latent]: "model" is N(0, I) times the method's factor, "unit" is N(0, I);
        fitted to the aggregated posterior of the training split are "aggregate", a diagonal Gaussian, "full", one with
        all covariances, and "mixture", several of those."""
        check_whole("num", n, 1)
        keys = objective.row_keys(_key(seed, Stream.PRIOR), jnp.arange(n))
        if prior in FITTED_PRIORS:
            self._require_latent()
            estimate = FITTED_PRIORS[prior]
            return np.asarray(mixture.sample(priors.fitted(self.run, [estimate])[estimate], keys))
        if prior not in PRIORS:
            raise InputError(f"prior: expected one of {', '.join(PRIORS)}, got {prior!r}")
        unit = gaussian.standard(self.latent)
        chosen = unit._replace(logvar=2 * jnp.log(self.run.factor)) if prior == "model" else unit
        return np.asarray(decoder.sample_prior(chosen, keys))

    def sample(
        self, num: int, seed: int = 0, prior: str = "model", *, temperature: float | None = None, **decoding: Any
    ) -> list[str]:
        """`num` sentences decoded from points of the prior (see `draw`). Words are drawn at temperature 1, from the
        model as it is, unless `temperature` is given, or searched if `beam` is more than 1."""
        if temperature is None:
            temperature = 0.0 if decoding.get("beam", 1) > 1 else TEMPERATURE
        return self.decode(self.draw(num, seed, prior), seed, temperature=temperature, **decoding)

    def interpolate(
        self, a: str | None = None, b: str | None = None, steps: int = 5, seed: int = 0, **decoding: Any
    ) -> list[str]:
        """`steps` sentences on the line from a to b, both ends included; None draws that end from the prior."""
        self._require_latent()
        check_whole("steps", steps, 2)  # both ends are included
        drawn = self.draw(2, seed)
        given = [text for text in (a, b) if text is not None]
        means = iter(self.encode(given)[0] if given else ())
        start, end = (z if text is None else next(means) for text, z in zip((a, b), drawn, strict=True))
        return self.decode(np.asarray(decoder.interpolate(start, end, steps)), seed, **decoding)

    def traverse(
        self, text: str, dimension: int, values: Sequence[int | float], seed: int = 0, **decoding: Any
    ) -> list[str]:
        """A sentence for each of `values`, put in place of one dimension (from 0) of the posterior mean of `text`."""
        check_whole("dimension", dimension, 0)
        if dimension >= max(self.latent, 1):
            raise InputError(f"dimension: expected 0 to {self.latent - 1}, got {dimension}")
        z = np.repeat(self.encode([text])[0], len(values), axis=0)
        z[:, dimension] = values
        return self.decode(z, seed, **decoding)

    def analogy(self, a: str, b: str, c: str, seed: int = 0, **decoding: Any) -> str:
        """The sentence that is to c as b is to a, decoded from mean(c) + mean(b) - mean(a)."""
        z = self.encode([a, b, c])[0]
        return self.decode((z[2] + z[1] - z[0])[None], seed, **decoding)[0]

    def nearest(self, text: str, corpus: Sequence[str], num: int = 5) -> list[str]:
        """The `num` sentences of `corpus` whose posterior means are nearest to that of `text`, nearest first."""
        check_whole("num", num, 1)
        distances = np.sum(np.square(self.encode(corpus)[0] - self.encode([text])[0]), axis=1)
        order = np.argsort(distances, kind="stable")
        return [str(corpus[i]) for i in order[:num]]

    def score(self, texts: Sequence[str], samples: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
        """Costs of each sentence in nats, `</s>` counted, [n] each: `nll` by `samples` importance-weighted draws (by
        default the run's `eval.iw_samples`), `rec` = -log p(x|z) of one draw, `kl` = KL(q || N(0, I)), `kl_model` =
        KL(q_hat || prior as sampled); and `tokens`, the number of predicted tokens."""
        if samples is not None:
            check_whole("samples", samples, 1)
        batches, key = self._read(texts), _key(seed, Stream.INFERENCE)
        inferred = self.infer(batches, seed)
        draws = (samples or self.run.settings.eval.iw_samples) if self.latent else 1  # without z, any draw is exact
        sampling = importance.ImportanceSampling(draws, {}, ("nll",))
        nll = np.zeros(len(inferred.rec), np.float64)
        for rows, computed in importance.by_batch(self.run, batches, key, sampling):
            nll[rows] = computed["nll"]
        return {
            "nll": nll,
            "rec": inferred.rec,
            "kl": np.sum(np.asarray(penalty.unit_rate(inferred.posteriors)), axis=1),
            "kl_model": np.sum(np.asarray(penalty.matched_rate(inferred.posteriors)), axis=1),
            "tokens": inferred.tokens,
        }

    def ids(self, text: str) -> list[int]:
        """A sentence as the model reads it. Raises InputError for one that it cannot read."""
        if not isinstance(text, str):
            raise InputError(f"expected text, got {type(text).__name__}")
        data = self.run.settings.data
        text = clean_line(text, Counter())
        unit = tokenizer.UNITS[data.tokenizer]
        if not text:
            raise InputError("empty; give it a word")
        tokens = self.run.words.split(tokenize(text) if data.raw else text)
        if len(tokens) > data.max_words:
            raise InputError(f"{len(tokens):,} {unit}; this model reads {data.max_words} at most")
        ids = self.run.words.encode(tokens)
        # The model would read it as `<unk>` alone and answer with a sentence that has nothing to do with it.
        if set(ids[1:-1]) == {UNKNOWN}:
            raise InputError(f"none of its {unit} is in the model's vocabulary: {self.run.words.join(tokens[:5])!r}")
        return ids

    def batches(self, split: corpus.Split) -> loader.Loader:
        """The batches of a split in few shapes: lengths and batch sizes are powers of two."""
        # A length or size of its own for every list would compile a program for every list.
        edges = np.unique([max(8, 1 << (int(n) - 1).bit_length()) for n in split.lengths])
        size = _batch_size(len(split), self.run.settings.eval.batch_size)
        return loader.Loader(split, edges, size, devices.rows_for(size))

    def infer(self, batches: loader.Loader, seed: int = 0) -> posteriors.SplitPosteriors:
        """Posteriors, a draw from each, and its rec in nats; rows in the order of the split."""
        return posteriors.infer(self.run, batches, _key(seed, Stream.INFERENCE))

    def _require_latent(self) -> None:
        if not self.latent:
            name = self.run.settings.method.name
            raise InputError(f"{self.run.workdir}: {name} is a language model without z: it can only sample and score")

    def _read(self, texts: Sequence[str]) -> loader.Loader:
        """The sentences as batches of ids."""
        if isinstance(texts, str) or not isinstance(texts, Sequence | np.ndarray):
            raise InputError(f"expected a list of sentences, got {type(texts).__name__}")
        if not len(texts):
            raise InputError("expected at least one sentence, got none")
        rows: list[list[int]] = []
        for number, text in enumerate(texts, 1):
            try:
                rows.append(self.ids(text))
            except InputError as error:
                raise InputError(f"sentence {number}: {error}") from error
        return self.batches(corpus.Split.of(rows))

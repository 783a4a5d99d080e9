"""How good generated sentences are (Table 5): perplexity under a language model, n-gram coverage, entropy, distinct-n.

Example:
  python -m scalevae_jax.text_quality --workdir runs/yahoo --language_model runs/yahoo_lm

Protocol of section 4.4: 1,000 pairs of prior draws, 5 points on the line between each pair, both ends included, decoded
greedily to at most 15 words; ten seeds, mean and standard deviation. What the paper leaves open is written down in
docs/using.md. Writes text_quality.json into the workdir; perplexity needs --language_model, the folder of an lstm_lm.
"""

import functools
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.data.corpus import Split
from scalevae_jax.inference import decoding, flags
from scalevae_jax.inference.model import TrainedModel, load
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.training import workdir

Words = Sequence[str]
GRAMS, DISTINCT = (2, 3, 4), (1, 2, 3)


def ngrams(sentence: Words, n: int) -> Iterator[tuple[str, ...]]:
    """Runs of n words inside the sentence; no begin or end symbol is counted."""
    return zip(*(sentence[i:] for i in range(n)), strict=False)


def coverage(sentences: Sequence[Words], known: set[tuple[str, ...]], n: int) -> float:
    """Share of the n-grams of the sentences, every occurrence counted, that are `known`; 0 where there is none."""
    hits = [gram in known for sentence in sentences for gram in ngrams(sentence, n)]
    return sum(hits) / max(len(hits), 1)


def entropy(sentences: Sequence[Words]) -> float:
    """Entropy of the words of all sentences together, bits a word."""
    counts = Counter(word for sentence in sentences for word in sentence)
    total = counts.total()
    return sum(n / total * math.log2(total / n) for n in counts.values())


def distinct(sentences: Sequence[Words], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016); 0 where there is none."""
    grams = [gram for sentence in sentences for gram in ngrams(sentence, n)]
    return len(set(grams)) / max(len(grams), 1)


def perplexity(language_model: TrainedModel, sentences: Sequence[Words], longest: int) -> float:
    """exp(nats a token) of all sentences together; `</s>` counts where it was generated, so not after `longest` words.

    Raises InputError where the model has a latent variable: its likelihood would be a bound.
    """
    if language_model.latent:
        raise InputError(f"{language_model.run.workdir}: --language_model wants a run of the method lstm_lm")
    ids = [language_model.run.words.encode(sentence)[: longest + 1] for sentence in sentences]
    scored = language_model.infer(language_model.batches(Split.of(ids)))
    return math.exp(scored.rec.sum(dtype=np.float64) / scored.tokens.sum())


def lines(model: TrainedModel, pairs: int, points: int, longest: int, seed: int) -> list[list[str]]:
    """`points` greedy sentences on each of `pairs` lines between two prior draws, as lists of words."""
    ends = model.draw(2 * pairs, seed).reshape(pairs, 2, model.latent)
    z = np.concatenate([decoding.interpolate(a, b, points) for a, b in ends])
    return [sentence.split() for sentence in model.decode(z, max_words=longest)]


def measure(
    sentences: Sequence[Words],
    known: dict[int, set[tuple[str, ...]]],
    language_model: TrainedModel | None,
    longest: int,
) -> dict[str, float]:
    """All measures of one set of sentences."""
    ppl = {"ppl": perplexity(language_model, sentences, longest)} if language_model else {}
    bits = entropy(sentences)
    return (
        ppl
        | {f"gram_{n}": coverage(sentences, known[n], n) for n in GRAMS}
        | {"entropy_bits": bits, "entropy_nats": bits * math.log(2)}
        | {f"distinct_{n}": distinct(sentences, n) for n in DISTINCT}
    )


FLAGS = Flags()
MODEL = flags.model(FLAGS)
LANGUAGE_MODEL = FLAGS.string("language_model", None, "the folder of an lstm_lm")
PAIRS = FLAGS.integer("pairs", 1000, "lines between two prior draws", 1)
POINTS = FLAGS.integer("points", 5, "sentences a line, both ends counted", 2)
MAX_WORDS = FLAGS.integer("max_words", 15, "words of a sentence at most", 1)
SEEDS = FLAGS.integer("seeds", 10, "repetitions", 1)


def _command() -> None:
    model = MODEL()
    if not model.latent:
        raise InputError(f"{model.run.workdir}: a language model has no line between two draws to measure")
    language_model = load(LANGUAGE_MODEL.value) if LANGUAGE_MODEL.value else None
    data, longest = model.run.settings.data, MAX_WORDS.value
    known: dict[int, set[tuple[str, ...]]] = {n: set() for n in GRAMS}
    for sentence in corpus.open(data).sentences("train"):
        for n, grams in known.items():
            grams.update(ngrams(sentence, n))
    results = []
    with console.Progress("text quality: seed", SEEDS.value) as ticker:
        for seed in range(SEEDS.value):
            sentences = lines(model, PAIRS.value, POINTS.value, longest, seed)
            results.append(measure(sentences, known, language_model, longest))
            ticker.tick(seed + 1)
    columns = {key: np.array([result[key] for result in results]) for key in results[0]}
    summary: dict[str, Any] = {
        key: {"mean": float(x.mean()), "std": float(x.std(ddof=1)) if len(x) > 1 else None}
        for key, x in columns.items()
    }
    settings = {"pairs": PAIRS.value, "points": POINTS.value, "max_words": longest, "seeds": SEEDS.value}
    about = settings | {"language_model": LANGUAGE_MODEL.value, **workdir.provenance()}
    path = model.run.workdir / "text_quality.json"
    storage.write_json(path, summary | about)
    title = f"{PAIRS.value * POINTS.value} sentences, {SEEDS.value} seeds"
    shown = Table("measure", "mean", "std", title=title, title_justify="left")
    for key, value in summary.items():
        shown.add_row(key, console.format_number(value["mean"], 4), console.format_number(value["std"], 4))
    console.console.print(shown)
    console.log(f"written to {path}")


main = functools.partial(command.run, "scalevae_jax.reproduce.text_quality", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())

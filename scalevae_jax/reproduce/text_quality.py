"""Quality of generated sentences (Table 5): perplexity under a language model, n-gram coverage, entropy, distinct-n.

Example:
  python -m scalevae_jax.reproduce.text_quality --workdir runs/yahoo --language_model runs/yahoo_lm

Section 4.4: 1,000 pairs of prior draws, 5 points on the line between the two, both ends included, decoded greedily to
at most 15 words; mean and standard deviation over ten seeds. docs/metrics.md says what the paper leaves open. Writes
text_quality.json into the workdir; perplexity needs --language_model, the folder of a trained lstm_lm.
"""

import functools
import math
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table

import scalevae_jax
from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.data.corpus import Split
from scalevae_jax.inference import decoding, flags
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import workdir

Words = Sequence[str]
GRAMS, DISTINCT = (2, 3, 4), (1, 2, 3)


def ngrams(sentence: Words, n: int) -> Iterator[tuple[str, ...]]:
    """Runs of n words of the sentence, without begin and end symbols."""
    return zip(*(sentence[i:] for i in range(n)), strict=False)


def coverage(sentences: Sequence[Words], known: set[tuple[str, ...]], n: int) -> float:
    """Share of the n-grams of the sentences, counted as often as they occur, that are `known`; 0 if there are none."""
    hits = [gram in known for sentence in sentences for gram in ngrams(sentence, n)]
    return sum(hits) / max(len(hits), 1)


def entropy(sentences: Sequence[Words]) -> float:
    """Entropy of the words of all sentences together, bits a word."""
    counts = Counter(word for sentence in sentences for word in sentence)
    total = counts.total()
    return sum(n / total * math.log2(total / n) for n in counts.values())


def distinct(sentences: Sequence[Words], n: int) -> float:
    """Number of different n-grams over the number of all n-grams (Li et al. 2016); 0 if there are none."""
    grams = [gram for sentence in sentences for gram in ngrams(sentence, n)]
    return len(set(grams)) / max(len(grams), 1)


def perplexity(language_model: TrainedModel, sentences: Sequence[Words], longest: int) -> float:
    """exp(nats a token) of all sentences together.

    Raises InputError where the model has a latent variable: its likelihood would be a bound.
    """
    if language_model.latent:
        raise InputError(f"{language_model.run.workdir}: --language_model: expected a run of the method lstm_lm")
    # A sentence of `longest` words was cut there, so that its end symbol, which was never generated, does not count.
    ids = [language_model.run.words.encode(sentence)[: longest + 1] for sentence in sentences]
    scored = language_model.infer(language_model.batches(Split.of(ids)))
    return math.exp(scored.rec.sum(dtype=np.float64) / scored.tokens.sum())


def lines(model: TrainedModel, pairs: int, points: int, longest: int, seed: int) -> list[list[str]]:
    """`points` greedy sentences, as lists of words, on each of `pairs` lines between two prior draws."""
    ends = model.draw(2 * pairs, seed).reshape(pairs, 2, model.latent)
    z = np.concatenate([decoding.interpolate(a, b, points) for a, b in ends])
    return [sentence.split() for sentence in model.decode(z, max_words=longest)]


def measure(
    sentences: Sequence[Words],
    known: dict[int, set[tuple[str, ...]]],
    language_model: TrainedModel | None,
    longest: int,
) -> dict[str, float]:
    """All measures of one set of sentences; `known` holds the n-grams of the training split by n."""
    bits = entropy(sentences)
    return {
        **({"ppl": perplexity(language_model, sentences, longest)} if language_model else {}),
        **{f"gram_{n}": coverage(sentences, known[n], n) for n in GRAMS},
        "entropy_bits": bits,
        "entropy_nats": bits * math.log(2),
        **{f"distinct_{n}": distinct(sentences, n) for n in DISTINCT},
    }


def parser() -> Parser:
    arguments = Parser("scalevae_jax.reproduce.text_quality", __doc__)
    flags.add_model(arguments)
    arguments.add_argument("--language_model", metavar="DIR", help="the folder of an lstm_lm")
    arguments.add_argument("--pairs", type=integer(1), default=1000, help="lines between two prior draws")
    arguments.add_argument("--points", type=integer(2), default=5, help="points on each line, both ends included")
    arguments.add_argument("--max_words", type=integer(1), default=15, help="maximum words in a sentence")
    arguments.add_argument("--seeds", type=integer(1), default=10, help="repetitions")
    return arguments


def _command(options: Namespace) -> None:
    model = flags.read_model(options)
    if not model.latent:
        raise InputError(f"{model.run.workdir}: a language model has no line between two draws to measure")
    language_model = scalevae_jax.load(options.language_model) if options.language_model else None
    known: dict[int, set[tuple[str, ...]]] = {n: set() for n in GRAMS}
    for each in filter(None, (model, language_model)):
        if each.run.settings.data.tokenizer != "words":
            raise InputError(f"{each.run.workdir}: Table 5 counts words; expected a run with data.tokenizer=words")
    for sentence in corpus.open(model.run.settings.data).sentences("train", model.run.words):
        for n, grams in known.items():
            grams.update(ngrams(sentence, n))
    results: list[dict[str, float]] = []
    with console.Progress("text quality: seed", options.seeds) as progress:
        for seed in range(options.seeds):
            sentences = lines(model, options.pairs, options.points, options.max_words, seed)
            results.append(measure(sentences, known, language_model, options.max_words))
            progress.tick(seed + 1)
    columns = {key: np.array([result[key] for result in results]) for key in results[0]}
    summary: dict[str, Any] = {
        key: {"mean": float(x.mean()), "std": float(x.std(ddof=1)) if len(x) > 1 else None}
        for key, x in columns.items()
    }
    settings = {key: getattr(options, key) for key in ("pairs", "points", "max_words", "seeds")}
    about = settings | {"language_model": options.language_model, **workdir.provenance()}
    path = model.run.workdir / "text_quality.json"
    storage.write_json(path, summary | about)
    title = f"{options.pairs * options.points} sentences, {options.seeds} seeds"
    shown = Table("measure", "mean", "std", title=title, title_justify="left")
    for key, value in summary.items():
        shown.add_row(key, console.format_number(value["mean"], 4), console.format_number(value["std"], 4))
    console.console.print(shown)
    console.log(f"written to {path}")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())

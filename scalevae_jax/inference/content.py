"""What z holds of a sentence: how much of it greedy decoding gives back, and what linear models read off z.

A model can have a mutual information of several nats and hold in z little more than length and punctuation.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from threadpoolctl import threadpool_limits

from scalevae_jax.core.types import InputError
from scalevae_jax.data import corpus
from scalevae_jax.inference import posteriors
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import console

RECONSTRUCTED = 1000  # sentences, at most
PROBED = 5000  # training sentences for the linear models, at most
COMMON = 200  # the commonest words are not content
WORDS = 20  # the commonest content words, each of which has a linear model
RECONSTRUCTION = ("exact", "token_f1", "bleu", "content_recall", "content_recall_shuffled")
KNOWLEDGE = ("z_length_r2", "z_first_word", "z_first_word_base", "z_content", "z_content_base")


def _common(sentences: Sequence[Sequence[str]], start: int, end: int) -> list[str]:
    """The words of these ranks, by how often they occur."""
    counts = Counter(word for sentence in sentences for word in sentence)
    return [word for word, _ in counts.most_common(end)[start:]]


def _recall(given: Sequence[set[str]], made: Sequence[Sequence[str]]) -> float:
    """Share of the words of `given` that stand in `made`; nan where there are none."""
    kept = sum(len(words & set(sentence)) for words, sentence in zip(given, made, strict=True))
    return kept / sum(map(len, given)) if any(given) else float("nan")


def reconstruction(given: Sequence[str], made: Sequence[str], seed: int = 0) -> dict[str, float | None]:
    """Sentences and what was decoded from the means of their posteriors, compared word by word.

    `exact` is the share given back whole; `token_f1` the harmonic mean of precision and recall of a sentence's words,
    counted as often as they occur, averaged over sentences; `bleu` BLEU-4 of the whole, from 0 to 100 (NLTK, smoothed);
    `content_recall` the share of words outside the 200 commonest of these sentences that come back (None if there are
    none), and `content_recall_shuffled` the same against the sentences in another order: what chance gives.
    """
    pairs = [(g.split(), m.split()) for g, m in zip(given, made, strict=True)]
    references, decoded = [g for g, _ in pairs], [m for _, m in pairs]
    shared = [2 * (Counter(g) & Counter(m)).total() / max(len(g) + len(m), 1) for g, m in pairs]
    bleu: Any = corpus_bleu([[g] for g in references], decoded, smoothing_function=SmoothingFunction().method1)
    common = set(_common(references, 0, COMMON))
    content = [set(g) - common for g in references]
    order = np.random.default_rng(seed).permutation(len(pairs))
    recall = {"": _recall(content, decoded), "_shuffled": _recall(content, [decoded[i] for i in order])}
    return {
        "exact": float(np.mean([g == m for g, m in pairs])),
        "token_f1": float(np.mean(shared)),
        "bleu": 100 * float(bleu),
        **{f"content_recall{name}": None if np.isnan(value) else value for name, value in recall.items()},
    }


@threadpool_limits.wrap(limits=1)  # as in inference.priors.fit
def knowledge(
    train_z: Float[np.ndarray, "train latent"],
    train: Sequence[str],
    test_z: Float[np.ndarray, "test latent"],
    test: Sequence[str],
) -> dict[str, float | None]:
    """Linear models on z, fitted to training sentences and measured on others.

    `z_length_r2` is the share of the variance of the number of words that ridge regression explains (chance is 0; None
    where all are as long); `z_first_word` the accuracy of logistic regression for the first word, the 20 commonest ones
    and all others together; `z_content` the average precision for whether a sentence has a word, mean over the 20
    commonest content words (None where no test sentence has one). The `_base` of each is what a model that ignores z
    reaches.
    """
    from sklearn.linear_model import LogisticRegression, Ridge  # here, since importing scikit-learn takes a second
    from sklearn.metrics import average_precision_score
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train_z)
    x, x_test = scaler.transform(train_z), scaler.transform(test_z)
    words, words_test = [s.split() for s in train], [s.split() for s in test]
    length, lengths = Ridge().fit(x, [len(s) for s in words]), [len(s) for s in words_test]

    starts, starts_test = ([s[0] if s else "" for s in sentences] for sentences in (words, words_test))
    firsts = _common([starts], 0, WORDS)
    first, first_test = ([s if s in firsts else "" for s in sentences] for sentences in (starts, starts_test))
    commonest = Counter(first).most_common(1)[0][0]
    base = float(np.mean([word == commonest for word in first_test]))
    accuracy = (
        base if len(set(first)) == 1 else LogisticRegression(max_iter=500).fit(x, first).score(x_test, first_test)
    )

    precisions: list[tuple[float, float]] = []
    for word in _common(words, COMMON, COMMON + WORDS):
        has, has_test = (np.array([word in s for s in sentences]) for sentences in (words, words_test))
        if has_test.any() and not has.all():
            scores = LogisticRegression(max_iter=500).fit(x, has).decision_function(x_test)
            precisions.append((float(average_precision_score(has_test, scores)), float(has_test.mean())))
    content, content_base = np.mean(precisions, axis=0).tolist() if precisions else (None, None)
    return {
        "z_length_r2": float(length.score(x_test, lengths)) if len(set(lengths)) > 1 else None,
        "z_first_word": float(accuracy),
        "z_first_word_base": base,
        "z_content": content,
        "z_content_base": content_base,
    }


def measure(run: LoadedModel, mean: Float[np.ndarray, "rows latent"], split: corpus.Split) -> dict[str, float | None]:
    """`reconstruction` of the first sentences of a split whose posterior means these are, and `knowledge`; None where
    the model has no z, or where the training split is missing."""
    found: dict[str, float | None] = dict.fromkeys((*RECONSTRUCTION, *KNOWLEDGE))
    if not run.model.latent:
        return found
    model, some = TrainedModel(run), split.first(RECONSTRUCTED)
    texts = [run.words.decode(split[i]) for i in range(len(split))]
    made = model.decode(mean[: len(some)], max_words=int(some.lengths.max()))
    found |= reconstruction(texts[: len(some)], made)
    try:
        train = posteriors.read_split(run, "train").first(PROBED)
    except InputError as error:
        console.warn(f"the linear models of z are left out, because the training split is missing: {error}")
        return found
    inferred = posteriors.infer(run, posteriors.split_batches(run, train), jax.random.key(0))  # for means alone
    train_mean = np.asarray(inferred.posteriors.q_hat.mean)
    known = [run.words.decode(train[i]) for i in range(len(train))]
    return found | knowledge(train_mean, known, mean, texts)

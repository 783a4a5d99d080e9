"""Predict labels from the posterior means with one linear layer and few labelled sentences (Table 4).

Example:
  python -m scalevae_jax.probe --workdir runs/ys --sizes 100,500,1000,2000,10000 --draws 5

Features are the means of q_hat (f_bar mu for Scale-VAE, running statistics for batch norm); the encoder is not trained.
Each draw takes --sizes labelled training sentences, without replacement. Accuracy is on the whole test split, in
percent: mean and standard deviation over the draws. `sgd` is the protocol of the papers, `logistic` scikit-learn's
logistic regression on standardised features, its C chosen on the validation split. A draw with only one label counts as
predicting that label. Writes probe.json into the workdir.
"""

import functools
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int
from rich.table import Table

from scalevae_jax.core.types import Array, InputError, Keys, Params
from scalevae_jax.data import corpus
from scalevae_jax.inference import flags, posteriors
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser, integer
from scalevae_jax.training import plateau, workdir

BATCH, CLIP, EPOCHS = 16, 5.0, 100
RULE = plateau.Rule(patience=2, decay=0.5, max_decays=5, min_epoch=0)
SIZES = (100, 500, 1000, 2000, 10000)
CS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse regularisation of logistic regression


class Labelled(NamedTuple):
    """Features and labels of sentences, and the names of the labels, where they have names."""

    x: Float[np.ndarray, "rows latent"]
    y: Int[np.ndarray, " rows"]
    names: tuple[str, ...] = ()

    def take(self, rows: np.ndarray) -> "Labelled":
        """Some of the rows."""
        return self._replace(x=self.x[rows], y=self.y[rows])


def features(model: TrainedModel, split: str) -> Labelled:
    """Posterior means (of q_hat) and labels of a split. Raises InputError if it has no labels."""
    data = model.run.settings.data
    rows = posteriors.read_split(model.run, split)
    if rows.labels is None:
        raise InputError(f"{data.path}: {split}: no labels; expected `label<TAB>sentence` in every line")
    return Labelled(np.asarray(model.infer(model.batches(rows)).posteriors.q_hat.mean), rows.labels, rows.names)


def subset(
    labels: np.ndarray, size: int, rng: np.random.Generator, even: bool = False, names: Sequence[str] = ()
) -> np.ndarray:
    """Random rows without replacement: among all rows, or with `even` equally many of each label."""
    if size > len(labels):
        raise InputError(f"--sizes {size}: the training split has {len(labels)} sentences")
    if not even:
        return rng.permutation(len(labels))[:size]
    classes = np.unique(labels)
    chosen: list[np.ndarray] = []
    for i, label in enumerate(classes):
        rows = rng.permutation(np.flatnonzero(labels == label))
        share = size // len(classes) + (i < size % len(classes))
        if share > len(rows):
            name = names[label] if names else label
            raise InputError(f"--sizes {size}: label {name} has {len(rows)} sentences, expected {share}")
        chosen.append(rows[:share])
    return np.concatenate(chosen)


@jax.jit
def _loss(params: Params, x: Array, y: Array, weight: Array) -> Float[Array, ""]:
    """Weighted mean of the cross entropy of the linear layer."""
    losses = optax.softmax_cross_entropy_with_integer_labels(x @ params["kernel"] + params["bias"], y)
    return jnp.sum(weight * losses) / jnp.sum(weight)


@jax.jit
def _epoch(params: Params, x: Array, y: Array, key: Keys, rate: Float[Array, ""]) -> Params:
    """SGD with clipped gradients over the batches of one random order; the last batch may be smaller."""
    rows, steps = x.shape[0], -(-x.shape[0] // BATCH)
    # The last batch is filled up with rows from the beginning of the order, which weigh nothing.
    order = jnp.resize(jax.random.permutation(key, rows), steps * BATCH).reshape(steps, BATCH)
    weight = (jnp.arange(steps * BATCH) < rows).reshape(steps, BATCH).astype(jnp.float32)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(rate))
    state = optimizer.init(params)  # empty, so that it need not be carried from step to step

    def step(params: Params, batch: tuple[Array, Array]) -> tuple[Params, None]:
        order, weight = batch
        gradient = jax.grad(_loss)(params, x[order], y[order], weight)
        updates, _ = optimizer.update(gradient, state, params)
        updated: Any = optax.apply_updates(params, updates)
        return updated, None

    return jax.lax.scan(step, params, (order, weight))[0]


def sgd(train: Labelled, valid: Labelled, seed: int, classes: int) -> Params:
    """One linear layer by the papers' protocol: SGD at rate 1, batches of 16, clip 5, at most 100 epochs.

    Two epochs without a better validation loss halve the rate and go back to the best weights; the fifth halving ends.
    The weights with the lowest validation loss are returned.
    """
    latent = train.x.shape[1]
    kernel_key, bias_key, order_key = jax.random.split(jax.random.key(seed), 3)
    # PyTorch's initial values of a linear layer, as in the papers' code
    draw = functools.partial(jax.random.uniform, minval=-(latent**-0.5), maxval=latent**-0.5)
    params = best = {"kernel": draw(kernel_key, (latent, classes)), "bias": draw(bias_key, (classes,))}
    state, ones = plateau.start(1.0), np.ones(len(valid.y), np.float32)
    for epoch in range(EPOCHS):
        key, rate = jax.random.fold_in(order_key, epoch), jnp.float32(state.learning_rate)
        params = _epoch(params, train.x, train.y, key, rate)
        state, decision = plateau.update(RULE, state, float(_loss(params, valid.x, valid.y, ones)), epoch)
        if plateau.Decision.BEST in decision:
            best = params
        if plateau.Decision.DECAY in decision:
            params = best
        if plateau.finished(RULE, state):
            break
    return best


def sgd_accuracy(train: Labelled, valid: Labelled, test: Labelled, seed: int, classes: int) -> float:
    """Accuracy of `sgd` on the test split, in percent."""
    params = sgd(train, valid, seed, classes)
    guess = np.argmax(test.x @ np.asarray(params["kernel"]) + np.asarray(params["bias"]), axis=1)
    return 100 * float(np.mean(guess == test.y))


def logistic_accuracy(train: Labelled, valid: Labelled, test: Labelled, seed: int, classes: int) -> float:
    """Accuracy of scikit-learn's logistic regression in percent; features are standardised by the training subset. It
    finds the classes in the subset itself."""
    if len(np.unique(train.y)) == 1:  # scikit-learn refuses to fit; every guess is that label
        return 100 * float(np.mean(test.y == train.y[0]))
    from sklearn.linear_model import LogisticRegression  # here, since importing scikit-learn takes a second
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    models = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000, random_state=seed)) for c in CS]
    best = max((m.fit(train.x, train.y) for m in models), key=lambda m: m.score(valid.x, valid.y))
    return 100 * float(best.score(test.x, test.y))


PROTOCOLS = {"sgd": sgd_accuracy, "logistic": logistic_accuracy}
Accuracies = dict[str, dict[int, list[float]]]  # percent, one a draw, by protocol and number of labelled sentences


def fitting(labels: np.ndarray, even: bool = False) -> list[int]:
    """Those of the default sizes that can be drawn from sentences of these labels; the largest possible one if none
    can."""
    largest = int(np.unique(labels, return_counts=True)[1].min()) * len(np.unique(labels)) if even else len(labels)
    return [size for size in SIZES if size <= largest] or [largest]


def probe(model: TrainedModel, sizes: list[int] | None, draws: int, seed: int = 0, even: bool = False) -> Accuracies:
    """Test accuracies in percent, `draws` for each protocol and size: {"sgd": {100: [..], ..}, "logistic": {..}}.

    Without `sizes`, those of SIZES that fit the training split.
    """
    train, valid, test = (features(model, split) for split in corpus.SPLITS)
    labels = np.unique(train.y)
    if len(labels) < 2 or not np.isin(np.concatenate([valid.y, test.y]), labels).all():
        path = model.run.settings.data.path
        raise InputError(f"{path}: expected two labels or more, all of them in the training split")
    names = tuple(train.names[label] if train.names else str(label) for label in labels)
    console.log(f"labels: {', '.join(names)}")
    train, valid, test = (part._replace(y=np.searchsorted(labels, part.y)) for part in (train, valid, test))
    if sizes is None:
        sizes = fitting(train.y, even)
        console.log(f"sizes {', '.join(map(str, sizes))}: the training split has {len(train.y):,} sentences")
    results: Accuracies = {name: {size: [] for size in sizes} for name in PROTOCOLS}
    subsets = [(size, draw) for size in sizes for draw in range(draws)]
    with console.Progress("probe: subset", len(subsets)) as progress:
        for done, (size, draw) in enumerate(subsets, 1):
            rows = subset(train.y, size, np.random.default_rng([seed, size, draw]), even, names)
            for name, accuracy in PROTOCOLS.items():
                results[name][size].append(accuracy(train.take(rows), valid, test, draw, len(labels)))
            progress.tick(done)
    return results


def _sizes(text: str) -> list[int]:
    return [integer(2)(size) for size in text.split(",")]


def parser() -> Parser:
    arguments = Parser("scalevae_jax.probe", __doc__)
    flags.add_model(arguments)
    flags.add_seed(arguments)
    default = f"by default those of {','.join(map(str, SIZES))} that fit the training split"
    arguments.add_argument("--sizes", type=_sizes, help=f"labelled sentences of each probe; {default}")
    arguments.add_argument("--draws", type=integer(1), default=5, help="random subsets of each size")
    arguments.add_switch("--split_even", help="draw equally many sentences of each label")
    return arguments


def _command(options: Namespace) -> None:
    model = flags.read_model(options)
    results = probe(model, options.sizes, options.draws, options.seed, options.split_even)
    path = model.run.workdir / "probe.json"
    settings = {"draws": options.draws, "seed": options.seed, "split_even": options.split_even}
    with storage.writing(path):
        storage.write_json(path, {"accuracy_percent": results, **settings, **workdir.provenance()})
    title = f"{model.run.settings.method.name}: accuracy on test, percent, {options.draws} draws"
    table = Table("protocol", *map(str, results["sgd"]), title=title, title_justify="left")
    for name, by_size in results.items():
        table.add_row(name, *(f"{np.mean(a):.1f} ± {np.std(a, ddof=len(a) > 1):.1f}" for a in by_size.values()))
    console.console.print(table)
    console.log(f"written to {path}")


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())

"""How much of the labels one linear layer reads off the posterior means, from few labelled sentences (Table 4).

Example:
  python -m scalevae_jax.probe --workdir runs/ys --sizes 100,500,1000,2000,10000 --draws 5

Features are the means of q_hat (f_bar mu for Scale-VAE, running statistics for batch norm), the encoder is left as it
is. Each draw takes so many labelled training sentences, without replacement; accuracy is that on the whole test split,
in percent, mean and standard deviation over the draws. `sgd` is the protocol of the papers, `logistic` scikit-learn's
logistic regression on standardised features, its C chosen on the validation split. Writes probe.json into the workdir.
"""

import functools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int
from rich.table import Table

from scalevae_jax.core.types import Array, InputError, Keys, Params
from scalevae_jax.data import corpus
from scalevae_jax.inference import flags
from scalevae_jax.inference.model import TrainedModel
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.training import plateau, workdir

BATCH, CLIP, EPOCHS = 16, 5.0, 100
RULE = plateau.Rule(patience=2, decay=0.5, max_decays=5, min_epoch=0)
CS = (0.01, 0.1, 1.0, 10.0, 100.0)  # of logistic regression


class Labelled(NamedTuple):
    """A split as features and classes; classes count from 0."""

    x: Float[np.ndarray, "rows latent"]
    y: Int[np.ndarray, " rows"]

    def take(self, rows: np.ndarray) -> "Labelled":
        """Some of its rows."""
        return Labelled(self.x[rows], self.y[rows])


def features(model: TrainedModel, split: str) -> Labelled:
    """Posterior means and labels of a split. Raises InputError where it has no labels."""
    data = model.run.settings.data
    rows = corpus.read(data, split, model.run.words)
    if rows.labels is None:
        raise InputError(f"{data.path}: {split}: no labels; a probe wants `label<TAB>sentence` in every line")
    return Labelled(np.asarray(model.infer(model.batches(rows)).posteriors.q_hat.mean), rows.labels)


def subset(labels: np.ndarray, size: int, rng: np.random.Generator, even: bool = False) -> np.ndarray:
    """Rows of a random subset without replacement: of all rows alike, or `even`, of as many of each class."""
    if size > len(labels):
        raise InputError(f"--sizes {size}: the training split has {len(labels)} sentences")
    if not even:
        return rng.permutation(len(labels))[:size]
    classes = np.unique(labels)
    shares = [size // len(classes) + (i < size % len(classes)) for i in range(len(classes))]
    rows = [rng.permutation(np.flatnonzero(labels == c)) for c in classes]
    for c, share, of in zip(classes, shares, rows, strict=True):
        if share > len(of):
            raise InputError(f"--sizes {size}: label {c} has {len(of)} sentences, {share} are wanted")
    return np.concatenate([of[:share] for share, of in zip(shares, rows, strict=True)])


def _loss(params: Params, x: Array, y: Array, weight: Array) -> Float[Array, ""]:
    losses = optax.softmax_cross_entropy_with_integer_labels(x @ params["kernel"] + params["bias"], y)
    return jnp.sum(weight * losses) / jnp.sum(weight)


@jax.jit
def _epoch(params: Params, x: Array, y: Array, key: Keys, rate: Float[Array, ""]) -> Params:
    """Plain SGD over the batches of one random order, gradients clipped; the last batch may be smaller."""
    rows, steps = x.shape[0], -(-x.shape[0] // BATCH)
    order = jnp.resize(jax.random.permutation(key, rows), steps * BATCH).reshape(steps, BATCH)
    weight = (jnp.arange(steps * BATCH) < rows).reshape(steps, BATCH).astype(jnp.float32)

    def one(params: Params, at: Any) -> tuple[Params, None]:
        order, weight = at
        gradient = jax.grad(_loss)(params, x[order], y[order], weight)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
        scale = rate * jnp.minimum(1.0, CLIP / (norm + 1e-6))
        return jax.tree.map(lambda p, g: p - scale * g, params, gradient), None

    return jax.lax.scan(one, params, (order, weight))[0]


_whole = jax.jit(_loss)


def sgd(train: Labelled, valid: Labelled, seed: int) -> Params:
    """One linear layer by the papers' protocol: SGD at rate 1, batches of 16, clip 5, at most 100 epochs; two bad
    epochs halve the rate and go back to the best weights, five halvings end; the best by validation loss is kept."""
    latent, classes = train.x.shape[1], int(valid.y.max()) + 1
    key = jax.random.key(seed)
    kernel_key, bias_key, order_key = jax.random.split(key, 3)
    draw = functools.partial(jax.random.uniform, minval=-(latent**-0.5), maxval=latent**-0.5)
    params = best = {"kernel": draw(kernel_key, (latent, classes)), "bias": draw(bias_key, (classes,))}
    state, ones = plateau.start(1.0), np.ones(len(valid.y), np.float32)
    for epoch in range(EPOCHS):
        params = _epoch(
            params, train.x, train.y, jax.random.fold_in(order_key, epoch), jnp.float32(state.learning_rate)
        )
        state, decision = plateau.update(RULE, state, float(_whole(params, valid.x, valid.y, ones)), epoch)
        if plateau.Decision.BEST in decision:
            best = params
        if plateau.Decision.DECAY in decision:
            params = best
        if plateau.finished(RULE, state):
            break
    return best


def sgd_accuracy(train: Labelled, valid: Labelled, test: Labelled, seed: int) -> float:
    """Percent of the test split that `sgd` gets right."""
    params = sgd(train, valid, seed)
    guess = np.argmax(test.x @ np.asarray(params["kernel"]) + np.asarray(params["bias"]), axis=1)
    return 100 * float(np.mean(guess == test.y))


def logistic_accuracy(train: Labelled, valid: Labelled, test: Labelled, seed: int) -> float:
    """Percent that scikit-learn's logistic regression gets right; features standardised by the training subset."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    models = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000, random_state=seed)) for c in CS]
    best = max((m.fit(train.x, train.y) for m in models), key=lambda m: m.score(valid.x, valid.y))
    return 100 * float(best.score(test.x, test.y))


Accuracies = dict[str, dict[int, list[float]]]  # percent, of each draw, by protocol and number of labels
PROTOCOLS = {"sgd": sgd_accuracy, "logistic": logistic_accuracy}


def probe(model: TrainedModel, sizes: list[int], draws: int, seed: int = 0, even: bool = False) -> Accuracies:
    """Accuracies in percent, [draws] for each protocol and size: {"sgd": {100: [..], ..}, "logistic": {..}}."""
    train, valid, test = (features(model, split) for split in corpus.SPLITS)
    known = np.unique(train.y)
    if len(known) < 2 or not np.isin(np.concatenate([valid.y, test.y]), known).all():
        raise InputError(f"{model.run.settings.data.path}: two labels or more, all of them in the training split")
    train, valid, test = (part._replace(y=np.searchsorted(known, part.y)) for part in (train, valid, test))
    results = {name: {size: [] for size in sizes} for name in PROTOCOLS}
    with console.Progress("probe: subset", len(sizes) * draws) as ticker:
        for done, (size, draw) in enumerate(((s, d) for s in sizes for d in range(draws)), 1):
            rows = subset(train.y, size, np.random.default_rng([seed, size, draw]), even)
            for name, accuracy in PROTOCOLS.items():
                results[name][size].append(accuracy(train.take(rows), valid, test, draw))
            ticker.tick(done)
    return results


FLAGS = Flags()
MODEL, SEED = flags.model(FLAGS), flags.seed(FLAGS)
SIZES = FLAGS.words("sizes", "100,500,1000,2000,10000", "labelled sentences of each probe")
DRAWS = FLAGS.integer("draws", 5, "random subsets of each size", 1)
EVEN = FLAGS.yes("split_even", False, "as many sentences of each label")


def _command() -> None:
    try:
        sizes = [int(size) for size in SIZES.value]
    except ValueError:
        raise InputError(f"--sizes {','.join(SIZES.value)}: numbers with commas between them are wanted") from None
    if not sizes or min(sizes) < 2:
        raise InputError(f"--sizes {','.join(SIZES.value)}: two labelled sentences at least")
    model = MODEL()
    results = probe(model, sizes, DRAWS.value, SEED.value, EVEN.value)
    path = model.run.workdir / "probe.json"
    settings = {"draws": DRAWS.value, "seed": SEED.value, "split_even": EVEN.value}
    storage.write_json(path, {"accuracy_percent": results, **settings, **workdir.provenance()})
    title = f"{model.run.settings.method.name}: accuracy on test, percent, {DRAWS.value} draws"
    table = Table("protocol", *map(str, sizes), title=title, title_justify="left")
    for name, by_size in results.items():
        table.add_row(name, *(f"{np.mean(a):.1f} ± {np.std(a, ddof=len(a) > 1):.1f}" for a in by_size.values()))
    console.console.print(table)
    console.log(f"written to {path}")


main = functools.partial(command.run, "scalevae_jax.probe", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())

"""The types that all subpackages share: a batch of sentences, a Gaussian, a pair of posteriors."""

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

if TYPE_CHECKING:
    Array = Any  # a static checker cannot check shapes; jaxtyping does, under pytest
else:
    Array = jax.Array | np.ndarray  # host arrays are accepted wherever device arrays are

Scalar = Float[Array, ""]
Keys = Key[Array, "..."]  # random keys: a single one, or one a row
Params = dict[str, Any]


class InputError(Exception):
    """The user's input is wrong. The message is one line that names the place and the remedy; the exit code is 2."""


class Inject(enum.Flag):
    """Where z enters the decoder. STATE and INPUT together are the network of section 4.1."""

    NONE = 0
    STATE = enum.auto()  # c0 = z W, h0 = tanh(c0)
    INPUT = enum.auto()  # z beside the word at every step
    OUTPUT = enum.auto()  # z beside the features at the vocabulary layer (Skip-VAE)


class Batch(NamedTuple):
    """Sentences `<s> w1 .. wT </s>`, padded to a common length and to a fixed number of rows.

    `row` keys every random draw, so that a draw depends neither on the batch nor on how many devices share it.
    """

    tokens: Int[Array, "batch time"]
    lengths: Int[Array, " batch"]  # tokens of the sentence, `<s>` and `</s>` counted
    weight: Float[Array, " batch"]  # 1 for a sentence, 0 for a row that only fills the batch
    row: Int[Array, " batch"]  # the sentence's place in its split

    @property
    def inputs(self) -> Int[Array, "batch steps"]:
        """What the decoder reads: all but the last token."""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> Int[Array, "batch steps"]:
        """What the decoder predicts: all but `<s>`."""
        return self.tokens[:, 1:]

    @property
    def mask(self) -> Float[Array, "batch steps"]:
        """1 where `targets` holds a real token of a real sentence, else 0."""
        steps = jnp.arange(1, self.tokens.shape[1])
        return jnp.where(steps < self.lengths[:, None], self.weight[:, None], 0.0)


class Gaussian(NamedTuple):
    """Diagonal Gaussians, one a row."""

    mean: Float[Array, "*rows latent"]
    logvar: Float[Array, "*rows latent"]


class Posteriors(NamedTuple):
    """The two posteriors of each sentence: q pays the KL, q_hat feeds the decoder.

    Every method but Scale-VAE has a factor of 1, and q_hat = q.
    """

    q: Gaussian
    factor: Float[Array, " latent"]  # f of Eq. 2, the same for all sentences

    @property
    def q_hat(self) -> Gaussian:
        """N(f mu, s2): the mean is scaled, the variance kept (Eq. 4 to 6)."""
        return Gaussian(self.q.mean * self.factor, self.q.logvar)


class StepContext(NamedTuple):
    """What a posterior transform or a penalty may know of the training step it is part of."""

    kl_weight: Scalar
    epoch: Int[Array, ""]  # counted from 1: the i of Algorithm 1
    weight: Float[Array, " batch"]  # of `Batch`
    keys: Keys  # one key a row, shape [batch]
    state: Any = ()  # of the posterior transform, after this batch; for penalties


def leaves_by_path(tree: Any, separator: str = "/") -> dict[str, Any]:
    """The leaves of a tree by their paths, such as `params/encoder/input`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=separator): leaf for path, leaf in leaves}

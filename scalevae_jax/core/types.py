"""The nouns that every other file speaks of: a batch of sentences, a Gaussian, a pair of posteriors."""

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

if TYPE_CHECKING:
    Array = Any  # jaxtyping checks arrays under pytest, shapes included
else:
    Array = jax.Array | np.ndarray  # host arrays go in wherever device arrays do

Scalar = Float[Array, ""]
Keys = Key[Array, "..."]  # one, or one a row
Params = dict[str, Any]


class InputError(Exception):
    """The user's input is wrong; the message is one line that names the place and the remedy. Exit code 2."""


class Inject(enum.Flag):
    """Where z enters the decoder."""

    NONE = 0
    STATE = enum.auto()  # c0 = z W, h0 = tanh(c0)
    INPUT = enum.auto()  # z beside the word at every step
    OUTPUT = enum.auto()  # z beside the features at the vocabulary layer (Skip-VAE)


class Batch(NamedTuple):
    """Sentences `<s> w1 .. wT </s>`, padded to one length, and to one number of rows.

    `weight` is 1 for a sentence and 0 for a row that only fills the batch; `row` is the sentence's place in its split,
    which keys every random draw, so that the draws depend neither on the batch nor on how many devices share it.
    """

    tokens: Int[Array, "batch time"]
    lengths: Int[Array, " batch"]  # tokens of the row, both marks counted
    weight: Float[Array, " batch"]
    row: Int[Array, " batch"]

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
        """1 where `targets` holds a real token of a real sentence."""
        steps = jnp.arange(1, self.tokens.shape[1])
        return jnp.where(steps < self.lengths[:, None], self.weight[:, None], 0.0)


class Gaussian(NamedTuple):
    """Diagonal Gaussians, one a row."""

    mean: Float[Array, "*rows latent"]
    logvar: Float[Array, "*rows latent"]


class Posteriors(NamedTuple):
    """q, which pays the KL, and the factor that makes q_hat of it, which feeds the decoder (Eq. 4 to 6)."""

    q: Gaussian
    factor: Float[Array, " latent"]

    @property
    def q_hat(self) -> Gaussian:
        """N(f mu, s2): the mean scaled, the variance kept."""
        return Gaussian(self.q.mean * self.factor, self.q.logvar)


class StepContext(NamedTuple):
    """What a posterior transform or a penalty may know of the step it is part of."""

    kl_weight: Scalar
    epoch: Int[Array, ""]  # counted from 1, as in Algorithm 1
    weight: Float[Array, " batch"]
    keys: Keys  # one key a row, shape [batch]


def leaves_by_path(tree: Any, separator: str = "/") -> dict[str, Any]:
    """The leaves of a tree by their paths, such as `params/encoder/input`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=separator): leaf for path, leaf in leaves}

"""What each sentence costs the model, in nats, `</s>` counted.

Examples:
  python -m scalevae_jax.score --workdir runs/demo --input sentences.txt --iw_samples 100 > scores.tsv
  echo "a man is playing a guitar ." | python -m scalevae_jax.score --workdir runs/demo

Columns: nll, -log p(x) by importance-weighted draws, a bound; rec, -log p(x|z) of one draw; kl, KL(q || N(0, I));
kl_model, KL(q_hat || the prior as sampled); tokens, the words and `</s>`; text. Of a language model nll is exact.
"""

import functools
import sys

from scalevae_jax.inference import flags
from scalevae_jax.runtime import command, console
from scalevae_jax.runtime.flags import Flags

FLAGS = Flags()
MODEL, TEXTS = flags.model(FLAGS), flags.texts(FLAGS)
OUT, SEED = flags.output(FLAGS), flags.seed(FLAGS)
IW_SAMPLES = FLAGS.integer("iw_samples", None, "draws a sentence; the run's own configuration says otherwise", 1)


def _command() -> None:
    model, texts = MODEL(), TEXTS()
    console.write_columns(model.score(texts, IW_SAMPLES.value, SEED.value) | {"text": texts}, OUT())


main = functools.partial(command.run, "scalevae_jax.score", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())

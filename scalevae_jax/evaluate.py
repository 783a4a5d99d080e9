"""Evaluate the best checkpoint of a run on a split: NLL in its readings, KL, mutual information, active units.

Example:
  python -m scalevae_jax.evaluate --workdir runs/demo --split test --iw_samples 500

Prints a table and writes eval_<split>.json into the workdir. All figures are nats a sentence, `</s>` counted and `<s>`
not; ppl is a token. `nll_paper` is what Table 1 reports for Scale-VAE, and no bound unless the factor is 1.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Table

from scalevae_jax import command, parallel, report, workdir
from scalevae_jax.measure import evaluate
from scalevae_jax.types import InputError

ROWS = (
    ("nll", "-log p(x), prior as sampled: the headline, a bound"),
    ("nll_std_error", "its standard error over sentences"),
    ("nll_unit_prior", "-log p(x), N(0, I) on the decoder's input: a bound"),
    ("nll_paper", "Table 1's reading: no bound unless the factor is 1"),
    ("ppl", "exp(nll a token)"),
    ("neg_elbo", "rec + kl_model, one draw"),
    ("neg_elbo_paper", "rec + kl, Eq. 7"),
    ("rec", "-log p(x|z)"),
    ("kl", "KL(q || N(0, I))"),
    ("kl_model", "KL(q_hat || N(0, f^2))"),
    ("mi", "mutual information under q_hat"),
    ("mi_ceiling", "the most that this many sentences can show"),
    ("au", "active units of q"),
    ("au_hat", "active units of q_hat"),
    ("mpd", "mutual posterior divergence of q_hat"),
    ("kl_aggregate", "KL(aggregated q_hat || N(0, f^2))"),
    ("std_mean_hat", "Std of f mu, mean of the dimensions"),
    ("factor_min", "of the scale factors"),
    ("factor_median", ""),
    ("factor_max", ""),
)


def show(result: dict[str, Any]) -> None:
    """The table on the screen."""
    of = f"{result['method']['name']}, {result['split']}, {result['examples']} sentences, {result['iw_samples']} draws"
    table = Table(title=f"{of} (nats a sentence)", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("what it is")
    for key, meaning in ROWS:
        if result[key] is not None:
            table.add_row(key, report.cell(result[key], 3), meaning)
    report.console.print(table)


FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "the folder of a run", flag_values=FLAGS)
FALLBACK = command.define_fallback(FLAGS)
SPLIT = flags.DEFINE_string("split", "test", "train, valid or test", flag_values=FLAGS)
IW_SAMPLES = flags.DEFINE_integer(
    "iw_samples", None, "draws a sentence; the run's own configuration says otherwise", 1, flag_values=FLAGS
)
LIMIT = flags.DEFINE_integer("limit", 0, "first so many sentences; 0 is all", 0, flag_values=FLAGS)


def _command() -> None:
    if WORKDIR.value is None:
        raise InputError("--workdir is wanted: the folder of a run (see --help)")
    parallel.start()
    run = workdir.load(Path(WORKDIR.value), FALLBACK.value)
    result = evaluate(run, SPLIT.value, IW_SAMPLES.value, LIMIT.value)
    show(result)
    report.say(f"written to {run.workdir / f'eval_{SPLIT.value}.json'}")
    report.say(f"next: python -m scalevae_jax.sample --workdir {run.workdir} --num 10")


def main() -> int:
    """The command."""
    return command.run("scalevae_jax.evaluate", _command, FLAGS, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())

"""Evaluate the best checkpoint of a run on a split: NLL in its readings, KL, mutual information, active units.

Examples:
  python -m scalevae_jax.evaluate --workdir runs/demo --split test --iw_samples 500
  python -m scalevae_jax.evaluate --workdir runs/demo --data.path=other_text --per_sentence scores.tsv

Prints a table and writes eval_<split>.json into the workdir. All figures are nats a sentence, `</s>` counted and `<s>`
not; ppl is a token. `nll_paper` is the reading nearest to what Table 1 reports for Scale-VAE, and no bound unless the
factor is 1. An evaluation that is stopped goes on where it was when the same command is given again.
"""

import functools
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from scalevae_jax import command, config, metrics, paper, processes, report, workdir
from scalevae_jax.flags import Flags
from scalevae_jax.linear import COMPUTE_DTYPES
from scalevae_jax.measure import Request, evaluate, output
from scalevae_jax.workdir import Run

ROWS = (
    ("nll", "-log p(x), prior as sampled: the headline, a bound"),
    ("nll_std_error", "its standard error over sentences"),
    ("nll_unit_prior", "-log p(x), N(0, I) on the decoder's input: a bound"),
    ("nll_fitted_prior", "-log p(x), prior fitted to training posteriors: a bound"),
    ("nll_paper", "Table 1's reading: no bound unless the factor is 1"),
    ("ppl", "exp(nll a token)"),
    ("neg_elbo", "rec + kl_model, one draw"),
    ("neg_elbo_paper", "rec + kl, Eq. 7"),
    ("rec", "-log p(x|z)"),
    ("kl", "KL(q || N(0, I))"),
    ("kl_model", "KL(q_hat || N(0, f^2))"),
    ("mi", "mutual information under q_hat"),
    ("mi_ceiling", "the most that this many sentences can show"),
    ("mi_analytic", "mi with the entropy of q_hat in closed form"),
    ("mi_batch32", "the same within 32 sentences, as in older tables"),
    ("au", "active units of q"),
    ("au_hat", "active units of q_hat"),
    ("mpd", "mutual posterior divergence of q_hat"),
    ("kl_aggregate", "KL(aggregated q_hat || N(0, f^2))"),
    ("std_mean_hat", "Std of f mu, mean of the dimensions"),
    ("factor_min", "of the scale factors"),
    ("factor_median", ""),
    ("factor_max", ""),
)
SENTENCE = ("nll", "rec", "kl", "tokens")  # of each, in a file: nats, and a count


def _paper(run: Run) -> paper.Row | None:
    settings = config.with_defaults(run.settings)
    return paper.row(settings.eval.paper, settings.method.name, config.hyperparameters(settings))


def show(run: Run, result: dict[str, Any]) -> None:
    """The table on the screen, with the paper's row where the configuration names its corpus."""
    reported, spread = _paper(run), result["spread"]
    of = f"{result['method']['name']}, {result['split']}, {result['examples']} sentences, {result['iw_samples']} draws"
    table = Table(title=f"{of} (nats a sentence)", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    if spread:
        table.add_column(f"Std of {result['repeats']}", justify="right")
    if reported:
        table.add_column("Table 1" + ("*" if reported.quoted else ""), justify="right")
    table.add_column("what it is")
    for key, meaning in ROWS:
        if result[key] is None:
            continue
        cells = [key, report.cell(result[key], 3)]
        if spread:
            cells.append(report.cell(spread.get(key), 3))
        if reported:
            cells.append(report.cell(reported.reported.get(key), 1) if key in paper.COLUMNS else "")
        table.add_row(*cells, meaning)
    report.console.print(table)
    if result["mi_at_ceiling"]:
        report.say("mi is at its ceiling: the true value may be larger")
    if result["kl_dims"]:
        largest = sorted(enumerate(result["kl_dims"]), key=lambda pair: -pair[1])[:8]
        report.say("kl by dimension, largest: " + ", ".join(f"{at}: {kl:.3f}" for at, kl in largest))


FLAGS = Flags()
WORKDIR = command.define_workdir(FLAGS)
processes.define_flags(FLAGS)
FALLBACK = command.define_fallback(FLAGS)
SPLIT = FLAGS.string("split", "test", "train, valid or test")
IW_SAMPLES = FLAGS.integer("iw_samples", None, "draws a sentence; the run's own configuration says otherwise", 1)
IW_CHUNK = FLAGS.integer("iw_chunk", None, "draws at once; without it, as many as eval.memory_mib holds", 1)
LIMIT = FLAGS.integer("limit", 0, "first so many sentences; 0 is all", 0)
REPEATS = FLAGS.integer("repeats", 1, "evaluations, each with its own draws", 1)
NAMED = FLAGS.words("readings", None, f"of {', '.join(metrics.READINGS)}; all without it")
DATA = FLAGS.string("data.path", None, "another text, read with the run's vocabulary")
PER_SENTENCE = FLAGS.string("per_sentence", None, "file for a line a sentence: nll, rec, kl (nats), tokens")
COMPUTE_DTYPE = FLAGS.choice("compute_dtype", None, COMPUTE_DTYPES, "of the operands of large products; the run's own")


def _command() -> None:
    folder = WORKDIR()
    processes.start(FLAGS)
    run = workdir.load(folder, FALLBACK.value)
    if COMPUTE_DTYPE.value:
        run = run.computing_in(COMPUTE_DTYPE.value)
    readings = tuple(NAMED.value) if NAMED.value else None
    request = Request(SPLIT.value, DATA.value, LIMIT.value, IW_SAMPLES.value, IW_CHUNK.value, REPEATS.value, readings)
    facts = {"model": run.digest, "configuration": config.to_json(run.settings), "request": str(request)}
    processes.agree(facts, FLAGS)
    evaluation = evaluate(run, request)
    show(run, evaluation.result)
    if PER_SENTENCE.value and processes.first():
        columns = {key: x for key in SENTENCE if (x := evaluation.sentences.get(key)) is not None}
        report.write_columns(columns, Path(PER_SENTENCE.value), "--per_sentence")
        report.say(f"a line a sentence in {PER_SENTENCE.value}")
    report.say(f"written to {run.workdir / output(request)}")
    report.say(f"next: python -m scalevae_jax.sample --workdir {run.workdir} --num 10")


main = functools.partial(command.run, "scalevae_jax.evaluate", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())

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

from scalevae_jax import config
from scalevae_jax.core.linear import COMPUTE_DTYPES
from scalevae_jax.inference import load, metrics
from scalevae_jax.inference.evaluate import ROWS, EvaluationRequest, evaluate, output
from scalevae_jax.inference.load import LoadedModel
from scalevae_jax.reproduce import paper
from scalevae_jax.runtime import command, console, processes
from scalevae_jax.runtime.flags import Flags

SENTENCE = ("nll", "rec", "kl", "tokens")  # of each, in a file: nats, and a count


def _paper(run: LoadedModel) -> paper.Row | None:
    settings = config.with_defaults(run.settings)
    return paper.row(settings.eval.paper, settings.method.name, config.hyperparameters(settings))


def show(run: LoadedModel, result: dict[str, Any]) -> None:
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
        cells = [key, console.format_number(result[key], 3)]
        if spread:
            cells.append(console.format_number(spread.get(key), 3))
        if reported:
            cells.append(console.format_number(reported.reported.get(key), 1) if key in paper.COLUMNS else "")
        table.add_row(*cells, meaning)
    console.console.print(table)
    if result["mi_at_ceiling"]:
        console.log("mi is at its ceiling: the true value may be larger")
    if result["kl_dims"]:
        largest = sorted(enumerate(result["kl_dims"]), key=lambda pair: -pair[1])[:8]
        console.log("kl by dimension, largest: " + ", ".join(f"{at}: {kl:.3f}" for at, kl in largest))


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
    run = load.load(folder, FALLBACK.value)
    if COMPUTE_DTYPE.value:
        run = run.computing_in(COMPUTE_DTYPE.value)
    readings = tuple(NAMED.value) if NAMED.value else None
    request = EvaluationRequest(
        SPLIT.value, DATA.value, LIMIT.value, IW_SAMPLES.value, IW_CHUNK.value, REPEATS.value, readings
    )
    facts = {"model": run.digest, "configuration": config.to_json(run.settings), "request": str(request)}
    processes.assert_same(facts, FLAGS.initialization_timeout)
    evaluation = evaluate(run, request)
    show(run, evaluation.result)
    if PER_SENTENCE.value and processes.is_main_process():
        columns = {key: x for key in SENTENCE if (x := evaluation.sentences.get(key)) is not None}
        console.write_columns(columns, Path(PER_SENTENCE.value), "--per_sentence")
        console.log(f"a line a sentence in {PER_SENTENCE.value}")
    console.log(f"written to {run.workdir / output(request)}")
    console.log(f"next: python -m scalevae_jax.sample --workdir {run.workdir} --num 10")


main = functools.partial(command.run, "scalevae_jax.evaluate", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())

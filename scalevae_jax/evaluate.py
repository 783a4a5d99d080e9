"""Evaluate the best checkpoint of a run on a split: estimates of NLL, KL, mutual information, active units.

Examples:
  python -m scalevae_jax.evaluate --workdir runs/demo --split test --iw_samples 500
  python -m scalevae_jax.evaluate --workdir runs/demo --data.path=other_text --per_sentence scores.tsv

Prints a table and writes eval_<split>.json into the workdir; the first N sentences (--limit N) and another text
(--data.path) have files of their own. Losses are in nats a sentence, counting `</s>` but not `<s>`; ppl is per token.
`nll_paper` follows the paper's text most closely, and is not a bound unless the factor is 1. `nll` is a bound. The
smaller its effective sample size (ess), the looser it is. More draws (--iw_samples) or a wider proposal
(--proposal_scale) tighten it; --iw_samples auto doubles the draws until the bound settles. A .tsv file beside the .json
has the NLL terms of each sentence. The same command resumes a stopped evaluation.
"""

import functools
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.table import Table

from scalevae_jax import config
from scalevae_jax.core.linear import COMPUTE_DTYPES
from scalevae_jax.inference import flags, load, metrics, priors
from scalevae_jax.inference.evaluate import ROWS, EvaluationRequest, evaluate, output
from scalevae_jax.inference.importance import AUTO, AUTO_FIRST, AUTO_MOST, SETTLED
from scalevae_jax.runtime import command, console, processes
from scalevae_jax.runtime.command import Parser, integer, number

FAR = 1.0  # nats between the method's own prior and a fitted one, from which on the next command samples from that
LOOSE = 5.0  # effective draws below which `nll` is mostly the weight of a few lucky ones
PER_SENTENCE = ("nll", "rec", "kl", "tokens")  # columns of the file of --per_sentence


def prior_to_sample(result: dict[str, Any]) -> str:
    """The prior whose sentences are most like the text: a fitted one where the method's own has a far higher bound."""
    if result.get("nll") is None:
        return "model"
    best = metrics.tightest(result)
    return priors.FITTED.get(best, "model") if result["nll"] - result[best] > FAR else "model"


def show(result: dict[str, Any]) -> None:
    """Print the table of measures."""
    spread = result["spread"]
    what = f"{result['method']['name']} of epoch {result['epoch']}, {result['split']}, {result['examples']} sentences"
    table = Table(title=f"{what}, {result['iw_samples']} draws (nats a sentence)", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    if spread:
        table.add_column(f"Std of {result['repeats']}", justify="right")
    table.add_column("what it is")
    for key, meaning in ROWS:
        if result.get(key) is None:
            continue
        cells = [key, console.format_number(result[key], 3)]
        if spread:
            cells.append(console.format_number(spread.get(key), 3))
        table.add_row(*cells, meaning)
    console.console.print(table)
    if result["ess"] is not None and result["ess"] < min(LOOSE, 0.9 * result["iw_samples"]):
        draws = f"{result['ess']:.1f} of {result['iw_samples']} draws count"
        console.log(f"nll is a loose bound: {draws}; more --iw_samples or --proposal_scale 1.5 may tighten it")
    if result.get("exact") is not None and result["content_recall"] is None:
        console.log("no content_recall: no word lies outside the 200 commonest")
    if len(result["nll_by_draws"]) > 1 and result["ess"] is not None:
        bounds = ", ".join(f"{bound:.3f} with {draws}" for draws, bound in result["nll_by_draws"].items())
        console.log(f"nll by number of draws: {bounds}")
    if (prior := prior_to_sample(result)) != "model":
        gap = result["nll"] - result[metrics.tightest(result)]
        console.log(f"nll is {gap:.1f} nats above that of the {prior} prior: sample with --prior {prior}")
    if result["mi_at_ceiling"]:
        console.log("mi is at its ceiling: the true value may be larger")
    if result["kl_dims"]:
        largest = sorted(enumerate(result["kl_dims"]), key=lambda pair: -pair[1])[:8]
        console.log("kl by dimension (the first is 0), largest: " + ", ".join(f"{i}: {kl:.3f}" for i, kl in largest))


def parser() -> Parser:
    arguments = Parser("scalevae_jax.evaluate", __doc__)
    flags.add_model(arguments)
    add = arguments.add_argument
    add("--split", default="test", help="train, valid or test")
    auto = f"{AUTO} doubles them from {AUTO_FIRST} until nll moves by less than {SETTLED} nats, up to {AUTO_MOST}"
    add("--iw_samples", type=flags.draws, help=f"draws a sentence; {auto}; by default eval.iw_samples")
    add("--iw_chunk", type=integer(1), help="draws at once; by default as many as eval.memory_mib holds")
    scale = "standard deviations of the proposal, in multiples of those of q_hat; a little over 1 may tighten nll"
    add("--proposal_scale", type=number(1.0, 10.0), default=1.0, help=scale)
    add("--limit", type=integer(0), default=0, help="evaluate only the first LIMIT sentences; 0 means all")
    add("--repeats", type=integer(1), default=1, help="number of evaluations, each with its own draws")
    add("--estimates", type=command.names, help=f"some of {', '.join(metrics.ESTIMATES)}; by default all")
    add(
        "--data.path", dest="data_path", metavar="PATH", help="another text, read with the run's vocabulary and columns"
    )
    add("--per_sentence", metavar="FILE", help="write one line a sentence: nll, rec, kl (nats), tokens")
    arguments.add_switch("--contents", True, "measure reconstructions, and what z tells about a sentence")
    add("--compute_dtype", choices=COMPUTE_DTYPES, help="type of the operands of large products; by default the run's")
    processes.add_arguments(arguments)
    return arguments


def _command(options: Namespace) -> None:
    processes.start(options)
    run = load.load(options.workdir, options.fallback)
    if options.compute_dtype:
        run = run.computing_in(options.compute_dtype)
    estimates = tuple(options.estimates) if options.estimates else None
    request = EvaluationRequest(
        options.split,
        options.data_path,
        options.limit,
        options.iw_samples,
        options.iw_chunk,
        options.repeats,
        estimates,
        options.proposal_scale,
        options.contents,
    )
    facts = {"model": run.digest, "configuration": config.to_json(run.settings), "request": str(request)}
    processes.assert_same(facts, options.initialization_timeout)
    evaluation = evaluate(run, request)
    show(evaluation.result)
    if options.per_sentence and processes.is_main_process():
        columns = {key: x for key in PER_SENTENCE if (x := evaluation.sentences.get(key)) is not None}
        console.write_columns(columns, Path(options.per_sentence), "--per_sentence")
        console.log(f"one line a sentence in {options.per_sentence}")
    console.log(f"written to {run.workdir / output(request)}")
    arguments = f"--num 10 --prior {prior_to_sample(evaluation.result)}"
    console.log(flags.next_step("sample", arguments, run.settings.method.name, run.workdir))


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())

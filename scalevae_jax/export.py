"""Write a trained model as files that any program can read, without this package and without orbax.

Example:
  python -m scalevae_jax.export --workdir runs/demo --out exported/demo --data_licence "CC BY-SA 4.0"

The folder holds model.safetensors (weights, named as in the package), config.json, vocab.txt (tokenizer.json for BPE),
fitted_prior.json (Gaussians and a mixture fitted to the aggregated posterior, if the training data are available),
README.md (a model card) and SHA256SUMS. `scalevae_jax.load(folder)` reads it, and so does every command that takes
--workdir.
"""

import functools
import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from scalevae_jax import config
from scalevae_jax.core.types import InputError
from scalevae_jax.data import files, tokenizer
from scalevae_jax.evaluate import prior_to_sample
from scalevae_jax.inference import flags, load, priors
from scalevae_jax.inference.evaluate import ROWS, EvaluationRequest, output
from scalevae_jax.inference.load import FORMAT, SUMS, WEIGHTS, LoadedModel, file_digest, leaves_by_name
from scalevae_jax.runtime import command, console, storage
from scalevae_jax.runtime.command import Parser
from scalevae_jax.training import workdir
from scalevae_jax.training.workdir import CONFIG

CARD, DATA_LICENSE = "README.md", "DATA_LICENSE"


def save(run: LoadedModel, out: Path, data_licence: str = "") -> None:
    """Write the exported folder, whole or not at all. Raises InputError if `out` is not empty or cannot be written."""
    with storage.writing(f"--out {out}"):
        if out.exists() and any(out.iterdir()):
            raise InputError(f"--out {out}: not empty; choose a new folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            part = Path(folder) / out.name
            part.mkdir()
            _write(run, part, data_licence)
            part.replace(out)


def _write(run: LoadedModel, out: Path, data_licence: str) -> None:
    tensors = {name: np.asarray(x) for name, x in leaves_by_name(run.params, run.method_state).items()}
    metadata = {"format": FORMAT, "epoch": str(run.epoch)}
    # A reader without this package needs the factor, which a method may compute from several arrays of its state.
    weights = safetensors.numpy.save(tensors | {"factor": np.asarray(run.factor)}, metadata)
    (out / WEIGHTS).write_bytes(_in_order(weights))
    (out / CONFIG).write_text(config.to_json(run.settings), encoding="utf-8")
    run.words.save(out / tokenizer.FILES[run.settings.data.tokenizer])
    if run.model.latent:
        try:
            priors.fitted(run)
            kept = run.workdir / priors.FILE
            if kept.is_file():  # a folder that cannot be written keeps none
                (out / priors.FILE).write_bytes(kept.read_bytes())
        except InputError as error:
            console.warn(f"{priors.FILE} is left out: {error}")
    try:
        licence = files.place(run.settings.data) / "LICENSE"
        if licence.is_file():
            data_licence = data_licence or f"see {DATA_LICENSE}"
            (out / DATA_LICENSE).write_bytes(licence.read_bytes())
    except InputError as error:
        console.warn(f"a LICENSE beside the data is left out: {error}")
    (out / CARD).write_text(card(run, file_digest(out / WEIGHTS), data_licence), encoding="utf-8")
    sums = [f"{file_digest(path)}  {path.name}\n" for path in sorted(out.iterdir())]
    (out / SUMS).write_text("".join(sums), encoding="utf-8")


def _in_order(weights: bytes) -> bytes:
    """The same file with its header in alphabetical order: safetensors gives metadata a random one, and so two exports
    of a model would have two digests. The format is 8 bytes of the header's length, the header in JSON, the arrays."""
    start = 8 + int.from_bytes(weights[:8], "little")
    header = json.dumps(json.loads(weights[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the arrays begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + weights[start:]


def _rows(rows: Iterable[Iterable[Any]]) -> str:
    """Lines of a table in Markdown."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _measures(run: LoadedModel) -> str:
    """The evaluations of this epoch on whole splits, one a column."""
    results: dict[str, Any] = {}
    for path in sorted(run.workdir.glob("eval_*.json")):
        result = storage.read_json(path)
        if result.get("limit"):
            console.warn(f"{path.name} is not in the model card: it covers only the first {result['limit']} sentences")
        elif result.get("epoch") == run.epoch:
            name = path.stem.removeprefix("eval_")
            results[f"{name} ({result['examples']} sentences, {result['iw_samples']} draws)"] = result
        else:
            console.warn(f"{path.name} is not in the model card: it does not belong to the exported epoch {run.epoch}")
    if not results:
        return "None: the run was not evaluated before the export."
    table = [("measure", *results, "what it is"), ("---",) * (len(results) + 2)]
    for key, meaning in ROWS:
        values = [result.get(key) for result in results.values()]
        if any(value is not None for value in values):
            table.append((key, *(console.format_number(value, 3) for value in values), meaning))
    return _rows(table)


def card(run: LoadedModel, weights: str, data_licence: str) -> str:
    """The model card, in Markdown; `weights` is the sha256 of the weights."""
    data, record, settings = run.settings.data, workdir.read_record(run.workdir), config.with_defaults(run.settings)
    kinds = {
        "words": "lower-cased and split into words by NLTK" if data.raw else "with words separated by spaces",
        "bpe": "as it stands, split into subwords by byte-level BPE",
        "characters": "as it stands, split into characters",
    }
    kind, file, unit = kinds[data.tokenizer], tokenizer.FILES[data.tokenizer], tokenizer.UNITS[data.tokenizer]
    ids = f"line n, counted from 0, is the {unit[:-1]} of id n" if file == "vocab.txt" else "`model.vocab` has the ids"
    network = f"embedding {settings.model.embedding}, hidden {settings.model.hidden}, latent {run.model.latent}"
    return f"""# {settings.method.name}, a variational autoencoder of sentences

An LSTM encoder and an LSTM decoder with a Gaussian latent variable between them, trained with the method
`{settings.method.name}` of scalevae_jax {record["versions"]["scalevae_jax"]}.

## Data

`{data.path or data.name}`, one sentence a line, {kind}. The vocabulary has {len(run.words):,} {unit}, special symbols
included. Licence of the data: {data_licence or "not stated by the person who exported the model"}.

| split | sha256 |
|---|---|
{_rows(record["data"].items())}

## Method

{network}; seed {settings.train.seed}; exported after epoch {run.epoch}, the best by validation loss.

| hyperparameter | value |
|---|---|
{_rows(config.hyperparameters(settings).items()) or "| none | |"}

## Measures

{_measures(run)}

Losses are in nats a sentence, counting `</s>` but not `<s>`; ppl is per token. `nll` and those named after a prior are
upper bounds on -log p(x). `nll_paper` is the estimate of the Scale-VAE paper. It is not a bound unless the factor is 1,
so do not compare it with the others.

## Intended use

Research on latent variables of text: reconstruction, interpolation, sampling, and linear classification of sentences
like those of the training data. This is a small model. Its sentences repeat what the data contain, errors and
prejudices included, and they state nothing true. Do not use it where a sentence has consequences.

## Files

`{WEIGHTS}` (sha256 `{weights}`), `{CONFIG}` and `{file}` ({ids}). `{SUMS}`
lists the digests of all files. Read them with `scalevae_jax.load(folder)`, or with NumPy alone, as docs/using.md of
scalevae_jax shows.
"""


def parser() -> Parser:
    arguments = Parser("scalevae_jax.export", __doc__)
    flags.add_model(arguments)
    arguments.add_argument(
        "--out", type=command.local, required=True, metavar="DIR", help="the folder to write; new or empty"
    )
    arguments.add_argument(
        "--data_licence",
        default="",
        help="licence of the training data, for the model card; a LICENSE beside the data is copied",
    )
    return arguments


def _command(options: Namespace) -> None:
    out = options.out
    run = load.load(options.workdir, options.fallback)
    save(run, out, options.data_licence)
    console.log(f"written to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    console.log(f"sha256 of {WEIGHTS}: {file_digest(out / WEIGHTS)}")
    measured = run.workdir / output(EvaluationRequest())
    prior = prior_to_sample(storage.read_json(measured) if measured.is_file() else {})
    console.log(flags.next_step("sample", f"--num 10 --prior {prior}", run.settings.method.name, out))


main = functools.partial(command.run, _command, parser)


if __name__ == "__main__":
    sys.exit(main())

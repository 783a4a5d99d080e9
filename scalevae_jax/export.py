"""Write a trained model as files that any program can read, without this package and without orbax.

Example:
  python -m scalevae_jax.export --workdir runs/demo --out exported/demo --data_licence "CC BY-SA 4.0"

The folder holds model.safetensors (weights, named as in the package), config.json, vocab.txt, fitted_prior.json (a
Gaussian fitted to the aggregated posterior, where the training data are at hand), README.md (a model card) and
SHA256SUMS. `scalevae_jax.load(folder)` reads it, and so does every command that takes --workdir.
"""

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from scalevae_jax import config
from scalevae_jax.core.types import InputError
from scalevae_jax.data import source
from scalevae_jax.inference import load, posteriors
from scalevae_jax.inference.evaluate import ROWS
from scalevae_jax.inference.load import (
    CARD,
    DATA_LICENSE,
    FORMAT,
    SUMS,
    WEIGHTS,
    LoadedModel,
    file_digest,
    leaves_by_name,
)
from scalevae_jax.runtime import command, console, devices, storage
from scalevae_jax.runtime.flags import Flags
from scalevae_jax.training import workdir
from scalevae_jax.training.workdir import CONFIG, VOCABULARY


def save(run: LoadedModel, out: Path, data_licence: str = "") -> None:
    """Write the exported folder, whole or not at all. Raises InputError where `out` holds something already."""
    try:
        if out.exists() and any(out.iterdir()):
            raise InputError(f"--out {out}: not empty; choose a new folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            part = Path(folder) / out.name
            part.mkdir()
            _write(run, part, data_licence)
            part.replace(out)
    except OSError as error:
        raise InputError(f"--out {out}: can not be made: {error.strerror or error}") from error


def _write(run: LoadedModel, out: Path, data_licence: str) -> None:
    tensors = {name: np.asarray(x) for name, x in leaves_by_name(run.params, run.method_state).items()}
    about = {
        "format": FORMAT,
        "epoch": str(run.epoch),
        "steps_per_epoch": str(workdir.read_record(run.workdir)["steps_per_epoch"]),
    }
    save_file(tensors | {"factor": np.asarray(run.factor)}, out / WEIGHTS, about)
    (out / CONFIG).write_text(config.to_json(run.settings), encoding="utf-8")
    (out / WEIGHTS).chmod((out / CONFIG).stat().st_mode)  # which safetensors keeps to the user
    run.words.save(out / VOCABULARY)
    if run.model.latent:
        try:
            posteriors.fitted_prior(run)
            (out / posteriors.FITTED_PRIOR).write_bytes((run.workdir / posteriors.FITTED_PRIOR).read_bytes())
        except InputError as error:
            console.warn(f"no {posteriors.FITTED_PRIOR} ({error})")
    beside = source.place(run.settings.data) / "LICENSE"
    if beside.is_file():
        data_licence = data_licence or f"see {DATA_LICENSE}"
        (out / DATA_LICENSE).write_bytes(beside.read_bytes())
    (out / CARD).write_text(card(run, file_digest(out / WEIGHTS), data_licence), encoding="utf-8")
    files = sorted(path for path in out.iterdir() if path.name != SUMS)
    (out / SUMS).write_text("".join(f"{file_digest(path)}  {path.name}\n" for path in files), encoding="utf-8")


def _rows(pairs: Any) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in pair] for pair in pairs]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def card(run: LoadedModel, weights: str, data_licence: str) -> str:
    """The model card, in Markdown."""
    data, record, settings = run.settings.data, workdir.read_record(run.workdir), config.with_defaults(run.settings)
    measured = {}
    for path in sorted(run.workdir.glob("eval_*.json")):
        found = storage.read_json(path)
        if found.get("epoch") == run.epoch:
            measured[path.stem.removeprefix("eval_")] = found
        else:
            console.warn(f"{path.name} is not of epoch {run.epoch}, which is exported: not in the card")
    words = "lower-cased and cut into words by NLTK" if data.raw else "words separated by spaces"
    columns = [f"{name} ({m['examples']} sentences, {m['iw_samples']} draws)" for name, m in measured.items()]
    table = [("measure", *columns, "what it is"), ("---",) * (len(columns) + 2)]
    table += [(key, *(console.format_number(m[key], 3) for m in measured.values()), meaning) for key, meaning in ROWS]
    network = f"embedding {settings.model.embedding}, hidden {settings.model.hidden}, latent {run.model.latent}"
    return f"""# {settings.method.name}, a variational autoencoder of sentences

An LSTM encoder and an LSTM decoder with a Gaussian variable between them, trained by scalevae_jax
{record["versions"]["scalevae_jax"]} with the method `{settings.method.name}`.

## Data

`{data.path or data.name}`, one sentence a line, {words}; vocabulary of {len(run.words):,} words, special symbols
counted. Licence of the data: {data_licence or "not stated by who exported the model"}.

| split | sha256 |
|---|---|
{_rows(record["data"].items())}

## Method

{network}; seed {settings.train.seed}; best of the epochs by validation loss: {run.epoch}.

| hyperparameter | value |
|---|---|
{_rows(config.hyperparameters(settings).items()) or "| none | |"}

## Measures

{_rows(table) if measured else "None: the run was not evaluated before the export."}

Nats a sentence, `</s>` counted and `<s>` not; ppl is a token. -log p(x) is bounded by `nll`, `nll_unit_prior` and
`nll_fitted_prior`. `nll_paper` is the reading of the Scale-VAE paper, and no bound unless the factor is 1: do not
compare it with others.

## Intended use

Study of latent variables of text: reconstruction, interpolation, sampling, linear classification of sentences like
those of the training data. The sentences are those of a small model: they repeat what its data hold, errors and
prejudice of the data included, and state nothing true. Not for use where a sentence has consequences.

## Files

`{WEIGHTS}` (sha256 `{weights}`), `{CONFIG}`, `{VOCABULARY}` (line n, from 0, is the word of id n); all digests in
`{SUMS}`. Read them with `scalevae_jax.load(folder)`, or with NumPy alone as docs/using.md of scalevae_jax shows.
"""


FLAGS = Flags()
WORKDIR = command.define_workdir(FLAGS)
OUT = FLAGS.string("out", None, "the folder to write; new or empty")
DATA_LICENCE = FLAGS.string(
    "data_licence", "", "licence of the training data, for the model card; a LICENSE beside the data is copied"
)


def _command() -> None:
    folder = WORKDIR()
    if OUT.value is None:
        raise InputError("--out is wanted: the folder to write (see --help)")
    devices.start()
    out = Path(OUT.value)
    save(load.load(folder), out, DATA_LICENCE.value)
    console.log(f"written to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())))
    console.log(f"sha256 of {WEIGHTS}: {file_digest(out / WEIGHTS)}")
    console.log(f"next: python -m scalevae_jax.sample --workdir {out} --num 10")


main = functools.partial(command.run, "scalevae_jax.export", _command, FLAGS, __doc__)

if __name__ == "__main__":
    sys.exit(main())

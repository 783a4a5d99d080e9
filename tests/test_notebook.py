"""The notebook of the latent space, run small (`make notebook` runs it whole)."""

import contextlib
import io
import json
import re
import runpy
from pathlib import Path

from matplotlib import pyplot

from scalevae_jax.data import synthetic

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/latent_space.py"
SMALL = {"EPOCHS, MAX_STEPS": "1, 25", "DRAWS": "2", "SIDE": "3"}


def test_it_runs_small(tmp_path, monkeypatch):
    text = NOTEBOOK.read_text()
    for names, values in SMALL.items():
        text, replaced = re.subn(rf"^{names} = [^#\n]*", f"{names} = {values}  ", text, flags=re.MULTILINE)
        assert replaced == 1, names
    (tmp_path / "small.py").write_text(text)
    monkeypatch.setattr(synthetic, "SIZES", {"train": 320, "valid": 40, "test": 40})
    monkeypatch.setattr(synthetic, "splits", synthetic.splits.__wrapped__)  # the corpus of these sizes is not kept
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PICTURES", str(tmp_path))
    printed = io.StringIO()
    with pyplot.rc_context({"backend": "agg"}), contextlib.redirect_stdout(printed):
        runpy.run_path(str(tmp_path / "small.py"))
        pyplot.close("all")
    assert {picture.stem for picture in tmp_path.glob("*.png")} == {"kl", "means", "sentences"}
    for name in ("vae", "scale_vae"):
        assert re.search(rf"^{name} +kl \d.* purity 0\.\d\d$", printed.getvalue(), re.MULTILINE)
        assert re.search(rf"^{name} +nll_fitted_prior +\d+\.\d\d$", printed.getvalue(), re.MULTILINE)
        assert f"{name}, 9 points" in printed.getvalue()


def test_the_notebook_that_is_shipped_is_the_script_with_its_output():
    cells = json.loads(NOTEBOOK.with_suffix(".ipynb").read_text())["cells"]
    assert len(cells) == NOTEBOOK.read_text().count("\n# %%") + 1
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(source in NOTEBOOK.read_text() for source in code)
    shown = [data for cell in cells for output in cell.get("outputs", []) for data in output.get("data", ())]
    assert shown.count("image/png") == 3

"""The notebook of the latent space, run small (`make notebook` runs it whole); its page shows the code it has."""

import contextlib
import io
import re
import runpy
from pathlib import Path

from matplotlib import pyplot

from scalevae_jax.data import synthetic

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "notebooks" / "latent_space.py"
PICTURES = {"kl", "means", "sentences", "readings"}
SMALL = {"EPOCHS, MAX_STEPS": "1, 25", "DRAWS": "2", "SCORED, SPACING": "3, 2.0", "SIDE": "3"}


def run(path: Path, pictures: Path, monkeypatch) -> tuple[dict, str]:
    """The names that the notebook leaves, and what it prints."""
    monkeypatch.setenv("PICTURES", str(pictures))
    printed = io.StringIO()
    with pyplot.rc_context({"backend": "agg"}), contextlib.redirect_stdout(printed):
        left = runpy.run_path(str(path))
        pyplot.close("all")
    assert {picture.stem for picture in pictures.glob("*.png")} == PICTURES
    return left, printed.getvalue()


def test_it_runs_small(tmp_path, monkeypatch):
    text = NOTEBOOK.read_text()
    for names, values in SMALL.items():
        text, found = re.subn(rf"^{names} = [^#\n]*", f"{names} = {values}  ", text, flags=re.MULTILINE)
        assert found == 1, names
    (tmp_path / "small.py").write_text(text)
    monkeypatch.setattr(synthetic, "SIZES", {"train": 320, "valid": 40, "test": 40})
    monkeypatch.setattr(synthetic, "splits", synthetic.splits.__wrapped__)  # and the corpus of these is not kept
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    left, printed = run(tmp_path / "small.py", tmp_path, monkeypatch)
    assert left["floor"].shape == (3,)
    for name in ("vae", "scale_vae"):
        assert re.search(rf"^{name} +kl \d.* purity 0\.\d\d$", printed, re.MULTILINE)
        assert re.search(rf"^{name} +nll_fitted_prior +\d+\.\d\d, above it by +\d+\.\d\d", printed, re.MULTILINE)
        assert f"{name}, 9 points" in printed


def test_its_page_has_its_cells_and_pictures():
    cells = re.split(r"^# %%(.*)\n", NOTEBOOK.read_text(), flags=re.MULTILINE)[1:]
    text, code = (
        [c for kind, c in zip(cells[::2], cells[1::2], strict=True) if bool(kind) is is_text]
        for is_text in (True, False)
    )
    page = (DOCS / "latent_space.md").read_text()
    assert [block.strip() for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)] == [c.strip() for c in code]
    for cell in text:
        assert re.sub(r"^# ?", "", cell, flags=re.MULTILINE).strip() in page
    shown = re.findall(r"\]\((images/latent_space_\w+\.png)\)", page)
    assert len(shown) == len(PICTURES)
    assert all((DOCS / picture).is_file() for picture in shown)

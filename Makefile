PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Compiled functions are kept between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: install demo test test-slow coverage mutants lint docs notebook bench lock clean

install: $(INSTALLED)

# "compat", since the folder of the checkout hides other editable installs from programs that start beside it
$(INSTALLED): requirements.lock pyproject.toml
	@echo "installing into $(VENV): about 2 GB of packages, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . \
	    --config-settings editable_mode=compat
	touch $@

demo: install  ## train, evaluate and sample Scale-VAE on the embedded captions
	$(BIN)/python -m scalevae_jax.train --config demo

test: install  ## the fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: install  ## the tests that take minutes
	$(BIN)/python -m pytest -n 3 --dist worksteal -m slow

coverage: install  ## which lines of the package all tests reach, those of processes that they start included
	$(BIN)/python -m pytest -n 2 --cov --cov-fail-under 95

mutants: install  ## the changes of one operator, in FILES or in all that it knows, that no test notices; hours
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	$(BIN)/python tests/mutants.py $(FILES)

lint: install  ## format, lint, types, shell, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck launch/*.sh launch/*.sbatch
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

docs: install  ## the site, into site/; a link that leads nowhere is an error (the variable silences an advertisement)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebook: install  ## docs/notebooks/latent_space.ipynb: the script as a notebook, run, with its output; three minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[notebook]'
	$(BIN)/jupytext --quiet --set-kernel python3 --to ipynb --execute docs/notebooks/latent_space.py

bench: install  ## what this library is to reach, measured; on a machine that does nothing else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks --write

lock:  ## pin what pyproject.toml allows (needs uv)
	uv pip compile --quiet --universal --fork-strategy fewest --generate-hashes --extra dev --no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .cache .coverage* build site *.egg-info

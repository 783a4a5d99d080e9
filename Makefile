PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
INSTALLED := $(VENV)/.installed

# Compiled functions are kept between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: install demo test test-user test-slow coverage lint docs notebook bench lock clean

install: $(INSTALLED)

# "compat", since the folder of the checkout hides other editable installs from programs that start beside it
$(RUNTIME): requirements.lock pyproject.toml
	@echo "installing into $(VENV): about 1 GB of packages, a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . \
	    --config-settings editable_mode=compat
	touch $@

$(INSTALLED): $(RUNTIME) requirements-dev.lock
	@echo "installing what the tests, the checks and the site need: about 1 GB more"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

demo: $(RUNTIME)  ## train, evaluate and sample Scale-VAE on the embedded captions
	$(BIN)/python -m scalevae_jax.train --config demo

test: install  ## the fast tests, on one CPU device and, where several are the subject, on four virtual ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"
	DEVICES=4 $(BIN)/python -m pytest -n 2 tests/devices

test-user: install  ## what a user installs, and what one sees in a browser
	$(BIN)/python -m pytest -n 2 -m slow tests/test_wheel.py tests/commands/test_browser.py

test-slow: install  ## all tests that take longer, those of test-user too
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

coverage: install  ## the lines of the package that all tests reach, those of processes that they start included
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=
	DEVICES=4 $(BIN)/python -m pytest -n 2 tests/devices --cov --cov-append --cov-fail-under 95

lint: install  ## format, lint, types, shell, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck launch/*.sh launch/*.sbatch
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

docs: install  ## the site, into site/; a link that leads nowhere is an error
	$(BIN)/zensical build --strict --config-file mkdocs.yml

notebook: install  ## docs/notebooks/latent_space.ipynb: the script as a notebook, run, with its output; three minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[notebook]'
	$(BIN)/jupytext --quiet --set-kernel python3 --to ipynb --execute docs/notebooks/latent_space.py

bench: install  ## what this library is to reach, measured; on a machine that does nothing else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks --write

COMPILE := --quiet --universal --fork-strategy fewest --generate-hashes --no-header
lock:  ## pin what pyproject.toml allows (needs uv)
	uv pip compile $(COMPILE) --extra dev --output-file requirements-dev.lock pyproject.toml
	uv pip compile $(COMPILE) --extra gcs --constraints requirements-dev.lock --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .cache .coverage* build site *.egg-info

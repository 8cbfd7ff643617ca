# `make demo` runs fishfeat on images that it draws. `make test` runs the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs clean

demo: .venv/installed
	$(BIN)/fishfeat demo

# The tests start many processes, which load torch faster where byte code is cached.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/installed-dev
	-@sh tools/get_browser.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check cli fishfeat tests benchmarks tools docs && $(BIN)/mypy

# The user guide and the API reference, in site/. A warning is an error (not with --quiet).
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean

# uv installs torch and torchvision from one index; pip may combine versions that do not match.
.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/installed: .venv/bin/uv pyproject.toml
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build dist site *.egg-info

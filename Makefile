# Two ways in: `make demo` for the story on the embedded pictures, `make test` for the suite.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/installed
	$(BIN)/fishfeat demo

test: .venv/installed-dev
	-@sh tools/get_browser.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check cli fishfeat tests benchmarks tools && $(BIN)/mypy

# uv takes torch and torchvision from one index; plain pip may mix two that do not fit together.
.venv/bin/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/installed: .venv/bin/uv pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info

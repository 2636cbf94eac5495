# What is done in a checkout; `make` alone lists the targets.
#
# The environment is created in .venv, and again when pyproject.toml, setup.py, the C modules or constraints.txt change. Only the set-up
# needs the network. It installs what constraints.txt pins, and refuses a file with another hash than is listed there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# No package's own build code runs, unless somebody on a platform that a package has no wheel for says `make setup SDISTS=`.
SDISTS ?= --only-binary :all:
# Processes that run the tests: one more than cores, since some of them wait most of the time.
TESTS ?= 3
# Seconds for which `make asan` fuzzes the C modules.
FUZZ_SECONDS ?= 300

# What npm brings for the dashboard's page; and for its tests in a browser.
PAGE := src/trailsift/serve/static/vendor/uPlot.iife.min.js
AXE := build/assets/node_modules/axe-core/axe.min.js
# The lake of `make serve`; without one, the demo's.
LAKE ?=

# Grafana publishes its schema as types, on npm only.
GRAFANA := $(VENV)/grafana/.made

# Trino is on Maven Central only; its jars lie in the environment.
TRINO := $(VENV)/trino/.made
# What `make test-aws` runs. In parts: make test-aws AWS_TESTS=tests/deploy
AWS_TESTS ?= tests/aws tests/deploy tests/query/test_athena.py tests/query/test_trino_lake.py tests/lake/test_glue.py tests/ingest/test_watch_queue.py

# Scripts in an environment hold the path of the checkout, so the stamps do too: a moved checkout is set up again.
PLACE := $(shell pwd | cksum | cut -d ' ' -f 1)
MADE := $(VENV)/.made-$(PLACE)
CORE := $(VENV)/.core-$(PLACE)
DEV := $(VENV)/.dev-$(PLACE)
# The tools of `make pins` and `make audit`, in an environment of their own: they bring a pip along.
TOOLS := $(VENV)/tools

# An environment without its interpreter is useless.
ifeq ($(wildcard $(BIN)/python),)
$(shell rm -f $(VENV)/.made-* $(VENV)/.core-* $(VENV)/.dev-*)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo setup test variants test-aws trino-smoke hostile-lakes lint asan docs bench bench-lakes bench-smoke kills torture torture-smoke pins audit clean
.PHONY: assets serve test-browser test-api npm bench-serve
.PHONY: bench-watch bench-memory bench-questions bench-rules bench-transform bench-original bench-findings bench-real bench-generated bench-s3

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(CORE) ## set up, then ingest generated logs and ask about them
	@$(BIN)/trailsift demo

setup: $(CORE) ## only set up: afterwards .venv/bin/trailsift runs
	@echo "ready: $(BIN)/trailsift --help"

# Collected beside the lint, which has one core busy, so that the test modules are compiled once and not by each process.
test: $(DEV) ## lint, then all tests in three processes; TESTS=0 for one
	@$(BIN)/python -m pytest -q --collect-only >/dev/null 2>&1 & collecting=$$!; \
		$(MAKE) --no-print-directory lint || { kill $$collecting; exit 1; }; wait
	@$(BIN)/python -m pytest -n $(TESTS) --dist loadfile --no-loadscope-reorder

variants: lint ## all tests in all their variants, half an hour
	@TRAILSIFT_ALL_VARIANTS=1 $(BIN)/python -m pytest -n $(TESTS) --dist loadfile --no-loadscope-reorder

hostile-lakes: $(DEV) ## all variants of a lake built to do harm
	@TRAILSIFT_ALL_VARIANTS=1 $(BIN)/python -m pytest -q tests/lake/test_hostile_lakes.py

test-aws: $(DEV) ## the AWS side: emulators and a real Trino, installed first
	$(call packages,$(BIN)/python,dev aws emulators)
	@$(MAKE) --no-print-directory $(GRAFANA) || echo "make: SKIPPED: npm did not install Grafana's schema: the boards are not checked against it" >&2
	@$(MAKE) --no-print-directory $(TRINO) || echo "make: SKIPPED: no Trino, which needs Maven and a JDK 25: the SQL for Athena runs nowhere" >&2
	@TRAILSIFT_TRINO=$(CURDIR)/$(dir $(TRINO)) $(BIN)/python -m pytest -rs $(AWS_TESTS)

# A short form of it, for .ci/run: what Athena would load, each statement twice.
trino-smoke: $(DEV) ## the SQL for Athena on a real Trino
	$(call packages,$(BIN)/python,dev aws)
	@$(MAKE) --no-print-directory $(TRINO)
	@TRAILSIFT_TRINO=$(CURDIR)/$(dir $(TRINO)) $(BIN)/python -m pytest -q tests/deploy/test_athena_sql.py -k "trino_parses or second_run"

assets: $(PAGE) ## what the dashboard's page needs from npm

serve: $(CORE) ## set up all of it, then serve LAKE=..., or the demo's lake
	$(call packages,$(BIN)/python,serve)
	@$(MAKE) --no-print-directory $(PAGE)
	@$(BIN)/trailsift $(if $(LAKE),serve --lake "$(LAKE)",demo --serve)

test-browser: $(DEV) ## the dashboard in Chromium, which has to be there
	$(call packages,$(BIN)/python,dev assets browser)
	@$(BIN)/python scripts/assets.py --dev
	@$(BIN)/python -m pytest tests/serve -rs

test-api: $(DEV) ## the API against its own description, for some minutes
	$(call packages,$(BIN)/python,dev api)
	@TRAILSIFT_API_SCHEMA=1 $(BIN)/python -m pytest tests/serve/test_api_schema.py -rs

lint: $(DEV) ## ruff, spelling, clang-format, mypy --strict, contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "make: run .venv/bin/ruff format" >&2; exit 1; }
	@$(BIN)/codespell
	@$(BIN)/clang-format --dry-run -Werror src/trailsift/_native/*.[ch]
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# The C modules with AddressSanitizer and UBSan, in a copy of the package of their own.
ASAN := build/asan
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# The interpreter is built without, so the libraries come first by hand; what it allocates must reach their allocator.
SANITIZED = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	PYTHONPATH=$(CURDIR)/$(ASAN)/lib:$(CURDIR)/tests $(BIN)/python
ASAN_TESTS ?= tests/columns tests/decode tests/fuzz

asan: $(DEV) ## tests and fuzzing under ASan and UBSan; FUZZ_SECONDS=300
	@rm -rf $(ASAN)
	@CFLAGS="$(SANITIZE) -g" LDFLAGS="$(SANITIZE)" TRAILSIFT_REQUIRE_C=1 $(BIN)/python setup.py -q build \
		--build-base $(ASAN)/base --build-lib $(ASAN)/lib
	@$(SANITIZED) -m pytest -q -p no:cacheprovider -n $(TESTS) --dist loadfile $(ASAN_TESTS)
	@$(SANITIZED) -m fuzz --seconds $(FUZZ_SECONDS) --out build/fuzz
	@TRAILSIFT_SIMD=0 $(SANITIZED) -m fuzz --seconds $$(($(FUZZ_SECONDS) / 4)) --out build/fuzz

docs: $(DEV) ## write the pages that are generated from the code
	@$(BIN)/python scripts/pages.py

examples: $(DEV) ## run the notebook, take the picture of the README again
	@$(BIN)/python scripts/notebook.py
	@$(BIN)/python scripts/picture.py

bench: $(DEV) ## 2,000,000 events: bench/RESULTS.md; BENCH='--events N'
	@$(BIN)/python bench/bench.py --out bench/RESULTS.md $(BENCH)

bench-lakes: $(DEV) ## 10,000,000 events, an hour: bench/LAKES.md
	@$(BIN)/python bench/lakes.py --out bench/LAKES.md $(LAKES)

bench-rules: $(DEV) ## dropping nine of ten beside keeping: bench/RULES.md
	@$(BIN)/python bench/rules.py --out bench/RULES.md $(RULES)

bench-questions: $(DEV) ## resource, object, search, compare, cost: bench/QUESTIONS.md
	@$(BIN)/python bench/questions.py --out bench/QUESTIONS.md $(QUESTIONS)

bench-memory: $(DEV) ## memory of 2 to 10 million events: bench/MEMORY.md
	@$(BIN)/python bench/memory.py --out bench/MEMORY.md $(MEMORY)

bench-transform: $(DEV) ## Firehose: records per second: bench/TRANSFORM.md
	@$(BIN)/python bench/transform.py --out bench/TRANSFORM.md

bench-original: $(DEV) ## the original document's pieces: bench/ORIGINAL.md
	@$(BIN)/python bench/original.py --out bench/ORIGINAL.md

bench-findings: $(DEV) ## findings of 1,000 roles: bench/FINDINGS.md
	@$(BIN)/python bench/findings.py --out bench/FINDINGS.md $(FINDINGS)

bench-real: $(DEV) ## findings on real logs, and attacks moved into other lakes: bench/FINDINGS.md
	@$(BIN)/python bench/real_findings.py --out bench/FINDINGS.md $(REAL)

bench-generated: $(DEV) ## findings of 80 generated months, hours: bench/FINDINGS.md; GENERATED='--seeds N'
	@$(BIN)/python bench/generated_findings.py --out bench/FINDINGS.md $(GENERATED)

bench-s3: $(DEV) ## S3 on a local server: bench/S3.md, bench/S3_LAKE.md
	@$(BIN)/python bench/s3_source.py --out bench/S3.md $(S3)
	@$(BIN)/python bench/s3_lake.py --out bench/S3_LAKE.md

bench-watch: $(DEV) ## 5,000 commits in a row, a folder and a queue for 10 minutes each: bench/WATCH.md
	@$(BIN)/python bench/watch.py --out bench/WATCH.md $(WATCH)

bench-serve: $(DEV) ## the dashboard's API with 10 clients, and 2,000 events per second: bench/SERVE.md; SERVE='--events N'
	@$(BIN)/python bench/serve.py --out bench/SERVE.md $(SERVE)

bench-smoke: $(DEV) ## each measurement once, on few events, without a page
	@$(BIN)/python bench/bench.py --events 50000 --days 2 --rounds 1 --repeat 3

kills: $(DEV) ## 100 kills of an ingest: bench/KILLS.md; KILLS='--kills N'
	@$(BIN)/python bench/kills.py --out bench/KILLS.md $(KILLS)
	@$(BIN)/python bench/kills.py --s3 --kills 40 --out bench/KILLS_S3.md $(KILLS)

pins: $(TOOLS) ## write constraints.txt again; PINS=--upgrade for newer
	@$(TOOLS)/bin/python scripts/constraints.py refresh $(PINS)

# Without --strict it gives the all-clear for packages that it could not look up.
audit: $(TOOLS) ## look up known vulnerabilities of the pinned versions
	@$(TOOLS)/bin/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r constraints.txt || { \
		echo "make: not clean, or not audited for lack of a database: see above" >&2; exit 1; }

torture: $(DEV) ## 1,000 faults: bench/TORTURE.md; TORTURE='--faults N'
	@$(BIN)/python bench/torture.py --out bench/TORTURE.md $(TORTURE)

# Other faults for each commit, and the same ones for the same commit.
torture-smoke: $(DEV) ## each kind of fault once, without a page
	@$(BIN)/python bench/torture.py --faults 36 --minutes 2 --seed "$$(git rev-list --count HEAD 2>/dev/null || echo 1)"

clean: ## remove the environment and all caches
	rm -rf $(VENV) src/trailsift/_native/*.so src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "make: $(PYTHON) not found: install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: trailsift needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
			"Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) -V)" >&2
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "make: $(PYTHON) cannot create environments: on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@touch $@

# What an interpreter's environment needs of constraints.txt for some extras. pip takes no hashes beside an editable installation, so the
# project itself is installed apart, and nothing with it.
define packages
	@$(BIN)/python scripts/constraints.py requirements $(2) >$(VENV)/requirements.txt
	@$(1) -m pip --disable-pip-version-check --quiet install --require-hashes $(SDISTS) -r $(VENV)/requirements.txt || { \
		echo "make: a package is missing, or is not the one that constraints.txt lists: see above" >&2; exit 1; }
endef

# There is no stamp while pip works, so the next set-up discards what an interrupted one left.
# The build tools are among the packages, so that a later set-up needs no network for them.
define install
	@echo "installing trailsift$(if $(1),[$(1)]): about a minute, once" >&2
	@rm -f $(VENV)/.made-* $(VENV)/.core-* $(VENV)/.dev-*
	$(call packages,$(BIN)/python,$(1))
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(MADE) $(2)
endef

$(CORE): pyproject.toml setup.py $(wildcard src/trailsift/_native/*.[ch]) constraints.txt | $(MADE)
	$(call install,,$(CORE))

$(DEV): pyproject.toml setup.py $(wildcard src/trailsift/_native/*.[ch]) constraints.txt | $(MADE)
	$(call install,dev,$(CORE) $(DEV))

# The lock holds the digest of each archive.
$(GRAFANA): tests/grafana/package.json tests/grafana/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	@npm --prefix $(@D) ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

# npm is the system's, or that of a package.
$(PAGE): assets/package.json assets/package-lock.json | $(MADE)
	@command -v npm >/dev/null 2>&1 || [ -x $(BIN)/npm ] || $(MAKE) --no-print-directory npm
	@$(BIN)/python scripts/assets.py && touch $@

npm: $(MADE)
	$(call packages,$(BIN)/python,assets)

$(TRINO): tests/trino/pom.xml
	@echo "installing Trino: about a minute, once" >&2
	@rm -rf $(@D) && mkdir -p $(@D)
	@mvn --quiet --batch-mode -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D)
	@touch $@

$(TOOLS): constraints.txt | $(MADE)
	@$(BIN)/python -m venv --clear $@
	$(call packages,$@/bin/python,pins)
	@touch $@

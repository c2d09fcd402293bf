# Everything this project is checked and tried with, from a fresh Debian 12 with git, python3 and make.
# As root the missing packages are installed and the laboratory (two real Asterisks) is made; without root
# what needs neither is run, and one line says what was not.

LAB ?= /var/cache/ringfence-lab
DEMO ?= attack

VENV := .venv
PYTHON := $(VENV)/bin/python
# Debian's own Python where there is one: the package runs on it.
BASE_PYTHON := $(firstword $(wildcard /usr/bin/python3) python3)
# Two steps: what runs ringfence (all that a demo needs), and what checks it. `make fuzz` and `make mutate` need a third one.
RUNTIME := $(VENV)/.runtime
INSTALLED := $(VENV)/.installed
FUZZER := $(VENV)/.fuzzer
MUTATOR := $(VENV)/.mutator
SCRIPTS := .ci/run tests/support/lab.sh debian/ringfence.postinst debian/ringfence.prerm debian/ringfence.postrm debian/tests/bans debian/tests/setup

# The schedule is in tests/support/schedule.py. Tests mostly wait: for an Asterisk, a kernel or a clock. So more processes run them than there are cores.
WORKERS ?= 6
STYLE := tests/test_architecture.py tests/test_language.py
RUN_TESTS := -m pytest --numprocesses=$(WORKERS) --dist=loadscope --no-loadscope-reorder $(addprefix --ignore=,$(STYLE))

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help venv system lab lint lint-language lint-types lint-style test test-all coverage prove simulate faults fuzz mutate live soak bench compare demo attack replay demo-lab docs rulesets lock deb deb-source clean

export RINGFENCE_LAB := $(abspath $(LAB))
# Without compiled files each start of Python compiles everything that it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@sed -En 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

venv: $(INSTALLED) ## Make .venv with ringfence (editable) and what checks it

$(RUNTIME): pyproject.toml
	$(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --editable .
	touch $@

# pip learned to read dependency groups in 25.1; Debian 12 has 23.0.
GROUP = $(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["$(1)"], sep="\n")'

$(INSTALLED): pyproject.toml | system
	$(BASE_PYTHON) -m venv $(VENV)
	$(call GROUP,dev) | $(PYTHON) -m pip install --quiet --editable '.[web]' --requirement /dev/stdin
	touch $(RUNTIME) $@

$(FUZZER): $(INSTALLED)
	$(call GROUP,fuzz) | $(PYTHON) -m pip install --quiet --requirement /dev/stdin
	touch $@

$(MUTATOR): $(INSTALLED)
	$(call GROUP,mutate) | $(PYTHON) -m pip install --quiet --requirement /dev/stdin
	touch $@

system: ## Install the Debian packages that are missing (as root)
	@tests/support/lab.sh system

lab: system ## Make the laboratory: Asterisk 16 and 22 under LAB (as root, on Debian)
	@tests/support/lab.sh trees "$(RINGFENCE_LAB)"

lint: venv ## Check style, language, types and the directions between the packages
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target lint-language lint-types lint-style

lint-language:
	$(PYTHON) -m pytest --quiet $(STYLE)

lint-types:
	$(VENV)/bin/mypy

lint-style:
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports
	@for script in $(SCRIPTS); do bash -n "$$script"; done

test: venv lab ## Run every test that this machine can run, without the long ones
	@rm -f .branches*
	$(PYTHON) $(RUN_TESTS) --branches
	$(PYTHON) -m tests.support.branches

test-all: venv lab ## Run the long tests too
	@rm -f .branches*
	$(PYTHON) $(RUN_TESTS) --branches --long
	$(PYTHON) -m tests.support.branches

coverage: venv ## Print which branches of parse/ and detect/ their tests miss
	@rm -f .branches*
	$(PYTHON) -m pytest --quiet --branches -k "not linear" -m "not hypothesis and not asterisk" tests/parse tests/detect
	$(PYTHON) -m tests.support.branches

SEED ?= 0
SECONDS_OF_PROOF ?= 300
prove: venv ## Play random worlds of senders and all orders of small ones, and judge each step (SEED=0 SECONDS_OF_PROOF=300)
	$(PYTHON) -m tests.judge --seed $(SEED) --seconds $(SECONDS_OF_PROOF)

SEEDS ?= 0-999
simulate: venv ## Play stories to the whole daemon in simulated time, with faults (SEEDS=0-999, or one seed)
	$(PYTHON) -m tests.simulate --seeds $(SEEDS)

N ?= 400
ONLY ?= *
FINDINGS ?= faults.txt
faults: venv ## Let each system call of each operation fail, for hours (as root; N=largest n, EVERY=1: each n, ONLY='ban, nftables, *')
	$(PYTHON) -m tests.faults --most $(N) $(if $(EVERY),--every) --only '$(ONLY)' --workers $(WORKERS) --findings $(FINDINGS)

SECONDS ?= 600
fuzz: $(FUZZER) ## Search for bytes that break a reader's promises (SECONDS=600 for each; TARGET="ami log": only these)
	$(PYTHON) -m tests.fuzz --seconds $(SECONDS) $(addprefix --target=,$(TARGET))

PACKAGE ?= bans
mutate: $(MUTATOR) ## Change the code of a package in small ways, which its tests must notice (PACKAGE=bans, detect or parse; SAMPLE=300: so many; NUMBERS=rules: its numbers)
	$(PYTHON) -m tests.mutate $(PACKAGE) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(NUMBERS),--numbers '$(NUMBERS)')

RELEASE ?= 22
live: venv lab ## Let scanners and random SIP attack a real Asterisk, and judge by what it answered (as root; RELEASE=16 SEED=0 SECONDS=600)
	$(PYTHON) -m tests.live $(RELEASE) --programs
	$(PYTHON) -m tests.live $(RELEASE) --seconds $(SECONDS) --seed $(SEED)

MINUTES ?= 60
soak: venv lab ## Run ringfence beside a busy Asterisk for an hour, and measure what grows (as root; MINUTES=60)
	$(PYTHON) -m tests.soak --minutes $(MINUTES)

bench: venv lab ## Measure, and print the numbers (BASE=COMMIT: compare the costs with those of that commit)
	@tests/support/lab.sh trees "$(RINGFENCE_LAB)" bench
	$(PYTHON) -m tests.bench $(if $(BASE),--base $(BASE))

compare: venv ## Measure ringfence beside fail2ban and CrowdSec, for half an hour, and write the README's table (as root; ROW=memory: print only the rows with this word)
	@tests/support/lab.sh trees "$(RINGFENCE_LAB)" compare
	$(PYTHON) -m tests.compare $(ROW)

demo: $(DEMO) ## Show an attack and its end (DEMO=replay: from a recording, without Asterisk)

attack: # Debian's packages first: the other two steps need them, and run at the same time.
	@tests/support/lab.sh system demo
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(RUNTIME) demo-lab
	$(PYTHON) -m tests.demo attack

demo-lab:
	@tests/support/lab.sh trees "$(RINGFENCE_LAB)" demo

replay: $(RUNTIME)
	$(PYTHON) -m tests.demo replay

docs: venv ## Write docs/configuration.md, docs/cli.md and the tables of docs/firewall.md
	$(PYTHON) -m tests.docs

rulesets: venv ## Write the pinned rules of both firewalls and the fates of packets (tests/firewall, as root)
	$(PYTHON) -m tests.support.rulesets
	$(PYTHON) -m tests.support.fates

lock: venv ## Pin the Python dependencies of the Debian package (with Python 3.11)
	$(PYTHON) -m debian.lock
	$(PYTHON) -m debian.licences

# A venv of its own, which needs no more than pip: a PBX that builds the package gets no tools of ours.
deb: ## Build dist/ringfence_VERSION_all.deb (with debhelper and dh-python)
	$(BASE_PYTHON) -m venv $(VENV)-deb
	$(VENV)-deb/bin/python -m debian.build dist

deb-source: ## Build the Debian source package in dist/
	$(BASE_PYTHON) -m venv $(VENV)-deb
	$(VENV)-deb/bin/python -m debian.build --source dist

clean: ## Remove what was made here (not the laboratory)
	rm -rf $(VENV) $(VENV)-deb dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .branches* .fuzz
	find src debian tests -name __pycache__ -prune -exec rm -rf {} +

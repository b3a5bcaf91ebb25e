#: Everleaf: certificates on AWS, issued, renewed and rolled out.
#:
#:   make demo     a year of a small fleet in under a minute, on this machine, without an AWS account
#:   make local    a working deployment on 127.0.0.1:4566 for the AWS CLI, boto3 and make invoke; Ctrl-C ends it
#:                   PORT=4567
#:   make invoke   calls a function of make local with a file of events/, or a request, and prints the answer
#:                   FUNCTION=issue-client-cert  EVENT=issue-client-cert  REQUEST='{…}'  PORT=4566
#:   make report   the report on a fleet after some months on this machine, opened in the browser where there is one
#:   make preflight  what is missing in your account before a deployment, with the remedy; reads samconfig.toml or the parameters
#:                   PARAMETERS='IssuingCaArn=… MaxValidityDays=90'  CERTIFICATES=100
#:   make issue    issues a certificate, or says why not; these go to your AWS account, or with LOCAL=1 to make local
#:                   PREFIX=… where the stack's is not everleaf; AWS_PROFILE and AWS_REGION as for the AWS CLI
#:                   NAME=orders  CN=orders  O=…  SAN='dns:orders.example.internal …'  SERVICES='payments/orders …'  DAYS=30
#:                   OU=  C=DE  ST=  L=  USAGE=server  KEY_ALGORITHM=RSA_2048  HOURS=24  END=2027-01-01T00:00:00Z  CSR=a.csr  CA=arn:…
#:                   RENEW_BEFORE_DAYS=10  RENEW_BEFORE_HOURS=8  CANARY=payments/orders  WINDOW='Sat Sun 01:00-05:00'  PAUSED=true
#:                   KEY_FORMAT=plain  IMPORT_TO_ACM=true  REPLACE=true  DRY_RUN=1; a service with an agent: payments/refunds=agent
#:   make renew    does what is due for a certificate; NAME=orders  RETRY=1 when it was mended after failures
#:   make revoke   has its CA revoke a serial; NAME=orders  SERIAL=…  REASON=KEY_COMPROMISE  CA=arn:…  DRY_RUN=1
#:   make plan     says what the sweep would do now; NAME=orders
#:   make status   the fleet as a table
#:   make ask      any request to any function; FUNCTION=refresh-truststore  REQUEST='{"refresh": true}'
#:   make redrive  lists what waits in the failure queue; events go to their function again, requests by hand only if you say which
#:                   ID='9c2a05a1-… …'  ALL=1
#:   make cost     what a certificate costs in a year: calls, Lambda time and USD by the prices of tools/prices.json
#:   make lint     format and lints, the beginning of make test
#:   make test     all that must hold before a change is handed in
#:   make handshake  real Envoys and a real nginx with the agent's certificates: who is let in, and what a rotation breaks
#:   make simulate  months or years of a fleet in which everything goes wrong that can; every promise is checked each hour
#:                   SEED=1  SEEDS=1..100  CERTIFICATES=4  YEARS=0.25  FAULTS=none|light|heavy  EVENTS=none  ONLY=3,7  TRACE=1
#:   make soak     ten thousand such seasons; SEEDS=0..10000 and the rest as for make simulate
#:   make planted  bugs planted on purpose, one at a time: the simulator has to find each
#:   make fuzz     hostile input for each parser of bytes from outside, or for one, as long as it is given
#:                   PARSER=csr  SECONDS=60
#:   make mutants  changes the core in one place after another: each change must fail one of its tests; takes hours, or one file
#:                   FILE=names
#:   make bench    how fast the functions start and work, beside the floor, Python and OpenSSL; a quarter of an hour, Linux alone
#:   make storm    ten thousand certificates due in one hour, under the quotas of an account; STORM=1000 for fewer
#:   make build    the functions' release binaries, for this machine's architecture or the one given
#:                   ARCHITECTURE=arm64
#:   make deploy   builds for Lambda and deploys to your AWS account, asking for each parameter; template.yaml explains them
#:                   ARCHITECTURE=arm64  GRADUAL=Canary10Percent5Minutes
#:   make agent    the static binary that brings certificates into containers, for this machine's architecture or the one given
#:                   ARCHITECTURE=arm64
#:   make agent-image  its image, by docker or buildah; CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt is what it trusts AWS by
#:   make clean    removes what was built and installed here
#:
#: Rust, Python 3, make and a C compiler are all that demo, report and local need, and invoke curl. issue to redrive and preflight need
#: the AWS CLI. The first run of another command sets up what it needs inside .venv; the README says what make test takes besides.

PORT ?= 4566
FUNCTION ?= issue-client-cert
EVENT ?= $(FUNCTION)
CA_BUNDLE ?= /etc/ssl/certs/ca-certificates.crt

TARGET := $(or $(CARGO_TARGET_DIR),target)
SHELL := bash

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0

.PHONY: help demo local invoke report issue renew revoke plan status ask redrive preflight cost lint test simulate soak planted fuzz mutants handshake bench storm build deploy agent agent-image clean

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

demo:
	cargo build --locked --workspace --bins
	$(TARGET)/debug/demo

local:
	cargo build --locked --workspace --bins
	$(TARGET)/debug/local-aws --template template.yaml --bin-dir $(TARGET)/debug --port $(PORT)

invoke:
	@answer=$$($(if $(REQUEST),printf %s '$(REQUEST)',cat events/$(EVENT).json) | curl -sS --data-binary @- \
		http://127.0.0.1:$(PORT)/2015-03-31/functions/everleaf-$(FUNCTION)/invocations) && python3 -m json.tool <<< "$$answer"

report:
	cargo build --locked --workspace --bins
	$(TARGET)/debug/report $(TARGET)/report.html
	@if [ "$$(uname)" = Darwin ]; then open $(TARGET)/report.html; \
		elif [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && type xdg-open > /dev/null 2>&1; then xdg-open $(TARGET)/report.html; fi

# What LOCAL=1 means: make local in the place of AWS.
ifneq ($(filter-out 0 false,$(LOCAL)),)
export AWS_ENDPOINT_URL := http://127.0.0.1:$(PORT)
export AWS_ACCESS_KEY_ID := local
export AWS_SECRET_ACCESS_KEY := local
export AWS_REGION := eu-central-1
endif

# The names of what stands on make's command line. Their values are in the environment, safe from the shell.
GIVEN = $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
issue renew revoke plan status ask:
	@python3 tools/hand.py $@ $(GIVEN)

redrive:
	@python3 tools/redrive.py $(GIVEN)

# The counts are those of the simulated AWS, in virtual time; the same at each run.
cost:
	@cargo build --locked --quiet -p workflow --bin calls
	@$(TARGET)/debug/calls | python3 tools/cost.py

preflight:
	@cargo build --locked --quiet -p workflow --bin parameters
	@python3 tools/preflight.py $(TARGET)/debug/parameters

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# What needs a program that is not here and cannot be installed is left out and said at the end. With CI set it fails.
test: export LEFT_OUT = $(if $(CI),,$(abspath $(TARGET))/left-out)

# The core's tests need none of the SDKs, so they have an answer long before those are built.
test:
	$(MAKE) --no-print-directory --jobs 2 lint .venv/test.stamp .venv/checkov/stamp .venv/ministack/stamp .venv/bin/cargo-deny
	rm -f "$$LEFT_OUT"
	python3 tests/planted.py
	cargo test --locked -p lifecycle
	cargo test --locked --workspace
	cargo build --locked --workspace --bins
	$(TARGET)/debug/demo
	$(TARGET)/debug/simulate --seeds 0..210 --faults all --years 0.03
	tests/tools.sh chromium -- .venv/bin/python tests/report.py $(TARGET)/debug
	$(MAKE) --no-print-directory --jobs 3 $(if $(filter output-sync,$(.FEATURES)),--output-sync) check-memory $(CHECKS) check-documentation check-templates
	@if [ -s "$$LEFT_OUT" ]; then echo "What was run holds. Not run:"; cat "$$LEFT_OUT"; fi

# These wait for Local AWS more than they compute. The longest come first.
CHECKS = $(addprefix check-,local deploy handshake examples agent documents image hand preflight)
check-deploy check-local: PROGRAMS = openssl
check-handshake: PROGRAMS = openssl curl nginx
check-examples: PROGRAMS = openssl curl
check-agent: PROGRAMS = openssl strace
check-documents: PROGRAMS = curl
check-image: PROGRAMS = buildah

.PHONY: $(CHECKS) check-memory check-documentation check-templates
$(CHECKS): check-%:
	MAKEFLAGS= $(if $(PROGRAMS),tests/tools.sh $(PROGRAMS) --) .venv/bin/python tests/$*.py $(TARGET)/debug

check-memory:
	@if [ -e /proc/self/exe ] || [ -z "$$LEFT_OUT" ]; then $(TARGET)/debug/memory 2> $(TARGET)/memory.log; \
		else echo "To measure the memory of the sweep, use Linux." >> "$$LEFT_OUT"; fi

check-documentation:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	cargo deny --locked check --hide-inclusion-graph licenses sources bans

check-templates:
	cfn-lint template.yaml examples/private-ca.yaml examples/ecs-alb-mtls/template.yaml
	sam validate --lint
	.venv/checkov/bin/checkov --config-file .checkov.yaml

handshake: .venv/test.stamp
	cargo build --locked --workspace --bins
	tests/tools.sh openssl curl nginx -- .venv/bin/python tests/handshake.py $(TARGET)/debug

# A history of its own for each seed, in a process of its own. The build is one of fast code; make test runs some with the one it has.
SIMULATE = $(TARGET)/simulate/simulate $(foreach option,CERTIFICATES YEARS FAULTS EVENTS ONLY JOBS,\
	$(if $($(option)),--$(shell tr A-Z a-z <<< $(option)) $($(option)))) $(if $(TRACE),--trace)
simulate soak:
	cargo build --locked --profile simulate -p workflow --bin simulate
	$(SIMULATE) $(if $(SEEDS),--seeds $(SEEDS),--seed $(or $(SEED),1))

soak: SEEDS ?= 0..10000

planted:
	python3 tests/planted.py $(TARGET)

# The flags are those of cargo-fuzz: libFuzzer is told of every branch and of what is compared. With --target they are not for what
# runs during the build. What was found stays below the target folder, and what fails a parser in found/.
SECONDS ?= 60
FUZZ = $(TARGET)/fuzz
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
COVERAGE = level=4 inline-8bit-counters pc-table trace-compares
fuzz: export RUSTFLAGS = -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,$(COVERAGE))
fuzz:
	cargo build --locked -p fuzz --features libfuzzer --bin fuzz --target $(HOST) --target-dir $(FUZZ)
	for parser in $(or $(PARSER),$(notdir $(wildcard tests/fuzz/corpus/*))); do \
		mkdir -p $(FUZZ)/corpus/$$parser $(FUZZ)/found; \
		PARSER=$$parser $(FUZZ)/$(HOST)/debug/fuzz -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=1024 -max_len=16384 \
			-verbosity=0 -print_funcs=0 -print_final_stats=1 -artifact_prefix=$(FUZZ)/found/$$parser- \
			$(FUZZ)/corpus/$$parser tests/fuzz/corpus/$$parser || exit; \
	done

# Each run works on a copy of the tree; what that depends on is built once.
mutants: export CARGO_TARGET_DIR = $(abspath $(TARGET))/mutants
mutants: .venv/bin/cargo-mutants
	cargo mutants -p lifecycle $(if $(FILE),--file shared/lifecycle/src/$(FILE).rs) --output $(TARGET)

# AWS-LC would gather entropy from the processor's timing too, in every process that starts, which costs more than all the rest of a
# first event. Without that it is seeded by the kernel, as OpenSSL is. Built for size it would leave its assembly and its tables out,
# and be several times slower; what is for gigabytes on AVX-512 stays out.
AWS_LC = AWS_LC_SYS_NO_JITTER_ENTROPY=1 AWS_LC_SYS_SMALL=0 AWS_LC_SYS_CFLAGS=-DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX

# The functions as they are deployed, and what is compared with them, built alike: none of it twice with other features.
BENCHED = $(addprefix -p ,$(notdir $(wildcard functions/*)) runtime material)
bench: .venv/bench.stamp
	$(AWS_LC) cargo build --locked --release $(BENCHED) --bins --examples
	cargo build --locked --profile simulate -p workflow --bin bench --bin memory --bin storm
	.venv/bin/python tests/bench.py $(TARGET)/simulate $(TARGET)/release

storm:
	cargo build --locked --profile simulate -p workflow --bin storm
	$(TARGET)/simulate/storm $(STORM)

build: .venv/build.stamp
	$(AWS_LC) cargo lambda build --locked --release $(addprefix --,$(subst _,-,$(ARCHITECTURE)))

# The parameters of the last deployment, or what somebody has written there: before anything is built.
.PHONY: parameters
parameters:
	@if [ -e "$${SAMCONFIG:-samconfig.toml}" ]; then cargo build --locked --quiet -p workflow --bin parameters && \
		PARAMETERS= python3 tools/preflight.py $(TARGET)/debug/parameters form; fi

deploy: ARCHITECTURE ?= arm64
deploy: parameters .venv/build.stamp .venv/test.stamp
	$(if $(GRADUAL),mkdir -p .aws-sam && python3 tools/gradual.py $(GRADUAL) < template.yaml > .aws-sam/gradual.yaml)
	$(AWS_LC) sam build --beta-features --parameter-overrides Architecture=$(ARCHITECTURE) \
		$(if $(GRADUAL),--template-file .aws-sam/gradual.yaml --base-dir .)
	@echo "Built for $(ARCHITECTURE): answer that when asked for the parameter Architecture."
	sam deploy --guided

# cargo-lambda lets rustup download a target that is missing. What is installed on a machine is its owner's choice: with this it
# fails instead, and the cure is `rustup target add aarch64-unknown-linux-gnu` (or x86_64-…).
build deploy: export RUSTUP_DIST_SERVER ?= http://127.0.0.1:1

agent agent-image: ARCHITECTURE ?= $(subst aarch64,arm64,$(shell uname -m))
AGENT_TARGET = $(ARCHITECTURE:arm64=aarch64)-unknown-linux-gnu
BUILDER = $(shell docker info > /dev/null 2>&1 && echo docker build || echo buildah bud --isolation chroot)

# With --target the flags are for the binary alone, not for what runs during the build.
agent:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $(AGENT_TARGET) -p everleaf-agent

agent-image: agent
	rm -rf $(TARGET)/agent-image
	mkdir -p $(TARGET)/agent-image/volume
	mkdir -m 1777 $(TARGET)/agent-image/volume/certs
	cp $(TARGET)/$(AGENT_TARGET)/release/everleaf-agent agent/Dockerfile $(TARGET)/agent-image
	cp $(CA_BUNDLE) $(TARGET)/agent-image/ca-certificates.crt
	$(BUILDER) --platform linux/$(ARCHITECTURE:x86_64=amd64) --tag everleaf-agent $(TARGET)/agent-image

clean:
	cargo clean
	rm -rf .venv .aws-sam

.venv/%.stamp: tests/requirements-%.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Of their own, because they want other versions of what the others want too.
.venv/checkov/stamp .venv/ministack/stamp: .venv/%/stamp: tests/requirements-%.txt
	python3 -m venv .venv/$*
	.venv/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.venv/bin/cargo-deny:
	cargo install --locked --debug --root .venv cargo-deny@0.20.2

.venv/bin/cargo-mutants:
	cargo install --locked --debug --root .venv cargo-mutants@27.1.0

# make run    a node on 127.0.0.1:1883 with its store in ./data
# make test   everything that must pass, after installing what it needs
# The other targets are parts of these, or longer runs of the same tests.

GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
HELM         = helm.sh/helm/v3/cmd/helm@v3.22.0
FUZZTIME    ?= 20s

# Tests of whole processes time things; the race detector would slow them
# twentyfold on two cores and sees only one process anyway.
PROCESS_TESTS = ./cmd/shoal/e2e/...
FAST_TESTS    = $$($(GO) list ./... | grep -v /cmd/shoal/e2e)

# A package that takes this long hangs: several times what the slowest takes on two
# cores that have other work as well.
HANGS = 1h

# The race detector needs a C compiler; .ci/setup installs one where it can.
RACE = $(if $(shell command -v $$($(GO) env CC)),-race)

.PHONY: run build test setup check format vet lint generated tidy proto bench chaos fuzz helm-check clean

run: build
	bin/shoal serve --data-dir ./data

build:
	$(GO) build -trimpath -o bin/shoal ./cmd/shoal

test: setup check
	$(GO) test $(RACE) -shuffle=on -timeout $(HANGS) $(FAST_TESTS)
	$(GO) test -shuffle=on -parallel 2 -timeout $(HANGS) $(PROCESS_TESTS)

setup:
	.ci/setup

# check looks without running: format, vet, linter, tidy module, generated code.
# The import floors are a test: cmd/shoal/floors_test.go.
check: format vet lint tidy generated

format:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "run gofmt -w on: $$unformatted"; exit 1; fi

vet:
	$(GO) vet ./...

lint:
	$(GO) run $(STATICCHECK) ./...

tidy:
	$(GO) mod tidy -diff

generated:
	.ci/check-generated

proto:
	proto/generate.sh

# bench prints the tables of docs/PERFORMANCE.md, then the benchmarks of parts.
bench:
	SHOAL_BENCH=1 $(GO) test -count=1 -timeout 30m -v -run TestMeasure ./cmd/shoal/e2e
	$(GO) test -run '^$$' -bench . -benchmem ./...

# chaos is the long run of what make test does briefly: nodes are killed,
# frozen and cut off under load.
chaos:
	SHOAL_CHAOS=long $(GO) test -count=1 -timeout 2h -v -run 'TestChaos|TestOrder' ./cmd/shoal/e2e/...
	SHOAL_CHAOS=long $(GO) test -count=1 -timeout 2h -run TestScenario ./cluster

# fuzz runs every fuzz target for FUZZTIME.
fuzz:
	@$(GO) list ./... | while read -r pkg; do \
		for target in $$($(GO) test -list '^Fuzz' "$$pkg" | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg" || exit 1; \
		done; \
	done

# helm-check is not part of test: compiling helm takes more than a minute.
helm-check:
	$(GO) run $(HELM) lint --strict helm/shoal
	$(GO) run $(HELM) template try helm/shoal --kube-version 1.30.0 >/dev/null
	$(GO) run $(HELM) template try helm/shoal --kube-version 1.30.0 -f helm/shoal/ci/all-values.yaml >/dev/null

clean:
	rm -rf bin

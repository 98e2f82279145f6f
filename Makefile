# make demo   a flame graph of the example EVM, flamegraph.svg, in under a minute
# make demo-windows  the same of evm.exe under Wine (with MinGW), flamegraph-windows.svg
# make test   builds and runs all tests (as root it first installs the packages they use)
# make bench  measured ratios: samples delivered, cost, error on bursts; speed of names and pictures
# make analyze  clang-tidy, cppcheck and gcc -fanalyzer over cprof.h: ten minutes
# make clean

CC ?= cc
PYTHON ?= python3
CFLAGS ?= -O2 -g -fomit-frame-pointer
BUILD = build
MINGW_CC ?= x86_64-w64-mingw32-gcc

EVM_SOURCES = $(wildcard examples/evm/*.c)
EVM_HEADERS = $(wildcard examples/evm/*.h)
CHAIN = $(BUILD)/chain

all: $(BUILD)/evm

$(BUILD)/evm: $(EVM_SOURCES) $(EVM_HEADERS) cprof.h
	@mkdir -p $(BUILD)
	$(CC) $(CFLAGS) -pthread -I. $(EVM_SOURCES) -o $@

$(BUILD)/evm.exe: $(EVM_SOURCES) $(EVM_HEADERS) cprof.h
	@mkdir -p $(BUILD)
	$(MINGW_CC) $(CFLAGS) -static -I. $(EVM_SOURCES) -o $@

# The stamp is written last, so that a chain cut short is made again.
$(CHAIN)/.complete: | $(BUILD)/evm
	rm -rf $(CHAIN)
	$(BUILD)/evm gen --datadir $(CHAIN) -b 1000 -e 2000
	@touch $@

demo: $(BUILD)/evm $(CHAIN)/.complete
	$(BUILD)/evm -b 1000 -e 2000 --datadir $(CHAIN) --threads 2 --profile --profile-hz 1000
	$(PYTHON) tools/flamegraph.py flamegraph.folded -o flamegraph.svg
	@echo "flamegraph.svg is ready: open it in a browser"

# A prefix of its own, unless there is one in the environment.
demo-windows: export WINEPREFIX ?= $(abspath $(BUILD))/wine
demo-windows: export WINEDEBUG ?= -all
demo-windows: export WINEDLLOVERRIDES ?= mscoree,mshtml=d;winemenubuilder.exe=d
demo-windows: $(BUILD)/evm.exe $(CHAIN)/.complete
	wine $(BUILD)/evm.exe -b 1000 -e 2000 --datadir $(CHAIN) --threads 2 --profile --profile-hz 1000 \
	    --profile-output flamegraph-windows.folded
	$(PYTHON) tools/flamegraph.py flamegraph-windows.folded -o flamegraph-windows.svg
	@echo "flamegraph-windows.svg is ready: open it in a browser"

test:
	@$(PYTHON) tests/run.py --install
	@$(PYTHON) tests/run.py

bench:
	@$(PYTHON) tests/bench/bench.py
	@$(PYTHON) tests/bench/symbols.py
	@$(PYTHON) tests/bench/flamegraph.py
	@$(PYTHON) tests/bench/scopes.py

analyze:
	@$(PYTHON) tests/compile/analyze.py $(BUILD)

clean:
	rm -rf $(BUILD) flamegraph.folded flamegraph.svg flamegraph-windows.folded flamegraph-windows.svg

.PHONY: all demo demo-windows test bench analyze clean

# Tests, fuzz targets, benchmarks and the checks of the source itself.

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/*_test.c))
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(wildcard tests/fuzz/*_fuzz.c))
# C drivers of the end-to-end and attack tests; the shell drivers beside them call these.
E2E_DRIVERS := $(patsubst tests/e2e/%.c,$(BUILD)/tests/e2e/%,$(wildcard tests/e2e/*.c)) \
	$(patsubst tests/guest/%.c,$(BUILD)/tests/guest/%,$(wildcard tests/guest/*.c))

# Every archive may be needed by any test: no two of them may define the same symbol.
TEST_ARCHIVES := $(patsubst %,$(BUILD)/%.a,vmm fsserver proxy audit cli guest-init guest-fused jail wire base)
TEST_LIBRARIES := $(shell $(PKG_CONFIG) --libs liburing libseccomp jansson libcyaml yaml-0.1 libcrypto zlib sqlite3 fuse3 $(PROXY_PACKAGES) 2>/dev/null) -lutil -llz4
CHECK_LIBRARIES := $(shell $(PKG_CONFIG) --libs check 2>/dev/null)

$(BUILD)/tests/%.o: EXTRA_CFLAGS = $(HOST_CFLAGS)

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(TEST_ARCHIVES)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(CHECK_LIBRARIES) $(TEST_LIBRARIES)
$(BUILD)/tests/unit/kvm_payload_test: $(BUILD)/vmm/filters.o

# What the drivers share, such as the clients that play a guest.
E2E_LIBRARY := $(BUILD)/tests/e2e/lib.a
$(E2E_LIBRARY): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/e2e/lib/*.c))

$(BUILD)/tests/e2e/%: $(BUILD)/tests/e2e/%.o $(E2E_LIBRARY) $(TEST_ARCHIVES)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(E2E_LIBRARY) $(TEST_ARCHIVES) -Wl,--end-group $(TEST_LIBRARIES)

# Programs that run inside a test's VM, where there is no libc.
$(BUILD)/tests/guest/%: $(BUILD)/tests/guest/%.o $(BUILD)/wire.a $(BUILD)/base.a
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) $(GUEST_LDFLAGS) -o $@ $^

$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(TEST_ARCHIVES)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(TEST_LIBRARIES)

# Only to compare with: nothing of it is part of any program.
LLHTTP_OBJECTS := $(patsubst %,$(BUILD)/tests/llhttp/%.o,api http llhttp)
$(BUILD)/tests/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(CC) -O1 -g -w -isystem /usr/share/include/llhttp -fsanitize=address -c -o $@ $<
$(BUILD)/tests/fuzz/http1_fuzz.o: EXTRA_CFLAGS += -isystem /usr/share/include
$(BUILD)/tests/fuzz/http1_fuzz: $(BUILD)/tests/fuzz/http1_fuzz.o $(TEST_ARCHIVES) $(LLHTTP_OBJECTS)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< $(LLHTTP_OBJECTS) -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(TEST_LIBRARIES)

$(BUILD)/bench/%: $(BUILD)/bench/%.o $(E2E_LIBRARY) $(TEST_ARCHIVES)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(E2E_LIBRARY) $(TEST_ARCHIVES) -Wl,--end-group $(TEST_LIBRARIES)

BENCHMARKS := $(addprefix bench-,boot files rollback audit exec scale proxy)

.PHONY: check check-unit check-source unit-tests e2e-drivers fuzz fuzz-targets fuzz-all fuzz-planted \
	format bench $(BENCHMARKS)
unit-tests: $(UNIT_TESTS)
e2e-drivers: $(E2E_DRIVERS)
fuzz-targets: $(FUZZ_TARGETS)

check: ## set up, build, and run every test
	@scripts/install-deps.sh
	@$(MAKE) --no-print-directory all unit-tests e2e-drivers
	@$(MAKE) --no-print-directory VARIANT=asan all unit-tests e2e-drivers
	@$(MAKE) --no-print-directory VARIANT=tsan unit-tests
	@scripts/guest-kernel.sh
	@tests/run.sh

check-unit: ## the unit tests of this VARIANT alone
	@$(MAKE) --no-print-directory unit-tests
	@tests/run.sh --unit $(VARIANT)

check-source: ## formatting, banned calls, dependency rule, clang-tidy, cppcheck, shellcheck
	@tests/source.sh

# make fuzz TARGET=vsock_queue SECONDS=60
SECONDS ?= 20
fuzz: ## run one fuzz target: TARGET=name SECONDS=n
	@$(MAKE) --no-print-directory VARIANT=fuzz build/fuzz/tests/fuzz/$(TARGET)_fuzz
	@tests/fuzz/run.sh "$(SECONDS)" "$(TARGET)"

fuzz-all: ## run every fuzz target for SECONDS each
	@$(MAKE) --no-print-directory VARIANT=fuzz fuzz-targets
	@tests/fuzz/run.sh "$(SECONDS)"

fuzz-planted: ## show that each fuzz target finds a planted bug
	@tests/fuzz/planted.sh

format: ## apply clang-format to the tree
	@git ls-files -- '*.c' '*.h' | xargs clang-format -i

# One after another, however many jobs make may run.
bench: all e2e-drivers ## every benchmark
	@for name in $(BENCHMARKS); do $(MAKE) --no-print-directory $$name || exit; done

bench-rollback: $(BUILD)/bench/undo_bench
bench-audit: $(BUILD)/bench/mutations
bench-exec: $(BUILD)/bench/pump
bench-proxy: $(BUILD)/bench/http_load
bench-files bench-audit: e2e-drivers
$(BENCHMARKS): bench-%: all
	@scripts/install-deps.sh --bench || echo "measuring without what is missing" >&2
	@scripts/guest-kernel.sh
	@bench/$*

# The testbed (tests/testbed/run.sh): a VM with a real /dev/kvm. Its programs have a build of
# their own, because run.sh makes them whatever VARIANT is being tested.
# TESTS='name ...' chooses among the KVM tests.
.PHONY: testbed testbed-check testbed-long testbed-programs
TESTBED_RELAY := $(BUILD)/tests/testbed/relay
$(TESTBED_RELAY): $(BUILD)/tests/testbed/relay.o $(BUILD)/base.a
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -static -o $@ $^

TESTBED_MACHINE := $(BUILD)/tests/testbed/machine
$(TESTBED_MACHINE): $(BUILD)/tests/testbed/machine.o $(BUILD)/vmm/acpi_tables.o $(BUILD)/base.a
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $^

$(BUILD)/initramfs-testbed.cpio: tests/testbed/init.sh tests/testbed/initramfs.sh scripts/newc.sh
	@mkdir -p $(@D)
	@echo "  CPIO    $@"
	@tests/testbed/initramfs.sh $@

testbed-programs: $(TESTBED_RELAY) $(TESTBED_MACHINE) $(BUILD)/initramfs-testbed.cpio

# make testbed CMD='ls -l /dev/kvm'. The text reaches the shell as it is, dollar signs included; what
# it writes to standard output comes alone there. Make itself ends with 2 for any failure and names
# the status; run.sh, which this calls, ends with it.
testbed: export TESTBED_COMMAND = $(value CMD)
testbed: ## run CMD='...' where /dev/kvm is real, in an emulated VM
	@if [ -z "$$TESTBED_COMMAND" ]; then \
		echo "make testbed: say what to run in it, for example: make testbed CMD='ls -l /dev/kvm'" >&2; \
		exit 2; \
	fi
	@scripts/install-deps.sh >&2
	@$(MAKE) --no-print-directory all >&2
	@MATCHLOCK_BUILD=$(BUILD) tests/testbed/run.sh -- "$$TESTBED_COMMAND"

testbed-check: TESTBED_SECONDS := 900
testbed-long: TESTBED_SECONDS := 7200
testbed-long: export MATCHLOCK_LONG := 1
testbed-long: export MATCHLOCK_TEST_TIMEOUT := 3600
testbed-check: ## run the KVM tests, tests/kvm/, in a testbed, or two side by side
testbed-long: ## the same in their long form
testbed-check testbed-long:
	@scripts/install-deps.sh
	@$(MAKE) --no-print-directory all e2e-drivers
	@MATCHLOCK_BUILD=$(BUILD) tests/testbed/check_all.sh $(TESTBED_SECONDS) $(TESTS)

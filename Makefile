# Matchlock. `make` builds, `make run` shows it at work, `make check` tests; `make help` lists the rest.
#
# One make over the whole tree: each folder's module.mk declares its library and programs.
# Output goes to build/<variant>/; VARIANT is release (default), debug, asan, tsan or fuzz.

VARIANT ?= release
BUILD   := build/$(VARIANT)
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:

# ---- toolchain ---------------------------------------------------------------------------------
ifeq ($(VARIANT),$(filter $(VARIANT),asan tsan fuzz))
CC := clang
else
CC := gcc
endif
AR := ar
PKG_CONFIG := pkg-config

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wundef -Wswitch-enum \
	-Wimplicit-fallthrough -Wnull-dereference -Wconversion -Wno-sign-conversion -Werror
HARDENING := -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection \
	-fcf-protection=full -ftrivial-auto-var-init=zero
COMMON := -std=c17 -D_GNU_SOURCE -DMATCHLOCK_VERSION='"$(VERSION)"' -I. $(WARNINGS) -fno-strict-aliasing \
	-fno-strict-overflow -pthread

FLAGS_release := -O2 -g $(HARDENING)
FLAGS_debug   := -O0 -g3
FLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
FLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -DMATCHLOCK_FUZZ
CFLAGS  := $(COMMON) $(FLAGS_$(VARIANT))
LDFLAGS := -pthread $(filter -fsanitize=address% -fsanitize=thread,$(FLAGS_$(VARIANT)))
ifeq ($(VARIANT),fuzz)
LDFLAGS += -fsanitize=address,undefined
endif

# Host programs are position independent, and what each guest waits for (the VMM) is static besides:
# finding and linking its libraries took a quarter of its start. Guest programs are static, because
# the initramfs holds nothing else. No sanitizer links statically: in those variants the guest's
# programs run on the host alone, and there is no initramfs.
HOST_CFLAGS   := -fPIE
HOST_LDFLAGS  := -pie -Wl,-z,relro,-z,now,-z,noexecstack
ifeq ($(VARIANT),$(filter $(VARIANT),asan tsan fuzz))
STATIC_LDFLAGS := $(HOST_LDFLAGS)
GUEST_LDFLAGS := $(HOST_LDFLAGS)
INITRAMFS     :=
else
STATIC_LDFLAGS := -static-pie -Wl,-z,relro,-z,now,-z,noexecstack
GUEST_LDFLAGS := -static -Wl,-z,relro,-z,now,-z,noexecstack
INITRAMFS     := $(BUILD)/initramfs.cpio
endif

# ---- rules for one library, one program --------------------------------------------------------
PROGRAMS :=
GUEST_PROGRAMS :=
LIBRARY_DIRS :=

# $(call library,DIR,EXTRA_CFLAGS): DIR/*.c without main.c becomes $(BUILD)/DIR.a
define library
LIBRARY_DIRS += $(1)
$(BUILD)/$(1).a: $$(patsubst %.c,$(BUILD)/%.o,$$(filter-out $(1)/main.c,$$(wildcard $(1)/*.c)))
$(BUILD)/$(1)/%.o: EXTRA_CFLAGS = $(HOST_CFLAGS) $(2)
endef

# $(call linked,NAME,DIR,LIBRARY DIRS,LIBRARIES,FLAGS): DIR/main.c and DIR.a become $(BUILD)/NAME
define linked
PROGRAMS += $(BUILD)/$(1)
$(BUILD)/$(1): $(BUILD)/$(2)/main.o $(BUILD)/$(2).a $(3:%=$(BUILD)/%.a)
	@echo "  LINK    $$@"
	@$$(CC) $$(LDFLAGS) $(5) -o $$@ $$^ $(4)
endef

# $(call program,NAME,DIR,LIBRARY DIRS,LIBRARIES) links with shared libraries, static_program with none.
program = $(call linked,$(1),$(2),$(3),$(4),$(HOST_LDFLAGS))
static_program = $(call linked,$(1),$(2),$(3),$(4),$(STATIC_LDFLAGS))

# $(call guest_program,NAME,DIR,LIBRARY DIRS,LIBRARIES): the same, static, as $(BUILD)/guest/NAME
# (its objects are in $(BUILD)/NAME)
define guest_program
GUEST_PROGRAMS += $(BUILD)/guest/$(1)
$(BUILD)/guest/$(1): $(BUILD)/$(2)/main.o $(BUILD)/$(2).a $(3:%=$(BUILD)/%.a)
	@mkdir -p $$(@D)
	@echo "  LINK    $$@"
	@$$(CC) $$(LDFLAGS) $(GUEST_LDFLAGS) -o $$@ $$^ $(4)
endef

include base/module.mk wire/module.mk jail/module.mk audit/module.mk vmm/module.mk \
	fsserver/module.mk proxy/module.mk cli/module.mk guest-init/module.mk guest-fused/module.mk

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(CC) $(CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.a:
	@mkdir -p $(@D)
	@echo "  AR      $@"
	@rm -f $@ && $(AR) rcs $@ $^

include scripts/tests.mk

# ---- what people call --------------------------------------------------------------------------
.PHONY: all deps guest-kernel run install clean help initramfs
all: $(PROGRAMS) $(GUEST_PROGRAMS) initramfs ## build everything into build/$(VARIANT)/

initramfs: $(INITRAMFS)

# guest-init alone, which is guest-fused too.
$(BUILD)/initramfs.cpio: $(BUILD)/guest/guest-init scripts/make-initramfs.sh
	@echo "  CPIO    $@"
	@scripts/make-initramfs.sh $@ $<

deps: ## install what building and testing need, from Debian's packages
	@scripts/install-deps.sh

guest-kernel: ## build the trimmed guest kernel, which boots faster, into the cache (6 min)
	@scripts/install-deps.sh --kernel
	@MATCHLOCK_KERNEL=debian scripts/guest-kernel.sh
	@scripts/build-guest-kernel.sh

run: ## set up, build, and show the main job on a scratch copy of a real repository
	@scripts/install-deps.sh
	@$(MAKE) --no-print-directory all
	@scripts/guest-kernel.sh
	@scripts/demo.sh $(BUILD)/matchlock

install: all ## install below $(DESTDIR)$(PREFIX)
	@scripts/install.sh "$(BUILD)" "$(DESTDIR)" "$(PREFIX)"

clean: ## remove build output
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

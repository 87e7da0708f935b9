# Makefile: builds what this machine can build.
#
#   make            lhd, lhctl, lhkeeper, lhworker-cpu under build/bin
#   make demo       the whole thing on real text, in a few minutes
#   make test       everything that needs no GPU; what .ci/run runs
#   make bench      timings, never part of the tests
#   make deps       installs what is missing from Debian's packages (root or sudo)
#   make help       this list
#
# Knobs, on the command line:
#   BUILD=DIR       where everything goes (build)
#   SAN=1           AddressSanitizer and UBSan, under BUILD/san
#   V=1             show whole commands
#   ARCH=...        -march of the CPU code (x86-64-v3 on x86-64)
#   PREFIX=DIR      for `make install` (/usr/local)
#
# Objects mirror the source tree. Everything but the main()s is one archive;
# each program links its own main and takes from the archive what it uses.

BUILD   ?= build
CC      ?= gcc
PREFIX  ?= /usr/local
MACHINE := $(shell uname -m)
ARCH    ?= $(if $(filter x86_64,$(MACHINE)),x86-64-v3,native)

ifdef SAN
override BUILD := $(BUILD)/san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer -O1
endif

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

PKGS     := libuv jansson yaml-0.1 sqlite3 openblas libxxhash
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
            -Wmissing-prototypes -Wvla -Wno-unknown-pragmas
CPPFLAGS := -D_GNU_SOURCE -Iinclude -Idaemon -I$(BUILD)/gen
CFLAGS   := -std=c17 -O2 -g $(WARN)
LDFLAGS  := -Wl,--as-needed
# The compute code: vectorised, contracted to FMA, but never reassociated, so
# that results do not depend on the compiler's mood.
KERNEL_CFLAGS := -O3 -march=$(ARCH) -ffp-contract=fast -fno-math-errno \
                 -fno-trapping-math -fopenmp

LIB_BASE := $(BUILD)/liblighthouse.a
GEN      := $(BUILD)/gen
GEN_OUT  := $(addprefix $(GEN)/,lighthouse/err_codes.h err_codes.c \
              migrations.c rpc_table.h rpc_table.c job_table.c)

SRC := $(sort $(wildcard daemon/base/*.c daemon/data/*.c daemon/control/*.c \
         daemon/jobs/*.c daemon/store/*.c daemon/train/*.c kernels/*.c \
         kernels/cpu/*.c ctl/*.c))
MAINS := daemon/train/main.c ctl/main.c
LIB_SRC := $(filter-out $(MAINS),$(SRC))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o) \
           $(patsubst %.c,$(BUILD)/obj/gen/%.o,err_codes.c migrations.c \
             rpc_table.c job_table.c)

LIBS_lhd      = $(shell pkg-config --libs libuv jansson yaml-0.1 sqlite3 libxxhash) -lm -lpthread
LIBS_lhctl    = $(shell pkg-config --libs jansson yaml-0.1 libxxhash) -lm -lpthread
LIBS_lhworker = $(shell pkg-config --libs jansson yaml-0.1 openblas libxxhash) -lm -lpthread
LIBS_test     = $(shell pkg-config --libs $(PKGS) cmocka) -lm -lpthread

PROGRAMS := $(addprefix $(BUILD)/bin/,lhd lhctl lhkeeper lhworker-cpu)

# Unit tests: tests/DIR/test_*.c, a cmocka program each. Other programs of the
# tests (checkers, benchmarks) are named here.
UNIT_SRC := $(sort $(wildcard tests/*/test_*.c))
UNITS    := $(UNIT_SRC:tests/%.c=$(BUILD)/tests/%)
CHECKERS := $(BUILD)/tests/lighthouse-vectors
BENCHES  := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(sort $(wildcard tests/bench/*.c)))

.PHONY: all help deps test units demo bench install clean
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGRAMS)

help:
	@sed -n 's/^#   //p' Makefile

# ---- generated sources -------------------------------------------------------
GEN_SRC := $(sort $(wildcard schema/gen/*.c))
$(BUILD)/schema-gen: $(GEN_SRC) $(wildcard schema/gen/*.h)
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)$(CC) -std=c17 -O1 -g $(WARN) -D_GNU_SOURCE -o $@ $(GEN_SRC) \
	  $(shell pkg-config --cflags --libs jansson)

$(GEN)/.done: $(BUILD)/schema-gen $(wildcard schema/*.json schema/rpc/*.json schema/store/*.sql)
	@mkdir -p $(GEN)/lighthouse
	$(Q)$(BUILD)/schema-gen schema $(GEN)
	@touch $@
$(GEN_OUT): $(GEN)/.done

# ---- objects -----------------------------------------------------------------
$(BUILD)/obj/gen/%.o: $(GEN)/%.c $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(SANFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/kernels/%.o: kernels/%.c $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(KERNEL_CFLAGS) $(SANFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.o: %.c $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(SANFLAGS) -MMD -MP -c -o $@ $<

$(LIB_BASE): $(LIB_OBJ)
	@rm -f $@
	$(Q)ar rcsP $@ $^

# ---- programs ----------------------------------------------------------------
link = $(call say,LINK,$@)
$(BUILD)/bin/lhd: $(BUILD)/obj/daemon/main.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS_lhd)

$(BUILD)/bin/lhkeeper: $(BUILD)/obj/daemon/keeper/main.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ -ljansson

$(BUILD)/bin/lhctl: $(BUILD)/obj/ctl/main.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS_lhctl)

$(BUILD)/bin/lhworker-cpu: $(BUILD)/obj/daemon/train/main.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_lhworker)

# ---- tests -------------------------------------------------------------------
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_test)

# These run the real programs.
$(BUILD)/tests/keeper/test_keeper: | $(BUILD)/bin/lhkeeper
$(BUILD)/tests/train/test_worker: | $(BUILD)/bin/lhkeeper $(BUILD)/bin/lhworker-cpu

$(BUILD)/tests/lighthouse-vectors: $(BUILD)/obj/tests/kernels/lighthouse_vectors.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_lhworker)

$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_lhworker)

units: $(UNITS) $(CHECKERS)

NODE_TESTS := $(sort $(wildcard tests/*.test.mjs tests/*/*.test.mjs))

# Two builds are tested: as shipped, and under AddressSanitizer and UBSan. One
# node:test run closes with the count of all of it.
test: deps
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all units
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) SAN=1 all units
	$(Q)LH_BUILD=$(abspath $(BUILD)) node --test --test-reporter=spec $(NODE_TESTS)

demo: deps
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)LH_BUILD=$(abspath $(BUILD)) ctl/examples/demo.sh

bench: all $(BENCHES)
	$(Q)for b in $(BENCHES); do echo "== $$b"; $$b || exit 1; done
	$(Q)LH_BUILD=$(abspath $(BUILD)) node tests/bench/control.mjs

install: all
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin

# ---- Debian packages ---------------------------------------------------------
# Only what is missing is installed; node counts as there when it is on PATH,
# wherever it came from.
JOBS ?= $(shell nproc)
DEB := pkg-config libuv1-dev libjansson-dev libyaml-dev libsqlite3-dev \
       libopenblas-openmp-dev libxxhash-dev libcmocka-dev sqlite3 valgrind
deps:
	@missing=; for p in $(DEB); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	node=$$(command -v node) || missing="$$missing nodejs"; \
	[ -z "$$missing" ] && exit 0; \
	echo "installing:$$missing"; \
	if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$sudo apt-get update -q && $$sudo apt-get install -y -q --no-install-recommends $$missing || { \
	  echo "error: could not install:$$missing" >&2; \
	  echo "hint: run 'apt-get install$$missing' as root, then make again" >&2; exit 1; }

clean:
	rm -rf $(BUILD)

-include $(wildcard $(BUILD)/obj/*/*.d $(BUILD)/obj/*/*/*.d $(BUILD)/obj/*/*/*/*.d)

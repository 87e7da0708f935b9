# Makefile: builds what this machine can build.
#
#   make            lhd, lhctl, lhkeeper, lhgpus, lhworker-cpu under build/bin
#   make demo       the whole thing on real text, in a few minutes
#   make test       everything that needs no GPU; what .ci/run runs
#   make soak HOURS=1  random faults for so long; see tests/crash
#   make fuzz MINUTES=10  hostile input for so long a target; see tests/fuzz
#   make bench      timings, never part of the tests
#   make screenshots  the pictures of the README, anew
#   make dist       a tree that runs on another host: BUILD/dist
#   make test-gpu   what needs a GPU (also: dist/tests/run.sh, no compiler)
#   make bench-gpu  a layer's and whole steps' times beside their limits
#   make reference  brings schema/README.md up to date with schema/
#   make deps       installs what is missing from Debian's packages (root or sudo)
#   make help       this list
#
# Knobs, on the command line:
#   BUILD=DIR       where everything goes (build)
#   SAN=1           AddressSanitizer and UBSan, under BUILD/san
#   FAILPOINTS=1    places where tests make a process fail, under BUILD/fail
#   FUZZ=1          what `make fuzz` runs, by clang, under BUILD/fuzz
#   V=1             show whole commands
#   ARCH=...        -march of the CPU code (x86-64-v3 on x86-64)
#   NVCC=...        CUDA 13's nvcc (found on PATH or under /usr/local/cuda);
#                   NVCC= builds without CUDA
#   HF_NPM=         without what reads tokenizer.json, which is npm's
#   WEB_DIST=DIR    a page that is built already, in place of web/ by npm
#   CUDNN_HOME=DIR  where include/cudnn.h and lib/ are, if not beside CUDA's
#   CUDA_ARCH=90a   GPUs to build for
#   PREFIX=DIR      for `make install` (/usr/local)
#
# Objects mirror the source tree. Everything but the main()s is one archive;
# each program links its own main and takes from the archive what it uses.

BUILD   ?= build
WEB_OUT := $(BUILD)/web
CC      ?= gcc
PREFIX  ?= /usr/local
MACHINE := $(shell uname -m)
ARCH    ?= $(if $(filter x86_64,$(MACHINE)),x86-64-v3,native)

ifdef SAN
override BUILD := $(BUILD)/san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer -O1
endif

ifdef FAILPOINTS
override BUILD := $(BUILD)/fail
FAILFLAGS := -DLH_FAILPOINTS
endif

# clang, for its libFuzzer; its OpenMP is another library, and not needed here.
ifdef FUZZ
override BUILD := $(BUILD)/fuzz
override CC := clang
FUZZER   := -fsanitize=fuzzer
SANFLAGS := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer -O1
endif
OPENMP := $(if $(FUZZ),,-fopenmp)

# The CUDA backend is built where nvcc 13, cuBLASLt and cuDNN's header are; what is
# missing is said once. None of the other builds has it.
NVCC      ?= $(firstword $(shell command -v nvcc 2>/dev/null) \
               $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_ARCH ?= 90a
ifeq ($(SAN)$(FAILPOINTS)$(FUZZ),)
ifneq ($(NVCC),)
# Asked of nvcc: the one on PATH may be a script somewhere else.
NVCC_SAYS := $(shell { $(NVCC) --version; \
               $(NVCC) --dryrun -x cu -c /dev/null -o /dev/null; } 2>&1 | \
               sed -n -e 's/.*release \([0-9]*\)\..*/release=\1/p' \
                      -e 's/^\#\$$ TOP=/top=/p' -e 's/^\#\$$ INCLUDES="\([^"]*\)".*/\1/p')
CUDA_RELEASE := $(patsubst release=%,%,$(filter release=%,$(NVCC_SAYS)))
CUDA_HOME := $(realpath $(patsubst top=%,%,$(filter top=%,$(NVCC_SAYS))))
CUDA_INCLUDE := $(realpath $(patsubst -I%,%,$(filter -I%,$(NVCC_SAYS))))
CUDNN_INCLUDE := $(firstword $(patsubst %/cudnn.h,%,$(wildcard $(addsuffix /cudnn.h, \
                   $(if $(CUDNN_HOME),$(CUDNN_HOME)/include,$(CUDA_INCLUDE) /usr/include \
                     /usr/include/$(MACHINE)-linux-gnu)))))
CUDNN_MAJOR := $(if $(CUDNN_INCLUDE),$(shell sed -n \
                 's/.*define CUDNN_MAJOR *\([0-9]*\).*/\1/p' $(CUDNN_INCLUDE)/cudnn_version.h))
CUDA_LACKS := $(strip \
  $(if $(CUDA_RELEASE),$(if $(filter 1 2 3 4 5 6 7 8 9 10 11 12,$(CUDA_RELEASE)), \
    nvcc is of CUDA $(CUDA_RELEASE): name CUDA 13's in NVCC=FILE), \
    '$(NVCC)' does not run: name CUDA 13's in NVCC=FILE))
ifeq ($(CUDA_LACKS),)
CUDA_LACKS := $(strip \
  $(if $(wildcard $(CUDA_HOME)/lib64/libcublasLt.so),,there is no \
    $(CUDA_HOME)/lib64/libcublasLt.so: install CUDA 13's libcublas-dev))
endif
ifeq ($(CUDA_LACKS),)
CUDA_LACKS := $(strip \
  $(if $(filter 9,$(CUDNN_MAJOR)),,there is no cudnn.h of cuDNN 9: install cuDNN 9 for \
    CUDA 13, or name its directory in CUDNN_HOME=DIR))
endif
ifeq ($(CUDA_LACKS),)
HAVE_CUDA := 1
else ifeq ($(MAKELEVEL),0)
$(info lhworker-cuda is left out: $(CUDA_LACKS))
endif
endif
endif

# The page is built where web/ and npm are; without it lhd serves one that says so.
WEB_SRC := $(if $(wildcard web/package.json),$(shell find web -type f \
             -not -path 'web/node_modules/*' -not -path 'web/dist/*' \
             -not -path 'web/monitoring/*' -not -path 'web/screenshots/*'))
ifdef WEB_DIST
WEB_DONE :=
else ifeq ($(if $(WEB_SRC),$(shell command -v npm 2>/dev/null)),)
WEB_DIST := daemon/http/unbuilt
WEB_DONE :=
ifneq ($(WEB_SRC),)
ifeq ($(MAKELEVEL),0)
$(info the page is left out: there is no npm; 'make deps' installs it)
endif
endif
else
WEB_DIST := $(WEB_OUT)
WEB_DONE := $(WEB_OUT)/.done
endif

# lhctl makes ids of text by programs of their own, each where its library is: node's
# `tokenizers` from npm, and SentencePiece. What is missing is said once.
HF_SRC := ctl/tokenizers/hf
HF_NPM := $(if $(shell command -v npm 2>/dev/null),$(HF_SRC)/node_modules/.package-lock.json)
# An allocator of Debian's, which does a third of the work that glibc's does for `tokenizers`.
MIMALLOC := $(if $(HF_NPM),$(wildcard /usr/lib/$(MACHINE)-linux-gnu/libmimalloc.so.2))
HAVE_SENTENCEPIECE := $(shell pkg-config --exists sentencepiece 2>/dev/null && echo 1)
ifeq ($(MAKELEVEL),0)
ifeq ($(HF_NPM),)
$(info what reads tokenizer.json is left out: it takes npm; 'make deps' installs that)
endif
ifeq ($(if $(HF_NPM),$(MIMALLOC),none),)
$(info what reads tokenizer.json is a third slower without libmimalloc2.0; 'make deps' \
  installs that)
endif
ifeq ($(HAVE_SENTENCEPIECE),)
$(info what reads SentencePiece's .model is left out: it takes libsentencepiece-dev; \
  'make deps' installs that)
endif
endif

# What a checkpoint says it was written by; nothing where there is no git tree.
REVISION := $(if $(wildcard .git),$(shell \
               git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

PKGS     := libuv jansson yaml-0.1 sqlite3 openblas libxxhash libmicrohttpd nettle zlib libzstd
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
            -Wmissing-prototypes -Wvla -Wno-unknown-pragmas \
            $(if $(FUZZ),-Wno-missing-field-initializers)
CPPFLAGS := -D_GNU_SOURCE $(FAILFLAGS) -Iinclude -Idaemon -I$(BUILD)/gen
CFLAGS   := -std=c17 -O2 -g $(WARN)
# Programs find libraries of a dist tree beside themselves; DT_RPATH because it
# also holds for libraries of libraries.
LDFLAGS  := -Wl,--as-needed -Wl,--disable-new-dtags -Wl,-rpath,'$$ORIGIN/../lib'
# The compute code: vectorised, contracted to FMA, but never reassociated, so
# that results do not depend on the compiler's mood.
KERNEL_CFLAGS := -O3 -march=$(ARCH) -ffp-contract=fast -fno-math-errno \
                 -fno-trapping-math $(OPENMP)

LIB_BASE := $(BUILD)/liblighthouse.a
GEN      := $(BUILD)/gen
GEN_OUT  := $(addprefix $(GEN)/,lighthouse/err_codes.h err_codes.c \
              migrations.c rpc_table.h rpc_table.c job_table.c)

SRC := $(sort $(wildcard daemon/base/*.c daemon/data/*.c daemon/control/*.c \
         daemon/devices/*.c daemon/http/*.c daemon/jobs/*.c daemon/join/*.c daemon/store/*.c \
         daemon/train/*.c \
         kernels/*.c kernels/cpu/*.c ctl/*.c) kernels/cuda/sizes.c)
MAINS := daemon/train/main.c daemon/devices/main.c ctl/main.c
LIB_SRC := $(filter-out $(MAINS),$(SRC))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o) \
           $(patsubst %.c,$(BUILD)/obj/gen/%.o,err_codes.c migrations.c \
             rpc_table.c job_table.c build.c assets.c)

LIBS_lhd      = $(shell pkg-config --libs libuv jansson yaml-0.1 sqlite3 libxxhash \
                  libmicrohttpd nettle) -lm -lpthread
LIBS_lhctl    = $(shell pkg-config --libs jansson yaml-0.1 sqlite3 libxxhash zlib libzstd) -lm -lpthread
LIBS_lhworker = $(shell pkg-config --libs jansson yaml-0.1 openblas libxxhash nettle) -lm -lpthread
LIBS_test     = $(shell pkg-config --libs $(PKGS) cmocka) -lm -lpthread

# The runtime is linked in; cuBLASLt is the host's, cuDNN is opened when wanted.
LIBS_cuda = -L$(CUDA_HOME)/lib64 -Wl,-rpath,/usr/local/cuda/lib64 -lcublasLt \
            -lcudart_static -lstdc++ -ldl -lrt -lpthread

PROGRAMS := $(addprefix $(BUILD)/bin/,lhd lhctl lhkeeper lhgpus lhworker-cpu \
              $(if $(HAVE_CUDA),lhworker-cuda) $(if $(HAVE_SENTENCEPIECE),lhsentencepiece))
HF_OUT   := $(BUILD)/lib/lighthouse/hf
HF_DONE  := $(if $(HF_NPM),$(HF_OUT)/main.mjs $(if $(MIMALLOC),$(HF_OUT)/libmimalloc.so))

# Unit tests: tests/DIR/test_*.c, a cmocka program each. Other programs of the
# tests (checkers, benchmarks) are named here.
UNIT_SRC := $(filter-out $(if $(HAVE_CUDA),,tests/gpu/%),$(sort $(wildcard tests/*/test_*.c)))
UNITS    := $(UNIT_SRC:tests/%.c=$(BUILD)/tests/%)
CHECKERS := $(BUILD)/tests/lighthouse-vectors $(BUILD)/tests/models/logits
SHIM     := $(BUILD)/tests/clock.so
GPU_TESTS := $(addprefix $(BUILD)/tests/gpu/,ops model large deterministic bench_layer bench_step comm ranks_model ranks_bench ranks_context)
CUDA_OBJ := $(patsubst kernels/cuda/%,$(BUILD)/obj/kernels/cuda/%.o, \
              $(basename $(sort $(filter-out %/sizes.c,$(wildcard kernels/cuda/*.cu kernels/cuda/*.c)))))
# A program a target: under libFuzzer with FUZZ=1, else it replays inputs.
FUZZERS  := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
BENCHES  := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(sort $(wildcard tests/bench/*.c)))

.PHONY: FORCE all help reference deps test units demo screenshots bench soak install clean dist test-gpu bench-gpu deps-fuzz deps-promtool fuzzers fuzz
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGRAMS) $(HF_DONE)

help:
	@sed -n 's/^#   //p' Makefile

# ---- generated sources -------------------------------------------------------
GEN_SRC := $(sort $(wildcard schema/gen/*.c))
$(BUILD)/schema-gen: $(GEN_SRC) $(wildcard schema/gen/*.h)
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)$(CC) -std=c17 -O1 -g $(WARN) -D_GNU_SOURCE -o $@ $(GEN_SRC) \
	  $(shell pkg-config --cflags --libs jansson)

$(GEN)/.done: $(BUILD)/schema-gen $(wildcard schema/*.json schema/README.md schema/rpc/*.json schema/store/*.sql)
	@mkdir -p $(GEN)/lighthouse
	$(Q)$(BUILD)/schema-gen schema $(GEN)
	@touch $@
$(GEN_OUT): $(GEN)/.done

reference: $(GEN)/.done
	cp $(GEN)/README.md schema/README.md

# ---- the page ----------------------------------------------------------------
# npm writes beside its sources only what git ignores; one build serves all others.
$(WEB_OUT)/.done: $(WEB_SRC)
	$(call say,WEB,$(WEB_OUT))
	$(Q)cd web && { npm ci --no-audit --no-fund --loglevel=error >/dev/null && \
	  npm run --silent build -- --outDir $(abspath $(WEB_OUT)) --emptyOutDir; } >&2 || { \
	  echo "hint: make WEB_DIST=daemon/http/unbuilt builds all but the page" >&2; exit 1; }
	@touch $@

$(BUILD)/embed: daemon/http/embed/main.c
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)$(CC) -std=c17 -O1 -g $(WARN) -D_GNU_SOURCE -o $@ $< \
	  $(shell pkg-config --cflags --libs libxxhash)

# Written anew when it changes: WEB_DIST may be another one than last time.
$(GEN)/assets.c: $(BUILD)/embed $(WEB_DONE) FORCE
	@mkdir -p $(@D)
	$(Q)$(BUILD)/embed $(WEB_DIST) $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Written anew when it changes, so that only then programs are linked again.
$(GEN)/build.c: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '#include "lighthouse/version.h"' \
	  'const char lh_build[] = LH_VERSION$(if $(REVISION), " ($(REVISION))");' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
FORCE:

# ---- objects -----------------------------------------------------------------
$(BUILD)/obj/gen/%.o: $(GEN)/%.c $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(SANFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/kernels/%.o: kernels/%.c $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(KERNEL_CFLAGS) $(SANFLAGS) -MMD -MP -c -o $@ $<

# Its header alone: the library is opened when a job has ranks.
MPI_CFLAGS := $(if $(FUZZ),,$(shell pkg-config --cflags-only-I mpich 2>/dev/null))
$(BUILD)/obj/kernels/cpu/comm.o: CPPFLAGS += $(if $(MPI_CFLAGS),-DLH_HAVE_MPI \
  $(MPI_CFLAGS:-I%=-isystem %))

# Fills weights with all CPUs.
$(BUILD)/obj/daemon/train/model.o: CFLAGS += $(OPENMP)
# Loops over every weight, which -O2 leaves at an element a turn.
$(BUILD)/obj/daemon/data/convert.o: CFLAGS += -O3

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

$(BUILD)/bin/lhgpus: $(BUILD)/obj/daemon/devices/main.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ -ljansson -ldl

$(BUILD)/bin/lhctl: $(BUILD)/obj/ctl/main.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS_lhctl)

$(BUILD)/bin/lhworker-cpu: $(BUILD)/obj/daemon/train/main.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_lhworker)

# ---- tokenizers --------------------------------------------------------------
$(BUILD)/bin/lhsentencepiece: ctl/tokenizers/sentencepiece.cc
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CXX) -std=c++17 -O2 -g -Wall -Wextra -Werror $(SANFLAGS) $(LDFLAGS) -o $@ $< \
	  $(shell pkg-config --cflags --libs sentencepiece)

$(HF_SRC)/node_modules/.package-lock.json: $(HF_SRC)/package-lock.json
	$(call say,NPM,$(HF_SRC))
	$(Q)cd $(HF_SRC) && { npm ci --no-audit --no-fund --loglevel=error >/dev/null && \
	  touch node_modules/.package-lock.json; } >&2 || { \
	  echo "hint: make HF_NPM= builds all but tokenizer.json" >&2; exit 1; }

# npm brings the library of every system: Linux's are taken.
$(HF_OUT)/main.mjs: $(HF_SRC)/main.mjs $(HF_NPM)
	@mkdir -p $(@D)/node_modules/tokenizers
	$(call say,COPY,$@)
	$(Q)cd $(HF_SRC)/node_modules/tokenizers && cp LICENSE package.json index.js \
	  tokenizers.linux-*-gnu.node $(abspath $(HF_OUT))/node_modules/tokenizers
	$(Q)cp $(HF_SRC)/package.json $(@D) && cp $< $@

$(HF_OUT)/libmimalloc.so: $(MIMALLOC)
	@mkdir -p $(@D)
	$(call say,COPY,$@)
	$(Q)cp -L $< $@
	$(Q)for f in $(wildcard /usr/share/doc/libmimalloc2.0/copyright); do \
	  cp $$f $(@D)/mimalloc.copyright; done

# ---- tests -------------------------------------------------------------------
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_test)

$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(if $(FUZZ),,$(BUILD)/obj/tests/fuzz/replay.o) $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(FUZZER) $(LDFLAGS) $(OPENMP) -o $@ $^ $(LIBS_test)

# These run the real programs.
$(BUILD)/tests/base/test_notify: | $(BUILD)/bin/lhd
$(BUILD)/tests/keeper/test_keeper: | $(BUILD)/bin/lhkeeper
$(addprefix $(BUILD)/tests/train/,test_worker test_worker_alone test_worker_stop): | $(BUILD)/bin/lhkeeper $(BUILD)/bin/lhworker-cpu
$(BUILD)/tests/train/test_worker_alone: | $(if $(HAVE_CUDA),$(BUILD)/bin/lhworker-cuda)

$(BUILD)/tests/lighthouse-vectors: $(BUILD)/obj/tests/kernels/lighthouse_vectors.o $(LIB_BASE) \
                                   $(if $(HAVE_CUDA),$(CUDA_OBJ))
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $(filter %.o,$^) $(LIB_BASE) \
	  $(LIBS_lhworker) $(if $(HAVE_CUDA),$(LIBS_cuda))

$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_lhworker)

fuzzers: $(FUZZERS)

# Preloaded into real programs by tests.
$(SHIM): tests/e2e/lib/clock.c
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -shared -fPIC -o $@ $<

# NVIDIA's library without a GPU; a test says what it is to do.
STUB_NVML := $(BUILD)/tests/devices/libnvidia-ml.so.1
$(STUB_NVML): tests/devices/stub_nvml.c
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -shared -fPIC -o $@ $<

units: $(UNITS) $(CHECKERS) $(FUZZERS) $(SHIM) $(STUB_NVML) $(if $(HAVE_CUDA),$(GPU_TESTS))

# ---- CUDA --------------------------------------------------------------------
ifdef HAVE_CUDA
CUDA_CPPFLAGS := $(addprefix -isystem ,$(sort $(CUDA_INCLUDE) \
                   $(filter-out /usr/include /usr/include/$(MACHINE)-linux-gnu,$(CUDNN_INCLUDE))))
# C++20 for designated initializers of the op tables; the code is C otherwise.
NVCCFLAGS := -std=c++20 -O3 -lineinfo --compress-mode=size \
             -gencode=arch=compute_$(CUDA_ARCH),code=sm_$(CUDA_ARCH) \
             -Werror all-warnings -Xcompiler -Wall,-Wextra,-Werror \
             -DLH_CUDA_ARCH='"$(CUDA_ARCH)"'

$(BUILD)/obj/kernels/cuda/%.o: kernels/cuda/%.cu $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(CPPFLAGS) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/kernels/cuda/%.o: kernels/cuda/%.c $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CUDA_CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/daemon/train/main-cuda.o: daemon/train/main.c $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -DLH_WORKER_OPS=lh_ops_cuda -MMD -MP -c -o $@ $<

$(BUILD)/bin/lhworker-cuda: $(BUILD)/obj/daemon/train/main-cuda.o $(CUDA_OBJ) $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_lhworker) $(LIBS_cuda)

$(BUILD)/obj/tests/kernels/lighthouse_vectors.o: CPPFLAGS += -DLH_HAVE_CUDA

$(BUILD)/obj/tests/gpu/%.o: CPPFLAGS += -Ikernels/cuda $(CUDA_CPPFLAGS) \
  -DLH_CUDA_LIB='"$(CUDA_HOME)/lib64"' \
  -DLH_CUDNN_LIB='"$(if $(CUDNN_HOME),$(CUDNN_HOME)/lib,$(CUDA_HOME)/lib64)"'

$(BUILD)/obj/tests/gpu/%.o: tests/gpu/%.cu $(GEN)/.done
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(CPPFLAGS) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

# Of the backend they use what needs no CUDA library.
$(BUILD)/tests/gpu/test_%: $(BUILD)/obj/tests/gpu/test_%.o \
    $(addprefix $(BUILD)/obj/kernels/cuda/,sdpa_graph.o sdpa_plan.o cache.o visible.o) $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_test)

# A cuDNN that says what it is told to, for the tests of what cannot be used.
$(BUILD)/tests/gpu/stub/whole/libcudnn.so.9: STUB =
$(BUILD)/tests/gpu/stub/lacking/libcudnn.so.9: STUB = -DLACKS_EXECUTE
$(BUILD)/tests/gpu/stub/%/libcudnn.so.9: tests/gpu/stub_cudnn.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CUDA_CPPFLAGS) $(CFLAGS) $(STUB) -shared -fPIC -o $@ $<
$(BUILD)/tests/gpu/test_cudnn: | $(patsubst %,$(BUILD)/tests/gpu/stub/%/libcudnn.so.9,whole lacking)

$(BUILD)/tests/gpu/ops: $(addprefix $(BUILD)/obj/tests/gpu/,ops_layer.o ops_attention.o)
$(BUILD)/tests/gpu/%: $(BUILD)/obj/tests/gpu/%.o $(CUDA_OBJ) $(LIB_BASE)
	@mkdir -p $(@D)
	$(link)
	$(Q)$(CC) $(LDFLAGS) -fopenmp -o $@ $^ $(LIBS_lhworker) $(LIBS_cuda)

test-gpu: dist
	$(BUILD)/dist/tests/run.sh test

bench-gpu: dist
	$(BUILD)/dist/tests/run.sh bench
endif

# ---- a tree for other hosts --------------------------------------------------
# Programs and the libraries a host may lack: everything but glibc, the driver and
# CUDA's own, which are the host's.
HOST_LIBS := linux-vdso|ld-linux|/lib(c|m|dl|rt|pthread|util|resolv)\.so|libcu|libnv
# MPICH's launcher and library, for jobs of several devices; what they need lies beside
# them, and no variable tells others of it.
MPI_BIN := $(if $(MPI_CFLAGS),$(shell command -v mpiexec.hydra && command -v hydra_pmi_proxy))
MPI_LIB := $(if $(MPI_BIN),$(wildcard $(shell pkg-config --variable=libdir mpich)/libmpich.so.12))
dist: $(PROGRAMS) $(HF_DONE) $(CHECKERS) $(if $(HAVE_CUDA),$(GPU_TESTS))
	$(Q)rm -rf $(BUILD)/dist
	$(Q)mkdir -p $(BUILD)/dist/bin $(BUILD)/dist/lib $(BUILD)/dist/tests/vectors
	$(Q)cp -L $(PROGRAMS) $(MPI_BIN) $(BUILD)/dist/bin
	$(Q)cp $(CHECKERS) $(if $(HAVE_CUDA),$(GPU_TESTS)) tests/gpu/*.sh $(BUILD)/dist/tests
	$(Q)grep -oh '\b[a-z0-9_]*_kernel(' kernels/cuda/*.cu* | tr -d '(' | sort -u \
	  >$(BUILD)/dist/tests/kernels.txt
	$(Q)cp tests/vectors/*.safetensors $(BUILD)/dist/tests/vectors
	$(if $(MPI_LIB),$(Q)cp -L $(MPI_LIB) $(BUILD)/dist/lib)
	$(Q)ldd $(PROGRAMS) $(CHECKERS) $(if $(HAVE_CUDA),$(GPU_TESTS)) $(MPI_BIN) $(MPI_LIB) | \
	  sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u | grep -vE '$(HOST_LIBS)' | \
	  xargs -I{} cp -L {} $(BUILD)/dist/lib
	$(Q)strip $(BUILD)/dist/bin/* $(BUILD)/dist/lib/* 2>/dev/null || true
	$(if $(MPI_BIN),$(Q)cd $(BUILD)/dist/bin && \
	  patchelf --force-rpath --set-rpath '$$ORIGIN/../lib' $(notdir $(MPI_BIN)))
	$(if $(HF_DONE),$(Q)mkdir $(BUILD)/dist/lib/lighthouse && cp -r $(HF_OUT) $(BUILD)/dist/lib/lighthouse)

NODE_TESTS := $(sort $(wildcard tests/*.test.mjs tests/*/*.test.mjs))

# Three builds are tested: as shipped, under AddressSanitizer and UBSan, and with
# failpoints. One node:test run closes with the count of all of it. Three files at a time
# where node can: many wait more than they compute (a database locked for minutes).
test: deps deps-promtool
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all units
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) SAN=1 all units
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) FAILPOINTS=1 all $(BUILD)/fail/tests/train/test_power_cut
	$(Q)LH_BUILD=$(abspath $(BUILD)) node --test $$(node --help | grep -q test-concurrency && \
	  echo --test-concurrency=3) --test-reporter=spec $(NODE_TESTS)

HOURS ?= 1
soak: deps
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) FAILPOINTS=1 all
	$(Q)LH_BUILD=$(abspath $(BUILD)) node tests/crash/crash.mjs --hours $(HOURS)

MINUTES ?= 10
fuzz: deps-fuzz
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) FUZZ=1 fuzzers
	$(Q)LH_BUILD=$(abspath $(BUILD)) node tests/fuzz/fuzz.mjs --minutes $(MINUTES)

# Of a real run, in some minutes; for the README.
screenshots: all
	$(Q)LH_BUILD=$(abspath $(BUILD)) node tests/web/screenshots.mjs

demo: deps
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)LH_BUILD=$(abspath $(BUILD)) ctl/examples/demo.sh

bench: all $(BENCHES)
	$(Q)for b in $(filter-out %/bench_load,$(BENCHES)); do echo "== $$b"; $$b || exit 1; done
	$(Q)for b in control steering stall pack import page; do echo "== $$b"; \
	  LH_BUILD=$(abspath $(BUILD)) node tests/bench/$$b.mjs || exit 1; done

install: all
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	$(if $(HF_DONE),install -d $(DESTDIR)$(PREFIX)/lib/lighthouse && \
	  cp -r $(HF_OUT) $(DESTDIR)$(PREFIX)/lib/lighthouse)
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 \
	  $(DESTDIR)$(PREFIX)/share/doc/lighthouse/examples \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	set -e; ctl=$(BUILD)/bin/lhctl; share=$(DESTDIR)$(PREFIX)/share; \
	$$ctl help --man >$$share/man/man1/lhctl.1; \
	for c in $$($$ctl help --list); do $$ctl help --man $$c >$$share/man/man1/lhctl-$$c.1; done; \
	$$ctl completion bash >$$share/bash-completion/completions/lhctl; \
	$$ctl completion zsh >$$share/zsh/site-functions/_lhctl; \
	$$ctl completion fish >$$share/fish/vendor_completions.d/lhctl.fish
	install -m 644 README.md $(DESTDIR)$(PREFIX)/share/doc/lighthouse
	install -m 755 ctl/examples/*.sh $(DESTDIR)$(PREFIX)/share/doc/lighthouse/examples
	install -m 644 ctl/examples/*.yaml $(DESTDIR)$(PREFIX)/share/doc/lighthouse/examples
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|g' daemon/lhd.service \
	  >$(DESTDIR)$(PREFIX)/lib/systemd/system/lhd.service

# ---- Debian packages ---------------------------------------------------------
# Only what is missing is installed; node counts as there when it is on PATH,
# wherever it came from.
JOBS ?= $(shell nproc)
DEB := pkg-config libuv1-dev libjansson-dev libyaml-dev libsqlite3-dev \
       libopenblas-openmp-dev libxxhash-dev libmicrohttpd-dev nettle-dev zlib1g-dev libzstd-dev \
       libmpich-dev mpich patchelf g++ libsentencepiece-dev libmimalloc2.0 libcmocka-dev sqlite3 valgrind chromium
deps-fuzz: DEB += clang libclang-rt-14-dev
deps deps-fuzz:
	@missing=; for p in $(DEB); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	[ -z "$$missing" ] && exit 0; \
	echo "installing:$$missing"; \
	if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$sudo apt-get update -q && $$sudo apt-get install -y -q --no-install-recommends $$missing || { \
	  echo "error: could not install:$$missing" >&2; \
	  echo "hint: run 'apt-get install$$missing' as root, then make again" >&2; exit 1; }

# Checks what Prometheus reads, in the tests. Unpacked, not installed: installing the
# package starts a server. Where it cannot be had, that test says so and is passed over.
deps-promtool: $(if $(shell command -v promtool 2>/dev/null),,$(BUILD)/promtool)
$(BUILD)/promtool:
	@mkdir -p $@.d
	@cd $@.d && { apt-get download -q prometheus && dpkg -x prometheus_*.deb . && \
	  mv usr/bin/promtool $(abspath $@); } >$(abspath $@).log 2>&1 || \
	  echo "promtool cannot be had: $(BUILD)/promtool.log says why"
	@rm -rf $@.d

clean:
	rm -rf $(BUILD)

-include $(wildcard $(BUILD)/obj/*/*.d $(BUILD)/obj/*/*/*.d $(BUILD)/obj/*/*/*/*.d)

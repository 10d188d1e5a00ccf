# SPDX-License-Identifier: Apache-2.0
#
# make            the program and the library           make run     build and answer on the shipped model
# make test       every test                            make check   sanitizers, faults, rooms, style, short fuzz
# make check-long    both, nothing shortened (hours)
# make deps       install what is missing (Debian)      make install PREFIX=/usr/local
#
# One portable build: instruction sets are chosen at start, ISA flags belong to single folders (see "kernels").
# For work on a few rooms: make BUILD=build/mine ROOMS="base sample" unit T=test_stops

CC      ?= gcc
AR      ?= ar
PREFIX  ?= /usr/local
BUILD   ?= build
ARCH    ?= $(shell $(CC) -dumpmachine | cut -d- -f1)
ROOMS   ?= base quant format text grammar kernels sample backend kv io model sched forge store lib
PROGRAM_ROOMS ?= cli bench
SERVER_ROOMS ?= http calls api eval fetch hub
PKGS    := jansson libpcre2-8 libutf8proc libxxhash
PKG_CONFIG ?= pkg-config
# Without libcurl's headers squish is built all the same and asks no other machine; the library is opened when needed.
CURL    := $(shell $(PKG_CONFIG) --exists libcurl 2>/dev/null && echo libcurl)
# So with libzip, in whose archives some task files of eval --fetch come.
ZIP     := $(shell $(PKG_CONFIG) --exists libzip 2>/dev/null && echo libzip)
# Without liburing's headers weights that do not fit memory are read with pread alone.
URING   := $(shell $(PKG_CONFIG) --exists liburing 2>/dev/null && echo liburing)
SERVER_PKGS := libevent_core libevent_extra libcrypto
CLI_PKGS := libedit
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)

OPT     ?= -O2 -g
SAN     ?=
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith -Wwrite-strings -Wno-psabi
HARDEN  := -fstack-protector-strong -fPIE
CPPFLAGS += -Iinclude -Isrc -D_GNU_SOURCE
CFLAGS  += -std=c11 $(OPT) $(WARN) $(HARDEN) $(SAN) -fno-math-errno -ffp-contract=off -pthread -fvisibility=hidden
ifdef WERROR
CFLAGS  += -Werror
endif
LDFLAGS += $(SAN) -pthread -pie -Wl,-z,relro
LIBS    := $(shell $(PKG_CONFIG) --libs $(PKGS) $(URING) 2>/dev/null) -lm
CPPFLAGS += $(shell $(PKG_CONFIG) --cflags $(PKGS) $(SERVER_PKGS) 2>/dev/null)
SERVER_LIBS := $(shell $(PKG_CONFIG) --libs $(SERVER_PKGS) 2>/dev/null)

# ---- kernels: one folder per instruction set, each with its own flags --------------------------------------------
# The reference folder is built for the baseline CPU; nothing outside these folders sees a wide instruction.
x86_64_ISAS  := scalar avx2 avx512
aarch64_ISAS := scalar neon
ISAS         := $(or $($(ARCH)_ISAS),scalar)
FLAGS_scalar := -O2
# Lines alone (-g1): where hundreds of blocks are inlined, saying where each variable lies takes as long as compiling them.
FLAGS_avx2   := -O3 -g1 -mavx2 -mfma -mf16c -mbmi2
FLAGS_avx512 := -O3 -g1 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mbmi2
# A file that may use VNNI: the others run where it is missing, so no compiler may think of it there.
FLAGS_vnni   := -mavx512vnni
VNNI         := k_gemm_q k_gemm_foreign k_attn_codes k_attn_sage k_probe_dots
FLAGS_neon   := -O3 -g1 -march=armv8.2-a+dotprod+fp16
# Sanitizers stay out of the wide folders: what is inlined there by the hundred takes clang minutes a file with them.
# The scalar folder, whose bits the others must give, has them; the tests' moats watch their memory.
ifneq ($(SAN),)
$(foreach i,avx2 avx512 neon,$(eval FLAGS_$(i) += -O1 -fno-sanitize=all))
endif

# Rooms of arithmetic under sanitizers: optimised, and without the counters of edges that only parsers have a use for.
ARITHMETIC := backend forge kernels/scalar quant
ifneq ($(SAN),)
$(foreach r,$(ARITHMETIC),$(eval $$(BUILD)/src/$(r)/%.o: CFLAGS += -O2 $(if $(findstring fuzzer,$(SAN)),-fno-sanitize=fuzzer-no-link)))
$(BUILD)/src/forge/forge_calibration.o: CFLAGS += $(if $(findstring fuzzer,$(SAN)),-fsanitize=fuzzer-no-link)
endif

ROOM_DIRS := $(filter-out src/kernels,$(ROOMS:%=src/%))
SRC  := $(wildcard $(ROOM_DIRS:%=%/*.c))
ifneq ($(filter kernels,$(ROOMS)),)
SRC  += $(wildcard src/kernels/*.c) $(foreach i,$(ISAS),$(wildcard src/kernels/$(i)/*.c))
endif
OBJ  := $(SRC:%.c=$(BUILD)/%.o)
# WIDE=FOLDER: the wide kernels of another build, which a build with sanitizers may as well take.
ifdef WIDE
OBJ  := $(foreach o,$(OBJ),$(if $(findstring /kernels/a,$(o))$(findstring /kernels/neon,$(o)),$(o:$(BUILD)/%=$(WIDE)/%),$(o)))
endif
# What a compiler says is shown, and kept beside the object: make check looks there instead of building once more.
KEEP_WARNINGS = 2> $@.warnings; status=$$?; cat $@.warnings >&2; exit $$status
PROG_SRC := $(wildcard $(PROGRAM_ROOMS:%=src/%/*.c))
PROG_OBJ := $(PROG_SRC:%.c=$(BUILD)/%.o)
LIB  := $(BUILD)/libsquish.a
# The rooms of the server and of eval: part of the program and not of the library, in an archive so that tests can
# link them too.
SERVER_SRC := $(wildcard $(SERVER_ROOMS:%=src/%/*.c))
SERVER_OBJ := $(SERVER_SRC:%.c=$(BUILD)/%.o) $(if $(filter api,$(SERVER_ROOMS)),$(BUILD)/src/api/api_files.o) \
    $(if $(filter hub,$(SERVER_ROOMS)),$(BUILD)/src/hub/hub_catalog_data.o)
# Hundreds of tests are linked: with lld, where it is, in a third of the time.
TEST_LDFLAGS := $(LDFLAGS) $(if $(filter $(ARCH),$(shell uname -m)),$(if $(shell command -v ld.lld 2>/dev/null),-fuse-ld=lld))
# Files that are part of the program: the chat page and the description of the API.
# The page is gathered in the build folder, with three libraries of this machine (mk/page.mk).
EMBED := src/api/openapi.json $(patsubst src/api/page/%,$(BUILD)/page/%,$(wildcard src/api/page/*)) \
    $(addprefix $(BUILD)/page/,marked.js purify.js highlight.js third-party.txt)
SERVER_LIB := $(BUILD)/libsquish-server.a
LINK_ALL   := $(SERVER_LIB) $(LIB) $(SERVER_LIBS) $(LIBS)

all: $(BUILD)/squish

$(BUILD)/squish: $(PROG_OBJ) $(SERVER_LIB) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $(PROG_OBJ) $(LINK_ALL) $(shell $(PKG_CONFIG) --libs $(CLI_PKGS))

$(SERVER_LIB): $(SERVER_OBJ)
	@rm -f $@
	$(AR) rcs $@ $(SERVER_OBJ)

$(BUILD)/src/api/api_files.c: scripts/embed.sh src/api/openapi.json $(BUILD)/page/index.html
	@mkdir -p $(@D)
	scripts/embed.sh $(EMBED) > $@.tmp && mv $@.tmp $@

$(BUILD)/src/api/api_files.o: $(BUILD)/src/api/api_files.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The catalogue, as bytes of the program.
$(BUILD)/src/hub/hub_catalog_data.c: src/hub/catalog.json
	@mkdir -p $(@D)
	@{ echo 'extern const unsigned char hub_catalog_json[];' 'extern const unsigned long hub_catalog_bytes;'; \
	    echo 'const unsigned char hub_catalog_json[] = {'; od -An -v -tu1 $< | sed 's/[0-9][0-9]*/&,/g'; echo '};'; \
	    echo 'const unsigned long hub_catalog_bytes = sizeof hub_catalog_json;'; } > $@.tmp && mv $@.tmp $@

$(BUILD)/src/hub/hub_catalog_data.o: $(BUILD)/src/hub/hub_catalog_data.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(LIB): $(OBJ)
	@rm -f $@
	$(AR) rcs $@ $(OBJ)

define isa_rule
$$(BUILD)/src/kernels/$(1)/%.o: src/kernels/$(1)/%.c
	@mkdir -p $$(@D)
	$$(CC) $$(CPPFLAGS) $$(CFLAGS) $$(FLAGS_$(1)) -MMD -MP -c -o $$@ $$< $$(KEEP_WARNINGS)
endef
$(foreach i,scalar avx2 avx512 neon,$(eval $(call isa_rule,$(i))))
$(VNNI:%=$(BUILD)/src/kernels/avx512/%_avx512.o): FLAGS_avx512 += $(FLAGS_vnni)

# What the compiler says of the wide kernels and of tests (SYNTAX_TESTS: sameness draft), without building them.
syntax:
	@$(foreach i,$(filter-out scalar,$(ISAS)),$(foreach f,$(wildcard src/kernels/$(i)/*.c),$(CC) $(CPPFLAGS) $(CFLAGS) $(FLAGS_$(i)) \
	    $(if $(filter $(VNNI:%=%_avx512.c),$(notdir $(f))),$(FLAGS_vnni)) -fsyntax-only $(f) && )) true
	@$(foreach t,$(filter $(foreach n,$(SYNTAX_TESTS),%/test_$(n).c),$(TEST_SRC)),$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -fsyntax-only $(t) && ) true

# The only file that says which commit it is: a compiler cache keeps all others over a commit.
$(BUILD)/src/lib/lib_core.o: CPPFLAGS += -DSQ_COMMIT='"$(COMMIT)"'

$(BUILD)/src/eval/%.o: CPPFLAGS += $(if $(ZIP),-DSQ_HAVE_ZIP $(shell $(PKG_CONFIG) --cflags libzip 2>/dev/null))
$(BUILD)/src/fetch/%.o: CPPFLAGS += $(if $(CURL),-DSQ_HAVE_CURL $(shell $(PKG_CONFIG) --cflags libcurl 2>/dev/null))

$(BUILD)/src/io/%.o: CPPFLAGS += $(if $(URING),-DSQ_HAVE_URING $(shell $(PKG_CONFIG) --cflags liburing 2>/dev/null))

# The source with the least noise in its flags: conversions are checked where bytes from outside are read.
$(BUILD)/src/base/%.o $(BUILD)/src/format/%.o $(BUILD)/src/http/%.o: CFLAGS += -Wconversion -Wno-sign-conversion

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $< $(KEEP_WARNINGS)

-include $(OBJ:.o=.d) $(PROG_OBJ:.o=.d) $(SERVER_OBJ:.o=.d)

# ---- first run ---------------------------------------------------------------------------------------------------
PROMPT ?= What is the capital of Japan?

run:
	@scripts/deps.sh run
	@$(MAKE) --no-print-directory -s -j$(shell nproc) all
	@$(BUILD)/squish run --temp 0 squish-tiny "$(PROMPT)"
	@echo
	@$(BUILD)/squish show squish-tiny --about
	@if [ -t 0 ] && [ -t 1 ]; then $(BUILD)/squish chat squish-tiny; fi

deps:
	@scripts/deps.sh test

# ---- tests: every tests/{unit,prop,golden,fault,e2e}/test_*.c is one cmocka program ------------------------------
# The long ones first, so that no core waits for the last.
TEST_KINDS := e2e golden fault prop unit
TEST_SRC := $(foreach k,$(TEST_KINDS),$(wildcard tests/$(k)/test_*.c))
TEST_SUPPORT := $(wildcard tests/support/*.c)
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_SUPPORT_OBJ := $(TEST_SUPPORT:%.c=$(BUILD)/%.o)

# Their lines are enough for a backtrace; make TEST_DEBUG= for a debugger.
TEST_DEBUG ?= -g1
$(BUILD)/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) $(TEST_DEBUG) -fvisibility=default -MMD -MP -c -o $@ $< $(KEEP_WARNINGS)

# An archive, so that a test of one room links with that room alone.
$(BUILD)/tests/support.a: $(TEST_SUPPORT_OBJ)
	@rm -f $@
	$(AR) rcs $@ $(TEST_SUPPORT_OBJ)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/tests/support.a $(SERVER_LIB) $(LIB)
	$(CC) $(TEST_LDFLAGS) -o $@ $< $(BUILD)/tests/support.a $(LINK_ALL) -lcmocka -lutil

# one test program, for work on a room
unit: $(filter %/$(T),$(TEST_BIN))
	$(filter %/$(T),$(TEST_BIN))

# ---- fuzz: fuzz/fuzz_NAME.c, seeds in fuzz/seeds/NAME; replayed by the tests through fuzz/replay.c; with
# SAN=-fsanitize=fuzzer-no-link,... and clang also programs of libFuzzer ------------------------------------------------
FUZZ_SRC := $(wildcard fuzz/fuzz_*.c)
FUZZ_BIN := $(FUZZ_SRC:fuzz/%.c=$(BUILD)/fuzz/%)
LIBFUZZER_BIN := $(FUZZ_SRC:fuzz/%.c=$(BUILD)/libfuzzer/%)
$(BUILD)/fuzz/%.o: fuzz/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) $(TEST_DEBUG) -fvisibility=default -MMD -MP -c -o $@ $< $(KEEP_WARNINGS)
$(BUILD)/fuzz/%: $(BUILD)/fuzz/%.o $(BUILD)/fuzz/replay.o $(SERVER_LIB) $(LIB)
	$(CC) $(TEST_LDFLAGS) -o $@ $< $(BUILD)/fuzz/replay.o $(LINK_ALL)
$(BUILD)/libfuzzer/%: $(BUILD)/fuzz/%.o $(SERVER_LIB) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(TEST_LDFLAGS) -o $@ $< -fsanitize=fuzzer $(LINK_ALL)
.SECONDARY: $(TEST_BIN:=.o) $(FUZZ_BIN:=.o) $(BUILD)/fuzz/replay.o

-include $(TEST_BIN:=.d) $(TEST_SUPPORT_OBJ:.o=.d) $(FUZZ_BIN:=.d) $(BUILD)/fuzz/replay.d

test:
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory -s -j$(shell nproc) test-build
	@scripts/run_tests.sh $(BUILD) $(TEST_BIN) $(FUZZ_BIN)

test-build: all $(TEST_BIN) $(FUZZ_BIN)
libfuzzer-build: $(LIBFUZZER_BIN)

check:
	@scripts/deps.sh arm
	@scripts/check.sh

# Both, with no test shortened, and all of them under sanitizers and on aarch64: hours.
check-long:
	@SQUISH_LONG=1 TEST_TIMEOUT=7200 $(MAKE) --no-print-directory test check

# Against the programs and packages of others (needs network the first time). LLAMA_BIN: folder with llama-quantize
# and llama-perplexity; without it their rows are skipped.
VENV_INTEROP := $(BUILD)/venv-interop
$(VENV_INTEROP)/.ready:
	python3 -m venv $(VENV_INTEROP)
	$(VENV_INTEROP)/bin/pip install -q gguf numpy safetensors
	-$(VENV_INTEROP)/bin/pip install -q 'mlx[cpu]' mlx-lm
	@touch $@

test-interop: all $(VENV_INTEROP)/.ready
	$(VENV_INTEROP)/bin/python scripts/check_interop.py --squish $(BUILD)/squish --work $(BUILD)/interop \
	    --json $(BUILD)/interop.json $(if $(LLAMA_BIN),--llama-bin $(LLAMA_BIN))

# Speed beside llama.cpp, mlx-lm, tiktoken and tokenizers, in one run; and guesses by n-grams beside llama.cpp's (needs network the first time, cmake and a C++
# compiler). SHAPES: 1.5b, 7b, 14b, qwen3-8b; LLAMA_BIN: a folder with its programs, to be spared the build; BENCH_WORK:
# where models are kept; BENCH_FLAGS: more for scripts/bench_peers.py (--rounds 3, --no-results).
SHAPES ?= 1.5b
PEER := $(BUILD)/peer
$(PEER)/bin/llama-bench:
	python3 -m venv $(PEER)/venv
	$(PEER)/venv/bin/pip install -q cmake
	$(PEER)/venv/bin/pip download -q --no-deps --no-binary llama-cpp-python -d $(PEER) llama-cpp-python==0.3.36
	cd $(PEER) && tar xzf llama_cpp_python-*.tar.gz
	$(PEER)/venv/bin/cmake -S $(PEER)/llama_cpp_python-*/vendor/llama.cpp -B $(PEER) -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
	    -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=ON
	$(PEER)/venv/bin/cmake --build $(PEER) -j $(shell nproc) --target llama-bench llama-batched-bench llama-quantize llama-speculative-simple

VENV_PEERS := $(BUILD)/venv-peers
$(VENV_PEERS)/.ready:
	python3 -m venv $(VENV_PEERS)
	$(VENV_PEERS)/bin/pip install -q tokenizers tiktoken gguf
	-$(VENV_PEERS)/bin/pip install -q 'mlx[cpu]' mlx-lm
	@touch $@

bench-peers: all $(VENV_PEERS)/.ready $(if $(LLAMA_BIN),,$(PEER)/bin/llama-bench)
	python3 scripts/bench_peers.py --build $(BUILD) --llama-bin $(or $(LLAMA_BIN),$(PEER)/bin) \
	    --python $(VENV_PEERS)/bin/python --shapes $(SHAPES) $(if $(BENCH_WORK),--work $(BENCH_WORK)) $(BENCH_FLAGS)
	python3 scripts/targets_spec.py --build $(BUILD) --part peer --llama-bin $(or $(LLAMA_BIN),$(PEER)/bin)
bench-check:
	@python3 scripts/bench_peers.py --check

# llguidance on the suites of tests/golden/test_grammar_suite.c and test_maskbench.c (needs network the first time).
VENV_GRAMMAR := $(BUILD)/venv-grammar
$(VENV_GRAMMAR)/.ready:
	python3 -m venv $(VENV_GRAMMAR)
	$(VENV_GRAMMAR)/bin/pip install -q llguidance==1.9.1
	@touch $@

grammar-peer: $(VENV_GRAMMAR)/.ready
	$(VENV_GRAMMAR)/bin/python scripts/grammar_suite_peer.py $(or $(SQUISH_TESTDATA),.)/fixtures

# Real clients from PyPI against the server (needs network the first time); pinned in tests/clients.
VENV_CLIENTS := $(BUILD)/venv-clients
$(VENV_CLIENTS)/.ready: $(wildcard tests/clients/requirements*.txt)
	python3 -m venv $(VENV_CLIENTS)
	$(VENV_CLIENTS)/bin/pip install -q -r tests/clients/requirements.txt
	for v in 1 3; do $(VENV_CLIENTS)/bin/pip install -q --upgrade --no-warn-conflicts --target $(VENV_CLIENTS)/openai-$$v \
	    -r tests/clients/requirements-openai-$$v.txt || exit 1; done
	@touch $@

test-clients: all $(VENV_CLIENTS)/.ready
	$(VENV_CLIENTS)/bin/python tests/clients/test_clients.py --squish $(BUILD)/squish --venv $(VENV_CLIENTS) \
	    $(if $(CLIENTS),--only $(CLIENTS))

# PyPI's huggingface_hub against the fake hub that our pulls are tested with, and Ollama's client pulling through the server
# (needs network the first time).
VENV_HUB := $(BUILD)/venv-hub
$(VENV_HUB)/.ready: tests/clients/requirements-hub.txt
	python3 -m venv $(VENV_HUB)
	$(VENV_HUB)/bin/pip install -q -r $<
	@touch $@

test-hub: all $(VENV_HUB)/.ready
	$(VENV_HUB)/bin/python tests/clients/test_hub.py --squish $(BUILD)/squish

# Real public weights: LIVE_MODEL from the hub, and SmolLM2-135M-Instruct from the package index held against transformers'
# answers (tests/live). What cannot be reached is skipped.
LIVE_MODEL ?= smollm2:135m
test-live: all
	@scripts/test_live.sh $(BUILD)/squish $(LIVE_MODEL) $(BUILD)/live

# Fifty pulls killed at random moments (tests/e2e/test_pull.c has six), and every change a pull makes to the disk failing in
# turn (of which tests/fault/test_pull_faults.c tries every fourth).
test-pull-kills: all $(BUILD)/tests/e2e/test_pull $(BUILD)/tests/fault/test_pull_faults
	SQUISH_PULL_KILLS=50 $(BUILD)/tests/e2e/test_pull
	SQUISH_LONG=1 $(BUILD)/tests/fault/test_pull_faults

# A pull of 1 GB over loopback beside curl into a file and sha256sum, pulls that are killed, and the rows that tests of pulls and
# names meet.
bench-pull: all $(VENV_HUB)/.ready $(addprefix $(BUILD)/tests/,e2e/test_pull fault/test_pull_faults e2e/test_api_names \
    e2e/test_api_attacks unit/test_hub_name)
	python3 scripts/targets_pull.py --build $(BUILD) --hub-python $(VENV_HUB)/bin/python

# The server's targets: start, streams, company, prefixes, clients that leave, connections, load. PART: some of them;
# SHAPE_MODEL: a folder in the 1.5B shape, to be spared making it; MINUTES of load (the bar was set for 60), PAUSE before
# each of its requests in seconds.
bench-server: all $(BUILD)/tests/prop/test_answer_text
	python3 scripts/targets_server.py --build $(BUILD) $(if $(PART),--part $(PART)) $(if $(MINUTES),--minutes $(MINUTES)) \
	    $(if $(PAUSE),--pause $(PAUSE)) $(if $(SHAPE_MODEL),--shape-model $(SHAPE_MODEL))

# The targets of grammars, beside xgrammar and llguidance from PyPI (needs network the first time). GRAMMAR_PARTS: some of
# peers, oracle, generate, bombs, decode; SHAPE_MODEL: a folder in the 1.5B shape, for decode.
VENV_GRAMMAR_PEERS := $(BUILD)/venv-grammar-peers
$(VENV_GRAMMAR_PEERS)/.ready:
	python3 -m venv $(VENV_GRAMMAR_PEERS)
	$(VENV_GRAMMAR_PEERS)/bin/pip install -q numpy tokenizers gguf llguidance==1.9.1 xgrammar==0.2.9
	@touch $@

bench-grammar: all $(VENV_GRAMMAR_PEERS)/.ready $(addprefix $(BUILD)/tests/,prop/test_gram_props prop/test_gram_generate unit/test_gram_bombs \
    golden/test_grammar_suite golden/test_maskbench)
	python3 scripts/targets_grammar.py --build $(BUILD) --python $(VENV_GRAMMAR_PEERS)/bin/python \
	    $(if $(GRAMMAR_PARTS),--part $(GRAMMAR_PARTS)) $(if $(SHAPE_MODEL),--shape-model $(SHAPE_MODEL))

# Requests made from the description of the API against a server with sanitizers (needs network the first time, and
# clang); MINUTES of it.
VENV_SCHEMATHESIS := $(BUILD)/venv-schemathesis
$(VENV_SCHEMATHESIS)/.ready:
	python3 -m venv $(VENV_SCHEMATHESIS)
	$(VENV_SCHEMATHESIS)/bin/pip install -q 'schemathesis==4.32.5'
	@touch $@

test-schemathesis: $(VENV_SCHEMATHESIS)/.ready
	$(MAKE) --no-print-directory -s CC=clang BUILD=$(BUILD)/asan-server OPT='-O1 -g' \
	    SAN='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' all
	$(VENV_SCHEMATHESIS)/bin/python scripts/check_schemathesis.py --build $(BUILD)/asan-server \
	    --schemathesis $(VENV_SCHEMATHESIS)/bin/schemathesis $(if $(MINUTES),--minutes $(MINUTES))

# The server under valgrind (Debian: valgrind): does an answer depend on memory that nobody wrote? Takes some minutes.
test-memory: all
	python3 scripts/check_memory.py --build $(BUILD)

check-rooms:
	@scripts/check_rooms.sh
check-style:
	@scripts/check_style.sh

# ---- install -------------------------------------------------------------------------------------------------------
man: $(BUILD)/squish.1
$(BUILD)/squish.1: $(BUILD)/squish
	$(BUILD)/squish man > $@

$(BUILD)/squish.pc: Makefile
	@mkdir -p $(@D)
	@printf 'prefix=%s\nlibdir=$${prefix}/lib\nincludedir=$${prefix}/include\n\nName: squish\nDescription: local LLM engine\nVersion: %s\nRequires.private: %s\nLibs: -L$${libdir} -lsquish\nLibs.private: -lm -pthread\nCflags: -I$${includedir}\n' \
	    '$(PREFIX)' "$$(sed -n 's/^.define SQUISH_VERSION "\(.*\)"/\1/p' include/squish.h)" '$(PKGS) $(URING)' > $@

install: all $(BUILD)/squish.1 $(BUILD)/squish.pc
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include \
	    $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d \
	    $(DESTDIR)$(PREFIX)/share/squish/models/squish-tiny $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(BUILD)/squish $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib/
	install -m 644 include/squish.h include/squish_build.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(BUILD)/squish.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/
	install -m 644 $(BUILD)/squish.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	$(BUILD)/squish completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/squish
	$(BUILD)/squish completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_squish
	$(BUILD)/squish completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/squish.fish
	install -m 644 $(filter-out %reference.json %training.json,$(wildcard models/squish-tiny/*)) \
	    $(DESTDIR)$(PREFIX)/share/squish/models/squish-tiny/
	sed 's#/usr/bin/squish#$(PREFIX)/bin/squish#' packaging/squish.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/squish.service
	install -m 644 packaging/squish.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/

# Debian's packages, of what is committed, into build/deb (needs dpkg-dev and debhelper).
deb:
	@test "$$(dpkg-parsechangelog -S Version)" = "$$(sed -n 's/^.define SQUISH_VERSION "\(.*\)"/\1/p' include/squish.h)" || \
	    { echo "debian/changelog and SQUISH_VERSION differ" >&2; exit 1; }
	rm -rf $(BUILD)/deb && mkdir -p $(BUILD)/deb/squish
	git archive HEAD | tar -x -C $(BUILD)/deb/squish
	cd $(BUILD)/deb/squish && SQUISH_COMMIT=$(COMMIT) dpkg-buildpackage -us -uc
# ... and in a bare Debian: installed, asked, looked at (as root, with a network and debootstrap).
test-package:
	scripts/check_package.sh

clean:
	rm -rf $(BUILD)

-include mk/arm.mk
-include mk/page.mk

.PHONY: all run deps test test-hub test-live test-pull-kills bench-pull syntax test-interop test-clients test-schemathesis test-memory test-build libfuzzer-build check check-long check-rooms check-style bench-peers bench-check grammar-peer bench-server bench-grammar man install deb test-package clean unit

# SPDX-License-Identifier: Apache-2.0
#
# arm.mk - aarch64 from an x86 machine: cross build, and tests under qemu-user.
#
# make arm         library and program in build/arm, for any aarch64 Linux
# make test-arm    tests of ARM_TESTS under qemu: once on a CPU that has everything, the kernels once more on
#                  one without the dot-product instructions. SQUISH_SAMPLE=N: every Nth case of the kernels
#
# Needs gcc-aarch64-linux-gnu and qemu-user; scripts/arm_sysroot.sh fetches the libraries.

ARM_PREFIX  ?= aarch64-linux-gnu-
ARM_SYSROOT ?= $(CURDIR)/build/arm-sysroot
ARM_BUILD   ?= build/arm
ARM_TEST_BUILD ?= build/arm-tests
ARM_TESTS   ?= test_kernels test_kernels_foreign test_kernels_encode test_kernels_rows test_kernels_attn test_kernels_keys test_kernels_codes test_architectures test_base_pool
ARM_QEMU    ?= qemu-aarch64 -L $(ARM_SYSROOT)

ARM_LIBDIR := $(ARM_SYSROOT)/usr/lib/aarch64-linux-gnu
ARM_MAKE    = PKG_CONFIG_SYSROOT_DIR=$(ARM_SYSROOT) \
              PKG_CONFIG_LIBDIR=$(ARM_LIBDIR)/pkgconfig:$(ARM_SYSROOT)/usr/share/pkgconfig \
              $(MAKE) --no-print-directory CC="$(ARM_PREFIX)gcc --sysroot=$(ARM_SYSROOT)" AR=$(ARM_PREFIX)ar \
              ARCH=aarch64
arm_bin     = $(foreach t,$(1),$(patsubst %.c,$(ARM_TEST_BUILD)/%,$(filter %/$(t).c,$(TEST_SRC))))

# Fetched again when the list of libraries has changed.
$(ARM_SYSROOT)/.complete: scripts/arm_sysroot.sh
	@rm -f $@
	@scripts/arm_sysroot.sh $(ARM_SYSROOT)

arm: $(ARM_SYSROOT)/.complete
	+@$(ARM_MAKE) BUILD=$(ARM_BUILD) all

# The tests have a folder of their own: without the server's rooms, and not optimised where it is not for speed.
# Files of the neon folder share their flags, so the compiler could use sdot in any of them; those named here are
# selected by that feature of the CPU, file by file or (the probe) function by function.
test-arm: $(ARM_SYSROOT)/.complete
	+@$(ARM_MAKE) BUILD=$(ARM_TEST_BUILD) SERVER_ROOMS= OPT="-O1 -g1 -Wno-format-truncation" $(call arm_bin,$(ARM_TESTS))
	@for o in $(ARM_TEST_BUILD)/src/kernels/neon/*.o; do \
	    case $$o in */k_gemm_q_neon.o|*/k_gemm_foreign_neon.o|*/k_attn_sage_neon.o|*/k_probe_neon.o) continue ;; esac; \
	    if $(ARM_PREFIX)objdump -d $$o | grep -qE '[[:space:]][su]dot[[:space:]]'; then \
	        echo "$$o: dot-product instructions outside the files that are selected by them" >&2; exit 1; fi; done
	@echo "aarch64, every feature:"
	@RUNNER="$(ARM_QEMU) -cpu max" scripts/run_tests.sh $(ARM_TEST_BUILD) $(call arm_bin,$(ARM_TESTS))
	@echo "aarch64, no dot product (cortex-a57):"
	@RUNNER="$(ARM_QEMU) -cpu cortex-a57" scripts/run_tests.sh $(ARM_TEST_BUILD) \
	    $(call arm_bin,$(filter test_kernels%,$(ARM_TESTS)))

.PHONY: arm test-arm

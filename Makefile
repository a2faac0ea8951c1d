# SPDX-License-Identifier: GPL-2.0
# Entry points only: Kbuild, Cargo.toml and scripts/ have the rules.
# (kbuild itself reads Kbuild, not this file.)

.PHONY: all module env check check-debug check-kcsan demo demo-viommu demo-lazy demo-dax
.PHONY: demo-introspect demo-clone demo-qemu bench profile fuzz kselftest shell clean help
.PHONY: install uninstall modules_install headers_install utils utils_install
.PHONY: deb check-deb
all: module

# A kernel of scripts/debug-kernel, for make fuzz, or one of Debian's, for all targets.
own_kernel := $(filter debug kcsan,$(KERNEL))
ifeq ($(own_kernel),)
export ADDRESS_SPACE_KERNEL := $(KERNEL)
else ifneq ($(filter-out fuzz help,$(or $(MAKECMDGOALS),all)),)
$(error KERNEL=$(KERNEL) is for make fuzz; make check-debug and make check-kcsan run the tests)
endif

help:
	@echo 'make            build address_space.ko for the stock Debian kernel'
	@echo 'make KDIR=DIR   build it for another Rust-enabled kernel, 7.2 or later,'
	@echo '                with the toolchain of this machine'
	@echo 'make demo       run a KVM guest on memory composed of several files'
	@echo 'make demo-viommu   run unmodified devices behind an enforced IOMMU'
	@echo 'make demo-dax   run a Linux guest on files that a file server maps by itself'
	@echo 'make demo-lazy  run guests before their memory is there'
	@echo 'make demo-clone  start many guests from one that was stopped'
	@echo 'make demo-qemu  run an unmodified QEMU on address spaces that have a path'
	@echo 'make demo-introspect   look into a running process that lent its memory'
	@echo 'make bench      compare it with the alternatives: a table,'
	@echo '                build/bench.json and build/bench.svg'
	@echo 'make bench ICOUNT=1   the same in instructions, on one CPU'
	@echo '                (ROWS=a,b and ROUNDS=N for both)'
	@echo 'make profile ROWS=b ONLY="COMPARISON: NAME"   the functions that execute them'
	@echo 'make fuzz TIME=15m   random calls against a model for that time; KERNEL=debug'
	@echo '                     for the debug kernel, KERNEL=kcsan for that with KCSAN'
	@echo 'make check      all tests; ends in one line "N passed, N failed"'
	@echo '                (scripts/check --list: the stages; scripts/check STAGE: one)'
	@echo 'make check KERNEL=7.2.12+deb13-amd64   the same on another kernel of Debian'"'"'s; so'
	@echo '                make, make kselftest, make demo, make shell and the like'
	@echo 'make check-debug   the tests in the VM, on a kernel with KASAN, lockdep, kmemleak'
	@echo '                   and more (built first: 15 minutes on two CPUs)'
	@echo 'make check-kcsan   the tests that do most at once, on a kernel that looks for'
	@echo '                   data races (built first: 15 minutes on two CPUs)'
	@echo 'make kselftest  the kselftests alone'
	@echo 'make shell      a shell in a VM with the module loaded'
	@echo 'make env        make the environment (the other targets do if necessary)'
	@echo 'make utils      build asctl'
	@echo 'make install    install the module, the header, asctl, its man pages and the udev'
	@echo '                rule, below PREFIX (/usr/local) and DESTDIR; make uninstall'
	@echo '                (one of them: make modules_install, headers_install, utils_install)'
	@echo 'make deb        three Debian packages, in build/deb; needs debhelper and dh-dkms'
	@echo 'make check-deb  builds them, installs, uses and removes them in a clean Debian'
	@echo 'make clean      remove all build results, but not the environment'

env:
	@scripts/env

# Also if it is empty, as from a variable that was not set: that is refused.
ifneq ($(origin KDIR),undefined)
module:
	@scripts/lib/check-kdir "$(KDIR)"
	$(MAKE) -C "$(KDIR)" M="$(CURDIR)" modules
else
module:
	@scripts/build-module modules $(if $(CLIPPY),CLIPPY=$(CLIPPY)) $(if $(V),V=$(V))
endif

check:
	@scripts/check

check-debug:
	@scripts/check check-debug

check-kcsan:
	@scripts/check check-kcsan

kselftest: module
	@scripts/in-env scripts/build-tests kselftest
	@scripts/vm -- selftests/run-in-vm $$(sed -n 's/^TEST_GEN_PROGS [:+]= //p' \
		selftests/kselftest/Makefile)

demo: module
	@scripts/in-env scripts/build-tests demo
	@scripts/vm -- build/demo

demo-viommu: module
	@scripts/in-env scripts/build-tests viommu
	@scripts/vm -- build/viommu --transcript

demo-lazy: module
	@scripts/in-env scripts/build-tests lazy
	@scripts/vm -c 1 -- build/lazy --transcript

demo-clone: module
	@scripts/in-env scripts/build-tests clone
	@scripts/vm -c 1 -- build/clone --transcript

demo-qemu: module
	@scripts/in-env scripts/build-tests qemu
	@scripts/vm -- build/qemu --transcript

demo-introspect: module
	@scripts/in-env scripts/build-tests introspect
	@scripts/vm -- build/introspect --transcript

# The shared directory is on a disk; it has a tmpfs in it.
demo-dax: module
	@scripts/in-env scripts/build-tests virtiofs vmm
	@scripts/vm -c 1 -- env TMPDIR=/mnt/ext4 build/vmm --transcript dax

TIME ?= 1m
fuzz:
	@scripts/build-module $(addprefix -k ,$(own_kernel)) modules
	@scripts/in-env scripts/build-tests fuzz
	@scripts/vm $(addprefix -k ,$(own_kernel)) -t 1000000 -- build/fuzz --time $(TIME) \
		$(if $(SEED),--seed $(SEED))

# A row prints nothing during its rounds, and all is slow with ICOUNT=1.
bench: module
	@scripts/in-env scripts/build-tests bench
	@scripts/vm -t 7200 -s 1800 $(if $(ICOUNT),--icount) -- build/bench \
		$(if $(ICOUNT),--instructions) $(if $(ROWS),--rows $(ROWS)) \
		$(if $(ROUNDS),--rounds $(ROUNDS))

# The functions in which one contender of the bench executes its instructions.
profile: module
	@scripts/in-env scripts/build-tests bench profile
	@scripts/vm -t 7200 -s 1800 --icount --profile build/profile -- sh -c \
		'cat /proc/kallsyms >build/kallsyms && exec build/bench --instructions \
		--rounds $(or $(ROUNDS),5) $(if $(ROWS),--rows $(ROWS)) --only "$(ONLY)"'
	@scripts/in-env scripts/lib/profile/show.py build/profile build/kallsyms

shell: module
	@scripts/vm

# What is installed was built by the user; make install, as root, only copies.
utils:
	@scripts/in-env cargo build --release --locked -p asctl

install:
	@scripts/install modules headers utils

uninstall:
	@scripts/install --uninstall modules headers utils

modules_install:
	@scripts/install modules

headers_install:
	@scripts/install headers

utils_install:
	@scripts/install utils

export PREFIX DESTDIR
ifneq ($(ADDRESS_SPACE_KERNEL),)
install modules_install: export MODULE := build/$(ADDRESS_SPACE_KERNEL)/address_space.ko
endif

deb:
	@scripts/build-deb

check-deb:
	@scripts/check check-deb

clean:
	@scripts/build-module clean
	rm -rf build target

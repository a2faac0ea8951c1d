// SPDX-License-Identifier: GPL-2.0
#include <signal.h>

#include "kvm_guest.h"

#define CODE	0x1000
#define PORT	0x10

static const struct {
	uint8_t bytes[24];
	unsigned int len;
} programs[] = {
	[GUEST_READ] = { {
		0x8a, 0x07,			/* mov al, [bx] */
		0xe6, PORT,			/* out PORT, al */
		0xf4,				/* hlt */
	}, 5 },
	[GUEST_WRITE] = { {
		0x88, 0x07,			/* mov [bx], al */
		0xe6, PORT,
		0xf4,
	}, 5 },
	[GUEST_READ_WRITE] = { {
		0x8a, 0x17,			/* mov dl, [bx] */
		0x88, 0x07,			/* mov [bx], al */
		0x88, 0xd0,			/* mov al, dl */
		0xe6, PORT,
		0xf4,
	}, 9 },
	[GUEST_FSTP] = { {
		0xdb, 0xe3,			/* fninit */
		0xd9, 0xe8,			/* fld1 */
		0xd9, 0x1f,			/* fstp dword [bx] */
		0x8a, 0x47, 0x03,		/* mov al, [bx + 3] */
		0xe6, PORT,
		0xf4,
	}, 12 },
	[GUEST_SPIN_READ] = { {
		0x66, 0x8b, 0x07,		/* mov eax, [bx] */
		0x26, 0x66, 0xa3, 0x00, 0x00,	/* mov es:[0], eax */
		0x26, 0x66, 0xff, 0x06, 0x04, 0x00, /* inc dword es:[4] */
		0xeb, 0xf0,			/* jmp to the start */
	}, 16 },
	[GUEST_SPIN_WRITE] = { {
		0x66, 0xff, 0x07,		/* inc dword [bx] */
		0x26, 0x66, 0xff, 0x06, 0x04, 0x00,
		0xeb, 0xf5,
	}, 11 },
};

bool have_kvm(void)
{
	return !access("/dev/kvm", R_OK | W_OK);
}

static void wake_up(int sig)
{
	(void)sig;
}

int vm_create(struct vm *vm)
{
	/* a signal that ends KVM_RUN */
	struct sigaction act = { .sa_handler = wake_up };
	struct kvm_userspace_memory_region low = {
		.slot = 0,
		.memory_size = LOW_LEN,
	};

	memset(vm, 0, sizeof(*vm));
	sigaction(SIGUSR1, &act, NULL);
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return -errno;
	vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->vm < 0)
		return -errno;
	vm->low = mmap(NULL, LOW_LEN, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (vm->low == MAP_FAILED)
		return -errno;
	low.userspace_addr = (uintptr_t)vm->low;
	if (ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &low))
		return -errno;
	vm->vcpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
	if (vm->vcpu < 0)
		return -errno;
	vm->run_len = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm->run = mmap(NULL, vm->run_len, RW, MAP_SHARED, vm->vcpu, 0);
	return vm->run == MAP_FAILED ? -errno : 0;
}

void vm_destroy(struct vm *vm)
{
	munmap(vm->run, vm->run_len);
	munmap(vm->low, LOW_LEN);
	close(vm->vcpu);
	close(vm->vm);
	close(vm->kvm);
}

static void segment(struct kvm_segment *segment, uint32_t base)
{
	segment->base = base;
	segment->selector = base >> 4;
}

int vm_start(struct vm *vm, enum program program, unsigned int offset,
	     uint8_t value)
{
	struct kvm_regs regs = {
		.rip = CODE, .rflags = 2, .rbx = offset, .rax = value,
	};
	struct kvm_sregs sregs;

	memcpy(vm->low + CODE, programs[program].bytes, programs[program].len);
	if (ioctl(vm->vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	segment(&sregs.cs, 0);
	segment(&sregs.ds, SLOT_GPA);
	segment(&sregs.es, MIRROR);
	if (ioctl(vm->vcpu, KVM_SET_SREGS, &sregs) ||
	    ioctl(vm->vcpu, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

int vm_run(struct vm *vm)
{
	return ioctl(vm->vcpu, KVM_RUN, 0) ? -errno : (int)vm->run->exit_reason;
}

/* An exit for I/O is complete only with the next KVM_RUN: that must do nothing else. */
static void finish_io(struct vm *vm)
{
	vm->run->immediate_exit = 1;
	vm_run(vm);
	vm->run->immediate_exit = 0;
}

static int run_program(struct vm *vm, enum program program, unsigned int offset,
		       uint8_t value)
{
	int ret = vm_start(vm, program, offset, value);

	ret = ret ?: vm_run(vm);
	if (ret < 0)
		return ret;
	if (ret == KVM_EXIT_MMIO)
		ret = -ENXIO;
	else if (ret == KVM_EXIT_IO && vm->run->io.port == PORT)
		ret = *((uint8_t *)vm->run + vm->run->io.data_offset);
	else
		ret = -EPROTO;
	vm->mmio_gpa = vm->run->mmio.phys_addr;
	finish_io(vm);
	return ret;
}

int guest_read(struct vm *vm, unsigned int offset)
{
	return run_program(vm, GUEST_READ, offset, 0);
}

int guest_write(struct vm *vm, unsigned int offset, uint8_t value)
{
	return run_program(vm, GUEST_WRITE, offset, value);
}

int guest_read_write(struct vm *vm, unsigned int offset, uint8_t value)
{
	return run_program(vm, GUEST_READ_WRITE, offset, value);
}

int guest_fstp(struct vm *vm, unsigned int offset)
{
	return run_program(vm, GUEST_FSTP, offset, 0);
}

struct mirror *vm_mirror(struct vm *vm)
{
	return (struct mirror *)(vm->low + MIRROR);
}

static void *spin(void *arg)
{
	struct spin *s = arg;
	int ret;

	do {
		ret = vm_run(s->vm);
	} while (!s->stop && (ret == -EINTR || ret == KVM_EXIT_INTR));
	s->ret = ret;
	s->ended = true;
	return NULL;
}

int spin_start(struct spin *s, struct vm *vm, enum program program,
	       unsigned int offset)
{
	int ret = vm_start(vm, program, offset, 0);

	memset(s, 0, sizeof(*s));
	s->vm = vm;
	return ret ?: -pthread_create(&s->thread, NULL, spin, s);
}

int spin_rounds(struct spin *s, unsigned int n)
{
	struct mirror *mirror = vm_mirror(s->vm);
	uint64_t until = now_ms() + 10000;
	uint32_t start = mirror->rounds;

	while (mirror->rounds - start < n) {
		if (s->ended)
			return -ECANCELED;
		if (now_ms() > until)
			return -ETIMEDOUT;
		sched_yield();
	}
	return 0;
}

int spin_end(struct spin *s, unsigned int ms)
{
	uint64_t until = now_ms() + ms;

	while (!s->ended) {
		if (now_ms() > until)
			return -ETIMEDOUT;
		sched_yield();
	}
	pthread_join(s->thread, NULL);
	return s->ret;
}

int spin_stop(struct spin *s)
{
	uint64_t until = now_ms() + 10000;

	s->stop = true;
	while (!s->ended) {
		if (now_ms() > until)
			return -ETIMEDOUT;
		pthread_kill(s->thread, SIGUSR1);
		sleep_ms(1);
	}
	pthread_join(s->thread, NULL);
	return s->ret == -EINTR || s->ret == KVM_EXIT_INTR ? 0 : s->ret;
}

int as_kvm_map(int fd, int vm, uint32_t slot, uint64_t gpa, uint64_t length,
	       uint64_t offset, uint32_t flags, char **mem)
{
	struct kvm_map_address_space arg = {
		.size = sizeof(arg),
		.flags = flags,
		.vmfd = vm,
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = length,
		.offset = offset,
	};
	int ret = as_ioctl(fd, KVM_MAP_ADDRESS_SPACE, &arg);

	if (mem)
		*mem = (char *)(uintptr_t)arg.window;
	return ret;
}

int as_kvm_unmap(int fd, int vm, uint32_t slot)
{
	struct kvm_unmap_address_space arg = {
		.size = sizeof(arg),
		.vmfd = vm,
		.slot = slot,
	};

	return as_ioctl(fd, KVM_UNMAP_ADDRESS_SPACE, &arg);
}

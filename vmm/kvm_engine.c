#include "vmm/kvm_engine.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "vmm/acpi_tables.h"
#include "vmm/boot_layout.h"
#include "vmm/daemon_calls.h"
#include "vmm/guest_kernel_loader.h"
#include "vmm/guest_ram.h"
#include "vmm/kvm_cpu_state.h"
#include "vmm/kvm_probe.h"
#include "vmm/kvm_snapshot.h"
#include "vmm/kvm_vcpu.h"
#include "vmm/kvm_vm.h"
#include "vmm/platform.h"
#include "vmm/serial_port.h"
#include "vmm/snapshot_identity.h"
#include "vmm/virtio_mmio.h"
#include "wire/agent.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#define DETAILS_MAX 256

/* What a vCPU left for the device thread. */
struct outcome {
	pthread_mutex_t lock;
	bool has_ended;
	bool is_paused;
	bool wants_snapshot;
	enum kvm_engine_end end;
	char details[DETAILS_MAX];
};

/* A device and its window. */
struct slot {
	struct kvm_machine *engine;
	const char *name; /* static */
	struct virtio_mmio *transport;
	int interrupt_fd;
};

struct kvm_machine {
	struct kvm_engine_observer observer;
	struct kvm_vm vm;
	struct guest_memory memory;
	struct guest_ram_layout ram;
	struct loaded_kernel kernel;
	struct loaded_initrd initrd;
	unsigned cpus;
	char *command_line;
	struct io_bus ports;
	struct io_bus registers;
	struct serial_port serial;
	int serial_interrupt_fd;
	int doorbell_fd; /* borrowed, non-blocking; -1: none */
	int console[2];	 /* 0: for the reader, 1: the serial port's */
	struct slot slots[PLATFORM_VIRTIO_MAX];
	unsigned slot_count;
	struct kvm_vcpus *vcpus;
	struct event_source wake;      /* eventfd: a vCPU left an outcome */
	struct event_source continued; /* signalfd: SIGCONT */
	struct outcome outcome;
	bool told_end;
	struct snapshot_state
		*snapshot;	    /* that the machine goes on from, or that is to be written */
	int snapshot_fd;	    /* borrowed; -1: it does not go on from one */
	int new_snapshot_fd;	    /* borrowed; -1: none is to be written */
	atomic_bool takes_snapshot; /* the first byte to the port counts */
	bool is_storing;
	bool pause_wanted; /* by the owner */
};

/* ---- on a vCPU's thread ------------------------------------------------------------------------
 */

static void wake_device_thread(const struct kvm_machine *engine)
{
	const uint64_t one = 1;

	(void)!write(engine->wake.fd, &one, sizeof(one));
}

/* The first reason counts. */
static void note_end(struct kvm_machine *engine, enum kvm_engine_end end, const char *details)
{
	struct outcome *outcome = &engine->outcome;

	(void)pthread_mutex_lock(&outcome->lock);
	if (!outcome->has_ended) {
		outcome->has_ended = true;
		outcome->end = end;
		(void)snprintf(outcome->details, sizeof(outcome->details), "%s", details);
	}
	(void)pthread_mutex_unlock(&outcome->lock);
	kvm_vcpus_want_end(engine->vcpus);
	wake_device_thread(engine);
}

static void vcpu_ended(void *observer, enum kvm_vcpu_end end, const char *details)
{
	static const enum kvm_engine_end ends[] = {
		[KVM_VCPU_POWERED_OFF] = KVM_ENGINE_POWERED_OFF,
		[KVM_VCPU_TRIPLE_FAULT] = KVM_ENGINE_TRIPLE_FAULT,
		[KVM_VCPU_GUEST_PANIC] = KVM_ENGINE_GUEST_PANIC,
		[KVM_VCPU_INTERNAL_ERROR] = KVM_ENGINE_INTERNAL_ERROR,
	};

	note_end(observer, ends[end], details);
}

static void vcpus_paused(void *observer)
{
	struct kvm_machine *engine = observer;

	(void)pthread_mutex_lock(&engine->outcome.lock);
	engine->outcome.is_paused = true;
	(void)pthread_mutex_unlock(&engine->outcome.lock);
	wake_device_thread(engine);
}

static void read_zero(void *owner, uint64_t offset, uint8_t *data, size_t length)
{
	(void)owner;
	(void)offset;
	memset(data, 0, length);
}

/* SLP_TYP and SLP_EN (ACPI 6.4, 4.8.3.7). */
static void write_sleep_control(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	(void)length;
	if (offset == 0 && data[0] == (PLATFORM_SLEEP_TYPE_S5 << 2 | 0x20))
		note_end(owner, KVM_ENGINE_POWERED_OFF, "");
}

static void write_reset(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	(void)length;
	if (offset == 0 && data[0] == PLATFORM_RESET_VALUE)
		note_end(owner, KVM_ENGINE_RESET, "by the reset register");
}

static void write_keyboard(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	(void)length;
	if (offset == 0 && data[0] == PLATFORM_KEYBOARD_RESET)
		note_end(owner, KVM_ENGINE_RESET, "by the keyboard controller");
}

/* Bytes without a meaning: where there is no room for one, others are still to be read. */
static void write_doorbell(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	const struct kvm_machine *engine = owner;

	(void)offset;
	(void)length;
	(void)!write(engine->doorbell_fd, data, 1);
}

/* This vCPU rests as soon as the write is done; the device thread sees to the others. */
static void write_snapshot_port(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	struct kvm_machine *engine = owner;

	(void)offset;
	(void)data;
	(void)length;
	if (!atomic_exchange(&engine->takes_snapshot, false))
		return;
	(void)pthread_mutex_lock(&engine->outcome.lock);
	engine->outcome.wants_snapshot = true;
	(void)pthread_mutex_unlock(&engine->outcome.lock);
	kvm_vcpus_want_rest(engine->vcpus);
	wake_device_thread(engine);
}

static void read_slot(void *owner, uint64_t offset, uint8_t *data, size_t length)
{
	const struct slot *slot = owner;

	virtio_mmio_read(slot->transport, offset, data, length);
}

static void write_slot(void *owner, uint64_t offset, const uint8_t *data, size_t length)
{
	const struct slot *slot = owner;

	virtio_mmio_write(slot->transport, offset, data, length);
}

/* ---- putting it together -----------------------------------------------------------------------
 */

static int make_memory(struct kvm_machine *engine, const struct engine_config *config)
{
	int r = guest_ram_layout((uint64_t)config->memory_mib << 20, config->window_address,
				 config->window_size, &engine->ram);

	if (r < 0)
		return r;
	if (config->huge_pages)
		r = guest_ram_map_huge(&engine->ram, config->memory_fd, &engine->memory);
	else
		r = guest_ram_map(&engine->ram, config->memory_fd, &engine->memory);
	return r < 0 ? r : kvm_vm_add_memory(&engine->vm, &engine->memory);
}

/* Whether the processor reaches all of the memory. */
static int check_addresses(const struct kvm_machine *engine, char *why, size_t size)
{
	cleanup_free struct kvm_cpuid_table *table = calloc(1, sizeof(*table));
	unsigned bits;
	int r = table ? kvm_cpuid_supported(engine->vm.kvm, table) : -ENOMEM;

	if (r < 0) {
		(void)snprintf(why, size, "cannot make a KVM machine: CPUID: %s", strerror(-r));
		return r;
	}
	bits = kvm_cpuid_address_bits(table);
	if (guest_ram_fits(&engine->ram, bits))
		return 0;
	(void)snprintf(why, size,
		       "this processor's addresses have %u bits, which is too few for so much "
		       "memory",
		       bits);
	return -EINVAL;
}

static int add_port(struct kvm_machine *engine, uint64_t port, uint64_t length, void *owner,
		    void (*read)(void *, uint64_t, uint8_t *, size_t),
		    void (*write)(void *, uint64_t, const uint8_t *, size_t))
{
	const struct io_range range = { port, length, read, write, owner };

	return io_bus_add(&engine->ports, &range);
}

static int make_ports(struct kvm_machine *engine)
{
	int r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, engine->console) < 0)
		return -errno;
	engine->serial_interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (engine->serial_interrupt_fd < 0)
		return -errno;
	serial_port_init(&engine->serial, engine->console[1], engine->serial_interrupt_fd);
	r = kvm_vm_add_interrupt(&engine->vm, engine->serial_interrupt_fd, PLATFORM_SERIAL_GSI);
	if (r == 0)
		r = add_port(engine, PLATFORM_SERIAL_PORT, PLATFORM_SERIAL_LENGTH, &engine->serial,
			     serial_port_read, serial_port_write);
	if (r == 0)
		r = add_port(engine, PLATFORM_SLEEP_CONTROL_PORT, 2, engine, read_zero,
			     write_sleep_control);
	if (r == 0)
		r = add_port(engine, PLATFORM_RESET_PORT, 1, engine, read_zero, write_reset);
	/* A status of zero: ready for commands. */
	if (r == 0)
		r = add_port(engine, PLATFORM_KEYBOARD_PORT, 1, engine, read_zero, write_keyboard);
	return r;
}

static int make_doorbell(struct kvm_machine *engine, int fd)
{
	int r;

	if (fd < 0)
		return 0;
	engine->doorbell_fd = fd;
	r = set_nonblocking(fd, true);
	return r < 0 ? r
		     : add_port(engine, ENGINE_DOORBELL_PORT, 1, engine, read_zero, write_doorbell);
}

static int make_snapshot_port(struct kvm_machine *engine)
{
	if (engine->new_snapshot_fd < 0)
		return 0;
	atomic_store(&engine->takes_snapshot, true);
	return add_port(engine, ENGINE_SNAPSHOT_PORT, 1, engine, read_zero, write_snapshot_port);
}

/* Loading messages and self-tests cost boot time; the clock is KVM's; a panic resets at once, by
 * the keyboard controller; no device but ours is worth looking for. With one processor Linux takes
 * the lock prefix off each locked instruction, thousands of times through a change of address space
 * and back, which costs more than the prefixes do. Grace periods of RCU are short on few processors
 * when they are asked for. Processors beyond the first are for guest-init to start, as in QEMU
 * (qemu_engine.c says why, and KVM may be emulated itself). */
static int make_command_line(struct kvm_machine *engine, const struct engine_config *config)
{
	char window[96] = "", snapshot[48] = "";

	/* Where the window is that e820 reserves. */
	if (config->window_size > 0)
		(void)snprintf(window, sizeof(window), " " AGENT_WINDOW_VARIABLE "=%#llx:%#llx:%#x",
			       (unsigned long long)config->window_address,
			       (unsigned long long)config->window_size,
			       config->doorbell_fd < 0 ? 0 : ENGINE_DOORBELL_PORT);
	/* For a guest that goes on from a snapshot too: by its command line it is known. */
	if (config->snapshot_fd >= 0 || config->new_snapshot_fd >= 0)
		(void)snprintf(snapshot, sizeof(snapshot), " " AGENT_SNAPSHOT_VARIABLE "=%#x",
			       ENGINE_SNAPSHOT_PORT);
	return asprintf(&engine->command_line,
			"quiet loglevel=1 panic=-1 reboot=k cryptomgr.notests pci=off "
			"swiotlb=noforce random.trust_cpu=on tsc=reliable no_timer_check "
			"noreplace-smp rcupdate.rcu_expedited=1 "
			"console=ttyS0 8250.nr_uarts=1%s%s%s%s%s",
			config->cpus > 1 ? " maxcpus=1" : "", window, snapshot,
			config->append ? " " : "", config->append ? config->append : "") < 0
		       ? -ENOMEM
		       : 0;
}

static struct kvm_machine *new_engine(void)
{
	struct kvm_machine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return NULL;
	engine->vm.kvm = engine->vm.fd = -1;
	engine->serial_interrupt_fd = -1;
	engine->doorbell_fd = -1;
	engine->snapshot_fd = engine->new_snapshot_fd = -1;
	engine->console[0] = engine->console[1] = -1;
	engine->wake.fd = engine->continued.fd = -1;
	for (size_t i = 0; i < PLATFORM_VIRTIO_MAX; i++)
		engine->slots[i].interrupt_fd = -1;
	(void)pthread_mutex_init(&engine->outcome.lock, NULL);
	serial_port_init(&engine->serial, -1, -1);
	return engine;
}

/* SIGCONT continues the process whether or not anybody takes it. */
static int make_events(struct kvm_machine *engine)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGCONT);
	if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0)
		return -EINVAL;
	engine->continued.fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (engine->continued.fd < 0)
		return -errno;
	engine->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return engine->wake.fd < 0 ? -errno : 0;
}

/* Names what balloon and page reports may give back: all but the window, which is others' too. */
static int allow_discard(struct kvm_machine *engine)
{
	const struct guest_ram_layout *ram = &engine->ram;
	const uint64_t window_end = ram->window_address + ram->window_length;
	const struct guest_ram_range ranges[] = {
		{ 0, ram->window_address, GUEST_RAM_USABLE },
		{ window_end, ram->low_length - window_end, GUEST_RAM_USABLE },
		{ GUEST_RAM_HIGH_BASE, ram->high_length, GUEST_RAM_USABLE },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(ranges); i++) {
		if (ranges[i].length > 0)
			r = guest_memory_allow_discard(&engine->memory, ranges[i].address,
						       ranges[i].length);
	}
	return r;
}

static struct kvm_snapshot_parts parts_of(struct kvm_machine *engine)
{
	struct kvm_snapshot_parts parts = {
		.vm = &engine->vm,
		.vcpus = engine->vcpus,
		.cpus = engine->cpus,
		.memory = &engine->memory,
		.ram = &engine->ram,
		.serial = &engine->serial,
		.transport_count = engine->slot_count,
	};

	for (unsigned i = 0; i < engine->slot_count; i++)
		parts.transports[i] = engine->slots[i].transport;
	return parts;
}

/* The snapshot's state into memory, if it is one of this machine. */
static int read_snapshot(struct kvm_machine *engine, const char *identity, char *why, size_t size)
{
	int r = snapshot_read_state(engine->snapshot_fd, engine->snapshot);

	if (r < 0)
		(void)snprintf(why, size, "the snapshot cannot be read: %s", strerror(-r));
	else if (!kvm_snapshot_fits(engine->snapshot, identity, &engine->ram, engine->cpus)) {
		(void)snprintf(why, size, "the snapshot is of another machine");
		return -ESTALE;
	}
	if (r < 0)
		return r;
	r = snapshot_read_memory(engine->snapshot_fd, engine->snapshot, &engine->memory);
	if (r < 0)
		(void)snprintf(why, size, "the snapshot's memory cannot be read: %s", strerror(-r));
	return r;
}

static int prepare_snapshot(struct kvm_machine *engine, const struct engine_config *config,
			    char *why, size_t size)
{
	char identity[SNAPSHOT_IDENTITY_MAX];
	int r;

	if (engine->snapshot_fd < 0 && engine->new_snapshot_fd < 0)
		return 0;
	engine->snapshot = calloc(1, sizeof(*engine->snapshot));
	r = engine->snapshot ? snapshot_identity(config, NULL, engine->command_line, identity)
			     : -ENOMEM;
	if (r < 0) {
		(void)snprintf(why, size, "cannot tell which snapshot fits: %s", strerror(-r));
		return r;
	}
	if (engine->snapshot_fd >= 0)
		return read_snapshot(engine, identity, why, size);
	memcpy(engine->snapshot->identity, identity, sizeof(identity));
	return 0;
}

/* Kernel and initrd, or the memory of a guest that has had them. */
static int fill_memory(struct kvm_machine *engine, const struct engine_config *config, char *why,
		       size_t size)
{
	int r = prepare_snapshot(engine, config, why, size);

	if (r < 0 || engine->snapshot_fd >= 0)
		return r;
	r = load_kernel(&engine->memory, config->kernel, &engine->kernel, why, size);
	if (r < 0)
		return r;
	return load_initrd(&engine->memory, &engine->ram, engine->kernel.end, config->initrd,
			   &engine->initrd, why, size);
}

static int open_machine(struct kvm_machine *engine, const struct engine_config *config, char *why,
			size_t size)
{
	const char *step = "";
	int r = kvm_vm_open(&engine->vm, &step);

	if (r == 0) {
		step = "guest memory";
		r = make_memory(engine, config);
		if (config->huge_pages && (r == -ENOSPC || r == -ENOMEM)) {
			(void)snprintf(why, size,
				       "cannot make a KVM machine: its memory is %llu huge pages "
				       "of 2 MiB, and fewer are free; reserve them (sysctl "
				       "vm.nr_hugepages)",
				       (unsigned long long)guest_ram_huge_pages(
					       &engine->ram, config->memory_fd >= 0));
			return r;
		}
	}
	if (r == 0) {
		step = "console and power ports";
		r = make_ports(engine);
	}
	if (r == 0)
		r = make_doorbell(engine, config->doorbell_fd);
	if (r == 0)
		r = make_snapshot_port(engine);
	if (r == 0)
		r = make_events(engine);
	if (r == 0)
		r = make_command_line(engine, config);
	if (r < 0) {
		(void)snprintf(why, size, "cannot make a KVM machine: %s: %s", step, strerror(-r));
		return r;
	}
	r = check_addresses(engine, why, size);
	if (r < 0)
		return r;
	r = fill_memory(engine, config, why, size);
	/* A reserved huge page that was given back might be gone when it is touched again, which is
	 * fatal. */
	if (r < 0 || config->huge_pages)
		return r;
	r = allow_discard(engine);
	if (r < 0)
		(void)snprintf(why, size, "cannot make a KVM machine: discardable memory: %s",
			       strerror(-r));
	return r;
}

bool kvm_engine_can_store(const struct engine_config *config)
{
	char identity[SNAPSHOT_IDENTITY_MAX];

	return snapshot_identity(config, NULL, "", identity) == 0;
}

int kvm_engine_open(const struct engine_config *config, const struct kvm_engine_observer *observer,
		    struct kvm_machine **ret_engine, char *why, size_t size)
{
	struct kvm_machine *engine;
	int r;

	if (config->cpus > PLATFORM_CPUS_MAX) {
		(void)snprintf(why, size, "the KVM engine runs at most %d processors",
			       PLATFORM_CPUS_MAX);
		return -EINVAL;
	}
	engine = new_engine();
	if (!engine) {
		(void)snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	engine->observer = *observer;
	engine->cpus = config->cpus;
	engine->snapshot_fd = config->snapshot_fd;
	/* What untrusted code may have been in is never stored: a guest that goes on has the port's
	 * byte behind it. */
	engine->new_snapshot_fd = config->snapshot_fd < 0 ? config->new_snapshot_fd : -1;
	r = open_machine(engine, config, why, size);
	if (r < 0) {
		kvm_engine_free(engine);
		return r;
	}
	*ret_engine = engine;
	return 0;
}

static void interrupt_slot(void *context)
{
	const struct slot *slot = context;
	const uint64_t one = 1;

	(void)!write(slot->interrupt_fd, &one, sizeof(one));
}

static void slot_violation(void *context, const char *what)
{
	const struct slot *slot = context;

	slot->engine->observer.violation(slot->engine->observer.observer, slot->name, what);
}

/* Lets KVM pass interrupts and notifications of a slot. */
static int connect_slot(const struct kvm_machine *engine, const struct slot *slot, unsigned index,
			unsigned queue_count)
{
	uint64_t base = PLATFORM_VIRTIO_BASE + index * PLATFORM_VIRTIO_STRIDE;
	int r = kvm_vm_add_interrupt(&engine->vm, slot->interrupt_fd, PLATFORM_VIRTIO_GSI + index);

	for (unsigned queue = 0; r == 0 && queue < queue_count; queue++)
		r = kvm_vm_add_notification(&engine->vm,
					    virtio_mmio_kick_fd(slot->transport, queue),
					    base + VIRTIO_MMIO_QUEUE_NOTIFY, queue);
	return r;
}

int kvm_engine_add_device(struct kvm_machine *engine,
			  const struct virtio_device_operations *operations, void *device)
{
	unsigned index = engine->slot_count;
	struct slot *slot;
	struct io_range range;
	int r;

	if (index == PLATFORM_VIRTIO_MAX)
		return -ENOSPC;
	slot = &engine->slots[index];
	slot->engine = engine;
	slot->name = operations->name;
	slot->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (slot->interrupt_fd < 0)
		return -errno;
	r = virtio_mmio_new(
		&(const struct virtio_mmio_setup){
			.operations = operations,
			.device = device,
			.memory = &engine->memory,
			.interrupt = interrupt_slot,
			.violation = slot_violation,
			.context = slot,
		},
		&slot->transport);
	if (r < 0) {
		close(steal_fd(&slot->interrupt_fd));
		return r;
	}
	engine->slot_count++;
	range = (struct io_range){
		.base = PLATFORM_VIRTIO_BASE + index * PLATFORM_VIRTIO_STRIDE,
		.length = VIRTIO_MMIO_WINDOW,
		.read = read_slot,
		.write = write_slot,
		.owner = slot,
	};
	r = io_bus_add(&engine->registers, &range);
	return r < 0 ? r : connect_slot(engine, slot, index, operations->queue_count);
}

static int write_tables(struct kvm_machine *engine)
{
	const struct acpi_setup setup = {
		.machine = &acpi_own_machine,
		.cpus = engine->cpus,
		.virtio_devices = engine->slot_count,
	};
	struct boot_layout layout = {
		.ram = &engine->ram,
		.command_line = engine->command_line,
		.initrd_address = engine->initrd.address,
		.initrd_length = engine->initrd.length,
		.acpi_rsdp = BOOT_ACPI_ADDRESS,
	};
	uint8_t *tables = gpa_range(&engine->memory, BOOT_ACPI_ADDRESS, BOOT_ACPI_MAX);
	size_t length;
	int r;

	if (!tables)
		return -EFAULT;
	r = acpi_tables_build(&setup, BOOT_ACPI_ADDRESS, tables, BOOT_ACPI_MAX, &length);
	if (r < 0)
		return r;
	if (getrandom(layout.seed, sizeof(layout.seed), 0) != sizeof(layout.seed))
		return -EIO;
	r = boot_layout_write(&layout, &engine->memory);
	explicit_bzero(layout.seed, sizeof(layout.seed));
	return r;
}

/* What the kernel is to find, or the state of one that has found it. */
static int finish_snapshot(struct kvm_machine *engine, const char **ret_step)
{
	const struct kvm_snapshot_parts parts = parts_of(engine);
	int r;

	if (engine->snapshot_fd < 0 && engine->new_snapshot_fd < 0)
		return 0;
	*ret_step = "preparing a snapshot";
	if (engine->snapshot_fd < 0)
		return kvm_snapshot_prepare(engine->snapshot, &parts);
	r = kvm_snapshot_apply(engine->snapshot, &parts, ret_step);
	free(engine->snapshot);
	engine->snapshot = NULL;
	return r;
}

int kvm_engine_complete(struct kvm_machine *engine, char *why, size_t size)
{
	const struct kvm_vcpus_setup setup = {
		.vm = &engine->vm,
		.ports = &engine->ports,
		.registers = &engine->registers,
		.count = engine->cpus,
		.entry = engine->kernel.entry,
		.ended = vcpu_ended,
		.paused = vcpus_paused,
		.observer = engine,
	};
	const char *step = "boot tables";
	int r = engine->snapshot_fd < 0 ? write_tables(engine) : 0;

	if (r == 0)
		r = kvm_vcpus_new(&setup, &engine->vcpus, &step);
	if (r == 0)
		r = finish_snapshot(engine, &step);
	if (r == -E2BIG)
		(void)snprintf(why, size, "the kernel's command line is longer than %d bytes",
			       BOOT_COMMAND_LINE_MAX - 1);
	else if (r < 0)
		(void)snprintf(why, size, "cannot complete the KVM machine: %s: %s", step,
			       strerror(-r));
	return r;
}

/* ---- release -----------------------------------------------------------------------------------
 */

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void kvm_engine_free(struct kvm_machine *engine)
{
	if (!engine)
		return;
	kvm_vcpus_free(engine->vcpus);
	for (unsigned i = 0; i < engine->slot_count; i++) {
		virtio_mmio_free(engine->slots[i].transport);
		close_if_open(engine->slots[i].interrupt_fd);
	}
	kvm_vm_release(&engine->vm);
	guest_memory_release(&engine->memory);
	serial_port_release(&engine->serial);
	close_if_open(engine->serial_interrupt_fd);
	close_if_open(engine->console[0]);
	close_if_open(engine->console[1]);
	close_if_open(engine->wake.fd);
	close_if_open(engine->continued.fd);
	(void)pthread_mutex_destroy(&engine->outcome.lock);
	free(engine->snapshot);
	free(engine->command_line);
	free(engine);
}

int kvm_engine_take_console(struct kvm_machine *engine)
{
	return steal_fd(&engine->console[0]);
}

/* ---- on the device thread ----------------------------------------------------------------------
 */

/* All vCPUs rest for it. */
static void store(struct kvm_machine *engine)
{
	const struct kvm_snapshot_parts parts = parts_of(engine);
	const char *step = "";
	int r = kvm_snapshot_take(engine->new_snapshot_fd, engine->snapshot, &parts, &step);

	engine->is_storing = false;
	free(engine->snapshot);
	engine->snapshot = NULL;
	engine->observer.stored(engine->observer.observer, r, step);
	if (engine->pause_wanted)
		engine->observer.paused(engine->observer.observer);
	else
		kvm_vcpus_run(engine->vcpus);
}

static void on_wake(struct event_source *source, uint32_t events)
{
	struct kvm_machine *engine =
		(struct kvm_machine *)((char *)source - offsetof(struct kvm_machine, wake));
	struct outcome outcome;
	uint64_t count;

	(void)events;
	(void)!read(source->fd, &count, sizeof(count));
	(void)pthread_mutex_lock(&engine->outcome.lock);
	outcome = engine->outcome;
	engine->outcome.is_paused = false;
	engine->outcome.wants_snapshot = false;
	(void)pthread_mutex_unlock(&engine->outcome.lock);
	if (outcome.wants_snapshot) {
		engine->is_storing = true;
		kvm_vcpus_pause(engine->vcpus);
	}
	if (outcome.is_paused && !outcome.has_ended) {
		if (engine->is_storing)
			store(engine);
		else
			engine->observer.paused(engine->observer.observer);
	}
	if (!outcome.has_ended || engine->told_end)
		return;
	engine->told_end = true;
	engine->observer.ended(engine->observer.observer, outcome.end, outcome.details);
}

static void on_continued(struct event_source *source, uint32_t events)
{
	struct kvm_machine *engine =
		(struct kvm_machine *)((char *)source - offsetof(struct kvm_machine, continued));
	struct signalfd_siginfo information;

	(void)events;
	while (read(source->fd, &information, sizeof(information)) == sizeof(information))
		kvm_vcpus_tell_clock(engine->vcpus);
}

int kvm_engine_start(struct kvm_machine *engine, struct event_loop *loop,
		     const struct jail_filter *filter)
{
	int r;

	engine->wake.ready = on_wake;
	engine->continued.ready = on_continued;
	r = event_loop_add(loop, &engine->wake, EPOLLIN);
	if (r == 0)
		r = event_loop_add(loop, &engine->continued, EPOLLIN);
	for (unsigned i = 0; r == 0 && i < engine->slot_count; i++)
		r = virtio_mmio_start(engine->slots[i].transport, loop);
	return r < 0 ? r : kvm_vcpus_start(engine->vcpus, filter);
}

int kvm_engine_run_devices(struct kvm_machine *engine)
{
	int more = 0;

	for (unsigned i = 0; i < engine->slot_count; i++)
		more |= virtio_mmio_run(engine->slots[i].transport);
	return more;
}

bool kvm_engine_forbid_storing(struct kvm_machine *engine)
{
	return atomic_exchange(&engine->takes_snapshot, false);
}

void kvm_engine_pause(struct kvm_machine *engine)
{
	engine->pause_wanted = true;
	kvm_vcpus_pause(engine->vcpus);
}

void kvm_engine_resume(struct kvm_machine *engine)
{
	engine->pause_wanted = false;
	/* One that is being stored goes on when that is done. */
	if (!engine->is_storing)
		kvm_vcpus_run(engine->vcpus);
}

int kvm_engine_stop(struct kvm_machine *engine)
{
	/* A vCPU may be waiting for this thread at a register: release it first. */
	for (unsigned i = 0; i < engine->slot_count; i++)
		virtio_mmio_stop(engine->slots[i].transport);
	return engine->vcpus ? kvm_vcpus_stop(engine->vcpus) : 0;
}

/* ---- the engine --------------------------------------------------------------------------------
 */

const struct engine kvm_engine = {
	.name = "kvm",
	.component = "kvm",
	.probe = kvm_probe_cached,
};

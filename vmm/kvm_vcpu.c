#include "vmm/kvm_vcpu.h"

#include "base/cleanup.h"
#include "vmm/kvm_cpu_state.h"
#include "vmm/platform.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define STOP_TIMEOUT_SECONDS 5
#define STOP_SIGNAL_NS 20000000 /* between signals to a thread that does not come */
#define DETAILS_MAX 200
#define STACK_LENGTH (256u * 1024)

enum wanted {
	WANT_REST,
	WANT_RUN,
	WANT_END,
};

struct vcpu {
	struct kvm_vcpus *all;
	struct kvm_run *run;
	pthread_t thread;
	int fd;
	unsigned index;
	bool started;
	bool rests;    /* under the lock */
	bool finished; /* under the lock */
	atomic_bool tell_clock;
};

struct kvm_vcpus {
	struct kvm_vcpus_setup setup;
	const struct jail_filter *filter;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	_Atomic enum wanted wanted;
	unsigned ready; /* threads that locked themselves */
	int error;	/* of one that could not */
	bool told_paused;
	struct vcpu vcpus[PLATFORM_CPUS_MAX];
};

static const struct jail_syscall calls[] = {
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_RUN)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_KVMCLOCK_CTRL)),
	JAIL_CALL_IF(SYS_ioctl, JAIL_ARGUMENT_EQUAL32(1, KVM_GET_REGS)),
	JAIL_CALL(SYS_write), /* eventfds and the console */
	JAIL_CALL(SYS_futex),
	JAIL_CALL(SYS_sched_yield),
	JAIL_CALL(SYS_clock_gettime),
	JAIL_CALL(SYS_restart_syscall),
	/* The kick, and the end of a thread. */
	JAIL_CALL(SYS_rt_sigreturn),
	JAIL_CALL(SYS_rt_sigprocmask),
	JAIL_CALL(SYS_madvise),
	JAIL_CALL(SYS_exit),
	JAIL_CALL(SYS_exit_group),
};
const struct jail_syscall_set kvm_vcpu_calls = JAIL_SET(calls);

static int kick_signal(void)
{
	return SIGRTMIN;
}

static void on_kick(int number)
{
	(void)number;
}

/* ---- on a vCPU's thread ------------------------------------------------------------------------
 */

static void end_with(const struct vcpu *vcpu, enum kvm_vcpu_end end, const char *details)
{
	kvm_vcpus_want_end(vcpu->all);
	vcpu->all->setup.ended(vcpu->all->setup.observer, end, details);
}

static void end_with_error(const struct vcpu *vcpu, const char *what, uint64_t number)
{
	struct kvm_regs registers = { 0 };
	char details[DETAILS_MAX];

	(void)ioctl(vcpu->fd, KVM_GET_REGS, &registers);
	(void)snprintf(details, sizeof(details), "%s %#llx on processor %u at rip %#llx", what,
		       (unsigned long long)number, vcpu->index, (unsigned long long)registers.rip);
	end_with(vcpu, KVM_VCPU_INTERNAL_ERROR, details);
}

static void serve_ports(const struct vcpu *vcpu)
{
	const struct io_bus *bus = vcpu->all->setup.ports;
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	/* String instructions repeat; each byte for a console that nobody reads may wait. */
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (atomic_load(&vcpu->all->wanted) == WANT_END)
			return;
		if (run->io.direction == KVM_EXIT_IO_OUT)
			io_bus_write(bus, run->io.port, data, run->io.size);
		else
			io_bus_read(bus, run->io.port, data, run->io.size);
	}
}

static void serve_registers(const struct vcpu *vcpu)
{
	const struct io_bus *bus = vcpu->all->setup.registers;
	struct kvm_run *run = vcpu->run;

	if (run->mmio.is_write)
		io_bus_write(bus, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		io_bus_read(bus, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static void serve_system_event(const struct vcpu *vcpu)
{
	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
	case KVM_SYSTEM_EVENT_RESET:
		end_with(vcpu, KVM_VCPU_POWERED_OFF, "");
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		end_with(vcpu, KVM_VCPU_GUEST_PANIC, "the guest reported a crash");
		break;
	default:
		break;
	}
}

static void serve_exit(const struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_ports(vcpu);
		break;
	case KVM_EXIT_MMIO:
		serve_registers(vcpu);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_HLT:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		serve_system_event(vcpu);
		break;
	case KVM_EXIT_SHUTDOWN:
		end_with(vcpu, KVM_VCPU_TRIPLE_FAULT, "");
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		end_with_error(vcpu, "KVM_EXIT_INTERNAL_ERROR", run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		end_with_error(vcpu, "KVM_EXIT_FAIL_ENTRY",
			       run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		end_with_error(vcpu, "exit of a kind that is not expected:", run->exit_reason);
		break;
	}
}

static void run_once(const struct vcpu *vcpu)
{
	if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
		serve_exit(vcpu);
		return;
	}
	if (errno == EINTR)
		/* A request that comes from here on sets it again. */
		__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	else if (errno != EAGAIN)
		end_with_error(vcpu, strerror(errno), (uint64_t)errno);
}

/* Whether all threads that did not end are at rest. Under the lock. */
static bool all_rest(const struct kvm_vcpus *all)
{
	for (unsigned i = 0; i < all->setup.count; i++) {
		if (!all->vcpus[i].rests && !all->vcpus[i].finished)
			return false;
	}
	return true;
}

/* KVM finishes the instruction of the last exit as it is entered again; until then the registers
 * are those of the instruction's beginning (api.rst, KVM_RUN). */
static void finish_exit(const struct vcpu *vcpu)
{
	for (;;) {
		__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		if (ioctl(vcpu->fd, KVM_RUN, 0) < 0)
			break;
		serve_exit(vcpu); /* an instruction of several accesses */
	}
	__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

/* Waits until running is wanted again. False at the end. */
static bool rest(struct vcpu *vcpu)
{
	struct kvm_vcpus *all = vcpu->all;
	enum wanted wanted;

	finish_exit(vcpu);
	(void)pthread_mutex_lock(&all->lock);
	vcpu->rests = true;
	if (all_rest(all) && !all->told_paused) {
		all->told_paused = true;
		all->setup.paused(all->setup.observer);
	}
	while ((wanted = atomic_load(&all->wanted)) == WANT_REST)
		(void)pthread_cond_wait(&all->changed, &all->lock);
	vcpu->rests = false;
	(void)pthread_mutex_unlock(&all->lock);
	atomic_store(&vcpu->tell_clock, true);
	return wanted == WANT_RUN;
}

/* Whether the guest may run now. */
static bool may_run(struct vcpu *vcpu)
{
	enum wanted wanted = atomic_load(&vcpu->all->wanted);

	if (wanted == WANT_END || (wanted == WANT_REST && !rest(vcpu)))
		return false;
	/* EINVAL while the guest has not set its clock up. */
	if (atomic_exchange(&vcpu->tell_clock, false))
		(void)ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
	return true;
}

static void *vcpu_main(void *argument)
{
	struct vcpu *vcpu = argument;
	struct kvm_vcpus *all = vcpu->all;
	sigset_t kick;
	int r = 0;

	(void)sigemptyset(&kick);
	(void)sigaddset(&kick, kick_signal());
	(void)pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	if (all->filter)
		r = jail_filter_enter_thread(all->filter);
	(void)pthread_mutex_lock(&all->lock);
	all->ready++;
	if (r < 0)
		all->error = r;
	(void)pthread_cond_broadcast(&all->changed);
	(void)pthread_mutex_unlock(&all->lock);
	if (r == 0) {
		while (may_run(vcpu))
			run_once(vcpu);
	}
	(void)pthread_mutex_lock(&all->lock);
	vcpu->finished = true;
	(void)pthread_cond_broadcast(&all->changed);
	(void)pthread_mutex_unlock(&all->lock);
	return NULL;
}

/* ---- on the device thread ----------------------------------------------------------------------
 */

static int make_vcpu(struct kvm_vcpus *vcpus, unsigned index,
		     const struct kvm_cpuid_table *supported, struct kvm_cpuid_table *table,
		     const char **ret_step)
{
	const struct kvm_vcpus_setup *setup = &vcpus->setup;
	struct vcpu *vcpu = &vcpus->vcpus[index];
	void *run;
	int r;

	*ret_step = "KVM_CREATE_VCPU";
	vcpu->fd = kvm_vm_create_vcpu(setup->vm, index);
	if (vcpu->fd < 0)
		return vcpu->fd;
	*ret_step = "mapping a vCPU";
	run = mmap(NULL, setup->vm->run_length, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpu->run = run;
	*ret_step = "CPUID";
	*table = *supported;
	r = kvm_cpuid_patch(table, index, setup->count);
	if (r < 0)
		return r;
	return kvm_cpu_start_state(vcpu->fd, table, index, setup->entry, ret_step);
}

static int make_all(struct kvm_vcpus *vcpus, const char **ret_step)
{
	cleanup_free struct kvm_cpuid_table *tables = calloc(2, sizeof(*tables));
	int r;

	*ret_step = "KVM_GET_SUPPORTED_CPUID";
	if (!tables)
		return -ENOMEM;
	r = kvm_cpuid_supported(vcpus->setup.vm->kvm, &tables[0]);
	for (unsigned i = 0; r == 0 && i < vcpus->setup.count; i++)
		r = make_vcpu(vcpus, i, &tables[0], &tables[1], ret_step);
	return r;
}

int kvm_vcpus_new(const struct kvm_vcpus_setup *setup, struct kvm_vcpus **ret_vcpus,
		  const char **ret_step)
{
	const struct sigaction action = { .sa_handler = on_kick };
	struct kvm_vcpus *vcpus;
	int r;

	*ret_step = "number of processors";
	if (setup->count < 1 || setup->count > PLATFORM_CPUS_MAX)
		return -EINVAL;
	vcpus = calloc(1, sizeof(*vcpus));
	if (!vcpus)
		return -ENOMEM;
	vcpus->setup = *setup;
	(void)pthread_mutex_init(&vcpus->lock, NULL);
	(void)pthread_cond_init(&vcpus->changed, NULL);
	for (unsigned i = 0; i < PLATFORM_CPUS_MAX; i++) {
		vcpus->vcpus[i].all = vcpus;
		vcpus->vcpus[i].index = i;
		vcpus->vcpus[i].fd = -1;
	}
	*ret_step = "sigaction";
	r = sigaction(kick_signal(), &action, NULL) < 0 ? -errno : 0;
	if (r == 0)
		r = make_all(vcpus, ret_step);
	if (r < 0) {
		kvm_vcpus_free(vcpus);
		return r;
	}
	*ret_vcpus = vcpus;
	return 0;
}

void kvm_vcpus_free(struct kvm_vcpus *vcpus)
{
	if (!vcpus)
		return;
	for (unsigned i = 0; i < vcpus->setup.count; i++) {
		struct vcpu *vcpu = &vcpus->vcpus[i];

		if (vcpu->run)
			(void)munmap(vcpu->run, vcpus->setup.vm->run_length);
		if (vcpu->fd >= 0)
			close(vcpu->fd);
	}
	(void)pthread_cond_destroy(&vcpus->changed);
	(void)pthread_mutex_destroy(&vcpus->lock);
	free(vcpus);
}

int kvm_vcpus_descriptor(const struct kvm_vcpus *vcpus, unsigned index)
{
	return index < vcpus->setup.count ? vcpus->vcpus[index].fd : -1;
}

static int start_threads(struct kvm_vcpus *vcpus)
{
	pthread_attr_t attributes;
	sigset_t all_signals, before;
	int error = 0;

	if (pthread_attr_init(&attributes) != 0)
		return -ENOMEM;
	(void)pthread_attr_setstacksize(&attributes, STACK_LENGTH);
	(void)sigfillset(&all_signals);
	(void)pthread_sigmask(SIG_SETMASK, &all_signals, &before);
	for (unsigned i = 0; i < vcpus->setup.count && error == 0; i++) {
		struct vcpu *vcpu = &vcpus->vcpus[i];

		error = pthread_create(&vcpu->thread, &attributes, vcpu_main, vcpu);
		vcpu->started = error == 0;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)pthread_attr_destroy(&attributes);
	return -error;
}

int kvm_vcpus_start(struct kvm_vcpus *vcpus, const struct jail_filter *filter)
{
	int r;

	vcpus->filter = filter;
	vcpus->told_paused = true; /* nobody asked for this first rest */
	r = start_threads(vcpus);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&vcpus->lock);
	while (vcpus->ready < vcpus->setup.count)
		(void)pthread_cond_wait(&vcpus->changed, &vcpus->lock);
	r = vcpus->error;
	(void)pthread_mutex_unlock(&vcpus->lock);
	return r;
}

/* Gets threads out of KVM_RUN. */
static void kick_all(struct kvm_vcpus *vcpus)
{
	for (unsigned i = 0; i < vcpus->setup.count; i++) {
		struct vcpu *vcpu = &vcpus->vcpus[i];

		if (!vcpu->started)
			continue;
		__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		(void)pthread_kill(vcpu->thread, kick_signal());
	}
}

static void want(struct kvm_vcpus *vcpus, enum wanted wanted)
{
	(void)pthread_mutex_lock(&vcpus->lock);
	if (atomic_load(&vcpus->wanted) != WANT_END) {
		vcpus->told_paused = wanted != WANT_REST;
		atomic_store(&vcpus->wanted, wanted);
	}
	(void)pthread_cond_broadcast(&vcpus->changed);
	(void)pthread_mutex_unlock(&vcpus->lock);
}

void kvm_vcpus_run(struct kvm_vcpus *vcpus)
{
	want(vcpus, WANT_RUN);
}

void kvm_vcpus_pause(struct kvm_vcpus *vcpus)
{
	want(vcpus, WANT_REST);
	kick_all(vcpus);
}

void kvm_vcpus_tell_clock(struct kvm_vcpus *vcpus)
{
	for (unsigned i = 0; i < vcpus->setup.count; i++)
		atomic_store(&vcpus->vcpus[i].tell_clock, true);
	kick_all(vcpus);
}

void kvm_vcpus_want_rest(struct kvm_vcpus *vcpus)
{
	want(vcpus, WANT_REST);
}

void kvm_vcpus_want_end(struct kvm_vcpus *vcpus)
{
	want(vcpus, WANT_END);
}

static bool all_finished(const struct kvm_vcpus *vcpus)
{
	for (unsigned i = 0; i < vcpus->setup.count; i++) {
		if (vcpus->vcpus[i].started && !vcpus->vcpus[i].finished)
			return false;
	}
	return true;
}

/* Signals again and again: a thread may be in a handler's poll() rather than in KVM_RUN. */
static int await_end(struct kvm_vcpus *vcpus)
{
	struct timespec deadline, now;
	bool done;

	(void)clock_gettime(CLOCK_REALTIME, &deadline);
	now = deadline;
	deadline.tv_sec += STOP_TIMEOUT_SECONDS;
	(void)pthread_mutex_lock(&vcpus->lock);
	while (!(done = all_finished(vcpus)) && now.tv_sec <= deadline.tv_sec) {
		struct timespec next = now;

		kick_all(vcpus);
		next.tv_nsec += STOP_SIGNAL_NS;
		next.tv_sec += next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		(void)pthread_cond_timedwait(&vcpus->changed, &vcpus->lock, &next);
		(void)clock_gettime(CLOCK_REALTIME, &now);
	}
	(void)pthread_mutex_unlock(&vcpus->lock);
	return done ? 0 : -ETIMEDOUT;
}

int kvm_vcpus_stop(struct kvm_vcpus *vcpus)
{
	int r;

	kvm_vcpus_want_end(vcpus);
	r = await_end(vcpus);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < vcpus->setup.count; i++) {
		if (vcpus->vcpus[i].started)
			(void)pthread_join(vcpus->vcpus[i].thread, NULL);
		vcpus->vcpus[i].started = false;
	}
	return 0;
}

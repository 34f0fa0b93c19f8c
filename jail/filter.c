#include "jail/filter.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "jail/calls.h"

#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Highest call number that can be counted; x86-64 has fewer than 500. */
#define CALL_NUMBER_MAX 1023

struct filter {
	scmp_filter_ctx context;
	uint64_t counted[(CALL_NUMBER_MAX + 1) / 64];
	unsigned calls;
};

static void filter_release(struct filter *filter)
{
	if (filter->context)
		seccomp_release(filter->context);
}

static int to_libseccomp(const struct jail_condition *condition, struct scmp_arg_cmp *ret_compare)
{
	struct scmp_arg_cmp compare = { .arg = condition->argument, .datum_a = condition->value };

	if (condition->argument > 5)
		return -EINVAL;
	switch (condition->compare) {
	case JAIL_EQUAL:
		compare.op = SCMP_CMP_EQ;
		break;
	case JAIL_NOT_EQUAL:
		compare.op = SCMP_CMP_NE;
		break;
	case JAIL_AT_MOST:
		compare.op = SCMP_CMP_LE;
		break;
	case JAIL_MASKED_EQUAL:
		compare.op = SCMP_CMP_MASKED_EQ;
		compare.datum_a = condition->mask;
		compare.datum_b = condition->value;
		break;
	default:
		return -EINVAL;
	}
	*ret_compare = compare;
	return 0;
}

static int add_call(struct filter *filter, const struct jail_syscall *call)
{
	uint32_t action = SCMP_ACT_ALLOW;
	struct scmp_arg_cmp compares[JAIL_CONDITIONS_MAX];
	uint64_t bit;
	uint64_t *word;
	int error;

	if (call->number < 0 || call->number > CALL_NUMBER_MAX ||
	    call->condition_count > JAIL_CONDITIONS_MAX || call->refuse_errno < 0)
		return -EINVAL;
	if (call->refuse_errno)
		action = SCMP_ACT_ERRNO((uint32_t)call->refuse_errno);
	for (size_t i = 0; i < call->condition_count; i++) {
		error = to_libseccomp(&call->conditions[i], &compares[i]);
		if (error)
			return error;
	}
	error = seccomp_rule_add_array(filter->context, action, call->number, call->condition_count,
				       compares);
	/* Sets that are joined overlap. */
	if (error && error != -EEXIST)
		return error;
	word = &filter->counted[call->number / 64];
	bit = UINT64_C(1) << (call->number % 64);
	if (!call->refuse_errno && !(*word & bit)) {
		*word |= bit;
		filter->calls++;
	}
	return 0;
}

static int add_set(struct filter *filter, const struct jail_syscall_set *set)
{
	for (size_t i = 0; i < set->count; i++) {
		int error = add_call(filter, &set->calls[i]);

		if (error)
			return error;
	}
	return 0;
}

static int set_attributes(scmp_filter_ctx context)
{
	int error = seccomp_attr_set(context, SCMP_FLTATR_CTL_TSYNC, 1);

	if (!error)
		error = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	/* A decision tree instead of a list: the calls with conditions are evaluated at every
	 * call, the others the kernel answers from a bitmap. */
	if (!error)
		error = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	/* Errors of the kernel instead of one -ECANCELED for all. */
	if (!error)
		error = seccomp_attr_set(context, SCMP_FLTATR_API_SYSRAWRC, 1);
	return error;
}

static int build(struct filter *filter, const struct jail_syscall_set *const *sets, size_t count)
{
	int error = set_attributes(filter->context);

	for (size_t i = 0; !error && i < count; i++)
		error = add_set(filter, sets[i]);
#if JAIL_SANITIZER
	if (!error)
		error = add_set(filter, &jail_calls_sanitizer);
#endif
	return error;
}

/* ---- compiled ------------------------------------------------------------------------------ */

struct compiled_filter {
	struct jail_filter filter; /* first: free() of it frees all */
	struct sock_filter instructions[];
};

/* Through a file, because libseccomp writes to descriptors alone. */
static int export(const struct filter *filter, struct jail_filter **ret_filter)
{
	cleanup_free struct compiled_filter *compiled = NULL;
	cleanup_fd int file = memfd_create("filter", MFD_CLOEXEC);
	struct stat status;
	ssize_t count;
	int error;

	if (file < 0)
		return -errno;
	error = seccomp_export_bpf(filter->context, file);
	if (error)
		return error;
	if (fstat(file, &status) < 0 || lseek(file, 0, SEEK_SET) < 0)
		return -errno;
	if (status.st_size <= 0 ||
	    status.st_size > BPF_MAXINSNS * (off_t)sizeof(struct sock_filter))
		return -E2BIG;
	compiled = malloc(sizeof(*compiled) + (size_t)status.st_size);
	if (!compiled)
		return -ENOMEM;
	count = read_full(file, compiled->instructions, (size_t)status.st_size);
	if (count != status.st_size)
		return count < 0 ? (int)count : -EIO;
	compiled->filter = (struct jail_filter){
		.instructions = compiled->instructions,
		.count = (unsigned)((size_t)count / sizeof(struct sock_filter)),
		.calls = filter->calls,
	};
	*ret_filter = &steal_pointer(&compiled)->filter;
	return 0;
}

int jail_filter_compile(const struct jail_syscall_set *const *sets, size_t count,
			struct jail_filter **ret_filter)
{
	struct filter filter __attribute__((
		cleanup(filter_release))) = { .context = seccomp_init(SCMP_ACT_KILL_PROCESS) };
	int error;

	if (!filter.context)
		return -ENOMEM;
	error = build(&filter, sets, count);
	return error ? error : export(&filter, ret_filter);
}

/* 0, a negative errno, or the first thread that could not follow (SECCOMP_FILTER_FLAG_TSYNC). */
static int load(const struct jail_filter *filter, unsigned flags)
{
	/* struct sock_fprog, which has no const, though the kernel only reads. */
	const struct {
		unsigned short length;
		const struct sock_filter *instructions;
	} program = { (unsigned short)filter->count, filter->instructions };
	long result;

	static_assert(sizeof(program) == sizeof(struct sock_fprog), "the kernel's layout");
	result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
	return result < 0 ? -errno : (int)result;
}

int jail_filter_enter_thread(const struct jail_filter *filter)
{
	return load(filter, 0);
}

static const struct jail_syscall thread_filter_calls[] = {
	JAIL_CALL_IF(SYS_seccomp, JAIL_ARGUMENT_EQUAL32(0, SECCOMP_SET_MODE_FILTER)),
};
const struct jail_syscall_set jail_calls_thread_filter = JAIL_SET(thread_filter_calls);

/* ---- the stage ----------------------------------------------------------------------------- */

static int enter_compiled(const struct jail_filter *filter, unsigned *ret_calls)
{
	int result = load(filter, SECCOMP_FILTER_FLAG_TSYNC);

	if (result != 0)
		return result < 0 ? result : -ESRCH;
	*ret_calls = filter->calls;
	return 0;
}

int filter_enter(const struct jail_spec *spec, unsigned *ret_calls)
{
	struct filter filter __attribute__((cleanup(filter_release))) = { 0 };
	int error;

	if (spec->filter)
		return enter_compiled(spec->filter, ret_calls);
	filter.context = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!filter.context)
		return -ENOMEM;
	error = build(&filter, spec->syscall_sets, spec->syscall_set_count);
	if (!error)
		error = seccomp_load(filter.context);
	if (error)
		return error;
	*ret_calls = filter.calls;
	return 0;
}

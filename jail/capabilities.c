#include "jail/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Version 3 holds 64 bits in two elements. */
struct capability_sets {
	struct __user_cap_data_struct words[2];
};

static int get_sets(struct capability_sets *ret_sets)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capget, &header, ret_sets->words) < 0 ? -errno : 0;
}

static int put_sets(const struct capability_sets *sets)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capset, &header, sets->words) < 0 ? -errno : 0;
}

bool capability_held(int capability)
{
	struct capability_sets sets;

	if (get_sets(&sets) < 0)
		return false;
	return sets.words[capability / 32].effective >> (capability % 32) & 1;
}

/* Without CAP_SETPCAP the bounding set cannot shrink; no_new_privs and the empty permitted set
 * then make it meaningless. */
static int drop_bounding(uint64_t keep)
{
	for (int capability = 0; capability < 64; capability++) {
		if (keep >> capability & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			/* The first number that the kernel does not know ends the list. */
			return errno == EINVAL ? 0 : -errno;
	}
	return 0;
}

int capabilities_drop(uint64_t keep, uint64_t *ret_kept)
{
	struct capability_sets sets;
	int error;

	if (capability_held(CAP_SETPCAP)) {
		if (prctl(PR_SET_SECUREBITS,
			  SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
				  SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED | SECBIT_KEEP_CAPS_LOCKED,
			  0, 0, 0) < 0)
			return -errno;
		error = drop_bounding(keep);
		if (error)
			return error;
	}
	/* Kernels before 4.3 have no ambient set, and nothing to clear. */
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return -errno;
	error = get_sets(&sets);
	if (error)
		return error;
	for (int i = 0; i < 2; i++) {
		sets.words[i].permitted &= (uint32_t)(keep >> (32 * i));
		sets.words[i].effective = sets.words[i].permitted;
		sets.words[i].inheritable = 0;
	}
	error = put_sets(&sets);
	if (error)
		return error;
	*ret_kept = sets.words[0].permitted | (uint64_t)sets.words[1].permitted << 32;
	return 0;
}

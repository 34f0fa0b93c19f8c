#include "jail/landlock.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define CREATE_RULESET_VERSION 1u
#define RULE_PATH_BENEATH 1

/* The kernel takes a shorter struct from callers that know fewer members and refuses a longer one
 * with unknown members set: `ruleset_size` gives what each ABI knows. */
struct ruleset_attributes {
	uint64_t handled_access_fs;
	uint64_t handled_access_net; /* ABI 4 */
	uint64_t scoped;	     /* ABI 6 */
};

struct path_beneath_attributes {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((packed));

/* Rights that make sense on a file; the kernel refuses the others there. */
#define FILE_RIGHTS                                                                                \
	(JAIL_FS_EXECUTE | JAIL_FS_WRITE_FILE | JAIL_FS_READ_FILE | JAIL_FS_TRUNCATE |             \
	 JAIL_FS_IOCTL_DEV)

static long create_ruleset(const struct ruleset_attributes *attributes, size_t size, unsigned flags)
{
	return syscall(SYS_landlock_create_ruleset, attributes, size, flags);
}

int jail_landlock_abi(void)
{
	long abi = create_ruleset(NULL, 0, CREATE_RULESET_VERSION);

	return abi > 0 ? (int)MIN_OF(abi, 1000) : 0;
}

static uint64_t handled_fs(int abi)
{
	uint64_t handled = (JAIL_FS_MAKE_SYM << 1) - 1;

	if (abi >= 2)
		handled |= JAIL_FS_REFER;
	if (abi >= 3)
		handled |= JAIL_FS_TRUNCATE;
	if (abi >= 5)
		handled |= JAIL_FS_IOCTL_DEV;
	return handled;
}

static size_t ruleset_size(int abi)
{
	if (abi >= 6)
		return sizeof(struct ruleset_attributes);
	return abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
}

static int add_rule(int ruleset, const struct jail_path_rule *rule, uint64_t handled)
{
	struct path_beneath_attributes attributes = {
		.allowed_access = rule->access & handled,
		.parent_fd = rule->fd,
	};
	struct stat status;

	if (fstat(rule->fd, &status) < 0)
		return -errno;
	if (!S_ISDIR(status.st_mode))
		attributes.allowed_access &= FILE_RIGHTS;
	/* The kernel refuses empty rules; no rule means the same. */
	if (attributes.allowed_access == 0)
		return 0;
	if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &attributes, 0u) < 0)
		return -errno;
	return 0;
}

static int enter(const struct jail_spec *spec, int abi)
{
	struct ruleset_attributes attributes = { .handled_access_fs = handled_fs(abi) };
	cleanup_fd int ruleset = -1;

	if (abi >= 4)
		attributes.handled_access_net =
			(JAIL_NET_BIND_TCP | JAIL_NET_CONNECT_TCP) & ~spec->network_allowed;
	if (abi >= 6)
		attributes.scoped = (JAIL_SCOPE_ABSTRACT_UNIX_SOCKET | JAIL_SCOPE_SIGNAL) &
				    ~spec->scope_allowed;
	ruleset = (int)create_ruleset(&attributes, ruleset_size(abi), 0);
	if (ruleset < 0)
		return -errno;
	for (size_t i = 0; i < spec->path_rule_count; i++) {
		int error = add_rule(ruleset, &spec->path_rules[i], attributes.handled_access_fs);

		if (error)
			return error;
	}
	return syscall(SYS_landlock_restrict_self, ruleset, 0u) < 0 ? -errno : 0;
}

int landlock_enter(const struct jail_spec *spec, int *ret_abi, int *ret_reason)
{
	int abi = MIN_OF(jail_landlock_abi(), JAIL_LANDLOCK_ABI_KNOWN);
	int error;

	if (abi == 0 || abi < spec->landlock_minimum_abi) {
		if (spec->landlock_required)
			return -EPERM;
		*ret_abi = 0;
		*ret_reason = abi == 0 ? ENOSYS : EOPNOTSUPP;
		return 0;
	}
	error = enter(spec, abi);
	if (error)
		return error;
	*ret_abi = abi;
	return 0;
}

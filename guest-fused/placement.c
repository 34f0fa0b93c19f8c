#include "guest-fused/placement.h"

#include "base/cleanup.h"
#include "base/io.h"
#include "guest-fused/mount.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HYPERVISOR_BIT (1u << 31) /* of leaf 1's ECX */
#define HYPERVISOR_LEAF 0x40000000u
#define INTERRUPTS_SIZE 65536u

static bool is_emulated(void)
{
	unsigned a;
	unsigned b;
	unsigned c;
	unsigned d;
	char name[12];

	if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & HYPERVISOR_BIT) == 0)
		return false;
	__cpuid(HYPERVISOR_LEAF, a, b, c, d);
	memcpy(name, &b, 4);
	memcpy(name + 4, &c, 4);
	memcpy(name + 8, &d, 4);
	return memcmp(name, "TCGTCGTCGTCG", sizeof(name)) == 0;
}

static void bind_interrupt(int proc_fd, unsigned long number)
{
	char path[64];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "irq/%lu/smp_affinity_list", number);
	fd = openat(proc_fd, path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)write_full(fd, "0", 1);
}

/* Lines are "NUMBER: COUNT... CONTROLLER... NAME". */
static void bind_virtio(int proc_fd, char *text)
{
	char *rest = NULL;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *end;
		unsigned long number = strtoul(line, &end, 10);

		if (*end == ':' && strstr(end, " virtio") != NULL)
			bind_interrupt(proc_fd, number);
	}
}

void fused_placement_apply(void)
{
	cleanup_free char *text = NULL;
	cleanup_fd int proc_fd = -1;
	cleanup_fd int fd = -1;
	cpu_set_t first;
	ssize_t length;

	if (!is_emulated() || sysconf(_SC_NPROCESSORS_CONF) < 2)
		return;
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first) != 0)
		return;
	proc_fd = fused_open_kernel_files("proc");
	fd = proc_fd >= 0 ? openat(proc_fd, "interrupts", O_RDONLY | O_CLOEXEC) : -1;
	text = malloc(INTERRUPTS_SIZE);
	if (fd < 0 || text == NULL)
		return;
	length = read_full(fd, text, INTERRUPTS_SIZE - 1);
	if (length < 0)
		return;
	text[length] = '\0';
	bind_virtio(proc_fd, text);
}

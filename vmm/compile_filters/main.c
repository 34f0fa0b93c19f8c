/* Runs while matchlock-vmm is built: prints filters.c, the definition of vmm_filters
 * (vmm/filters.h), on standard output. */
#include "vmm/daemon_calls.h"
#include "vmm/filters.h"

#include "base/cleanup.h"

#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	const struct jail_syscall_set *const *calls;
} sources[VMM_FILTERS] = {
	[VMM_FILTER_CHILD] = { "child", child_calls },
	[VMM_FILTER_STORING_CHILD] = { "storing_child", storing_child_calls },
	[VMM_FILTER_IN_PROCESS] = { "in_process", in_process_calls },
	[VMM_FILTER_STORING] = { "storing", storing_calls },
	[VMM_FILTER_DEVICE_THREAD] = { "device_thread", device_thread_calls },
	[VMM_FILTER_VCPU_THREAD] = { "vcpu_thread", vcpu_thread_calls },
};

static size_t count_of(const struct jail_syscall_set *const *calls)
{
	size_t count = 0;

	while (calls[count])
		count++;
	return count;
}

static void print_instructions(const char *name, const struct jail_filter *filter)
{
	printf("\nstatic const struct sock_filter %s[] = {\n", name);
	for (unsigned i = 0; i < filter->count; i++) {
		const struct sock_filter *one = &filter->instructions[i];

		printf("\t{ 0x%02x, %u, %u, 0x%08x },\n", one->code, one->jt, one->jf, one->k);
	}
	printf("};\n");
}

int main(void)
{
	unsigned calls[VMM_FILTERS];

	printf("/* Made by vmm/compile_filters. */\n"
	       "#include \"vmm/filters.h\"\n\n#include <linux/filter.h>\n");
	for (size_t i = 0; i < VMM_FILTERS; i++) {
		cleanup_free struct jail_filter *filter = NULL;
		int error =
			jail_filter_compile(sources[i].calls, count_of(sources[i].calls), &filter);

		if (error) {
			fprintf(stderr, "compile-filters: %s: %s\n", sources[i].name,
				strerror(-error));
			return EXIT_FAILURE;
		}
		print_instructions(sources[i].name, filter);
		calls[i] = filter->calls;
	}
	printf("\nconst struct jail_filter vmm_filters[VMM_FILTERS] = {\n");
	for (size_t i = 0; i < VMM_FILTERS; i++)
		printf("\t{ %s, sizeof(%s) / sizeof(%s[0]), %u },\n", sources[i].name,
		       sources[i].name, sources[i].name, calls[i]);
	printf("};\n");
	return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

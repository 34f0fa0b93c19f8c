#include "vmm/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int engine_select(const char *name, const struct engine **ret_engine, char *why, size_t size)
{
	char reason[ENGINE_TEXT_MAX] = "";
	int r;

	if (strcmp(name, "kvm") == 0) {
		(void)snprintf(why, size,
			       "this build has no KVM engine; use --engine auto or --engine qemu");
		return -EOPNOTSUPP;
	}
	if (strcmp(name, "auto") != 0 && strcmp(name, "qemu") != 0) {
		(void)snprintf(why, size, "there is no such engine; use auto, qemu or kvm");
		return -EINVAL;
	}
	r = qemu_engine.probe(reason, sizeof(reason));
	if (r < 0) {
		(void)snprintf(why, size, "engine qemu cannot run: %s", reason);
		return r;
	}
	*ret_engine = &qemu_engine;
	(void)snprintf(why, size, "engine qemu (%s): %s. A software VM is the weaker boundary.",
		       strcmp(name, "auto") == 0 ? "this build has no KVM engine" : "as asked for",
		       reason);
	return 0;
}

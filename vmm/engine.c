#include "vmm/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WEAKER " A software VM is the weaker boundary."

/* An engine that the caller named. A doubtful KVM is used all the same. */
static int take(const struct engine *engine, const struct engine **ret_engine, char *why,
		size_t size)
{
	char reason[ENGINE_TEXT_MAX / 2] = "";
	int r = engine->probe(reason, sizeof(reason));

	if (r < 0 && (r != -EOPNOTSUPP || engine != &kvm_engine)) {
		(void)snprintf(why, size, "engine %s cannot run: %s", engine->name, reason);
		return r;
	}
	*ret_engine = engine;
	(void)snprintf(why, size, "engine %s (as asked for%s): %s.%s", engine->name,
		       r < 0 ? ", in spite of what was found" : "", reason,
		       engine == &qemu_engine ? WEAKER : "");
	return 0;
}

/* KVM where it can run Linux, else software. */
static int choose(const struct engine **ret_engine, char *why, size_t size)
{
	char kvm[ENGINE_TEXT_MAX / 2] = "", qemu[ENGINE_TEXT_MAX / 2] = "";
	int r = kvm_engine.probe(kvm, sizeof(kvm));

	if (r == 0) {
		*ret_engine = &kvm_engine;
		(void)snprintf(why, size, "engine kvm: %s.", kvm);
		return 0;
	}
	r = qemu_engine.probe(qemu, sizeof(qemu));
	if (r < 0) {
		(void)snprintf(why, size, "no engine can run: kvm: %s; qemu: %s", kvm, qemu);
		return r;
	}
	*ret_engine = &qemu_engine;
	(void)snprintf(why, size, "engine qemu (no KVM: %s): %s." WEAKER, kvm, qemu);
	return 0;
}

int engine_select(const char *name, const struct engine **ret_engine, char *why, size_t size)
{
	if (strcmp(name, "auto") == 0)
		return choose(ret_engine, why, size);
	if (strcmp(name, "kvm") == 0)
		return take(&kvm_engine, ret_engine, why, size);
	if (strcmp(name, "qemu") == 0)
		return take(&qemu_engine, ret_engine, why, size);
	if (strcmp(name, "qemu-kvm") == 0)
		return take(&qemu_kvm_engine, ret_engine, why, size);
	(void)snprintf(why, size, "there is no such engine; use auto, qemu, qemu-kvm or kvm");
	return -EINVAL;
}

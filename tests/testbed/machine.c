/*
 * machine CPUS DEVICES MIB PROGRAM ARGUMENT...
 *
 * Executes QEMU for its microvm machine with ACPI tables of ours: so that the guest's timer is one
 * of known speed, as vmm/qemu_engine.c explains. Makes MIB of memory that holds the tables, as the
 * program's descriptor 9. The guest needs acpi_rsdp=ACPI_MICROVM_ADDRESS, the machine acpi=off and
 * a memory backend of mem-path=/proc/self/fd/9.
 */
#include "base/io.h"
#include "vmm/acpi_tables.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_FD 9

static unsigned number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (end == text || *end || value > 1u << 20) {
		fprintf(stderr, "machine: '%s' is no number\n", text);
		exit(125);
	}
	return (unsigned)value;
}

int main(int argc, char **argv)
{
	static uint8_t tables[ACPI_MICROVM_MAX];
	struct acpi_setup setup = { .machine = &acpi_microvm_machine };
	size_t length;
	int memory, r;

	if (argc < 5) {
		fprintf(stderr, "usage: machine CPUS DEVICES MIB PROGRAM ARGUMENT...\n");
		return 125;
	}
	setup.cpus = number(argv[1]);
	setup.virtio_devices = number(argv[2]);
	r = acpi_tables_build(&setup, ACPI_MICROVM_ADDRESS, tables, sizeof(tables), &length);
	if (r < 0) {
		fprintf(stderr, "machine: no tables for %s processors and %s devices: %s\n",
			argv[1], argv[2], strerror(-r));
		return 125;
	}
	memory = memfd_create("testbed", 0);
	if (memory < 0 || ftruncate(memory, (off_t)number(argv[3]) << 20) < 0 ||
	    pwrite(memory, tables, length, ACPI_MICROVM_ADDRESS) != (ssize_t)length ||
	    dup2(memory, MEMORY_FD) < 0 || set_close_on_exec(memory, memory != MEMORY_FD) < 0) {
		fprintf(stderr, "machine: cannot make the memory: %s\n", strerror(errno));
		return 125;
	}
	execvp(argv[4], argv + 4);
	fprintf(stderr, "machine: cannot run %s: %s\n", argv[4], strerror(errno));
	return 125;
}

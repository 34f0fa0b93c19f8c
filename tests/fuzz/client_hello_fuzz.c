/*
 * What is read of a ClientHello: the input, in a block of its exact size, as a record, as a server
 * name extension and as one of protocols. A name that is taken has the form of one.
 */
#include "base/cleanup.h"
#include "proxy/client_hello.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(int result, const struct host_name *name)
{
	struct host_name again;

	if (result)
		return;
	if (strlen(name->text) != name->length ||
	    host_name_parse(name->text, name->length, &again) < 0 || !host_name_equal(name, &again))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_free uint8_t *copy = malloc(size);
	struct host_name name;

	if (size == 0 || !copy)
		return 0;
	memcpy(copy, data, size);
	check_name(client_hello_record(copy, size, &name), &name);
	check_name(client_hello_server_name(copy, size, &name), &name);
	(void)client_hello_protocols(copy, size);
	return 0;
}

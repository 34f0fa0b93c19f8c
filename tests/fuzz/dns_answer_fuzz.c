/* Any bytes as a DNS query. What is answered is a well-formed answer to that query: its identifier,
 * its question, and no address but synthetic ones and loopback. */
#include <assert.h>
#include <errno.h>
#include <ldns/ldns.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/dns_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_address(const struct synthetic_addresses *table, const ldns_rr *record)
{
	static const uint8_t v6_loopback[16] = { [15] = 1 };
	struct ip_address address = { .family = 4 };
	struct host_name name;
	size_t length = ldns_rdf_size(ldns_rr_rdf(record, 0));

	assert(length == 4 || length == 16);
	address.family = length == 4 ? 4 : 6;
	memcpy(address.bytes, ldns_rdf_data(ldns_rr_rdf(record, 0)), length);
	if (length == 4 ? address.bytes[0] == 127 : memcmp(address.bytes, v6_loopback, 16) == 0)
		return;
	assert(synthetic_addresses_name(table, &address, &name) == 0);
}

static void check_answer(const struct synthetic_addresses *table, const uint8_t *query,
			 const uint8_t *answer, size_t length)
{
	ldns_pkt *told = NULL;

	assert(length >= 12 && length <= DNS_ANSWER_MAX);
	assert(memcmp(query, answer, 2) == 0 && answer[2] & 0x80);
	assert(ldns_wire2pkt(&told, answer, length) == LDNS_STATUS_OK);
	assert(ldns_pkt_ancount(told) <= 1 && ldns_pkt_nscount(told) == 0);
	if (ldns_pkt_ancount(told) == 1) {
		assert(ldns_pkt_get_rcode(told) == LDNS_RCODE_NOERROR);
		check_address(table, ldns_rr_list_rr(ldns_pkt_answer(told), 0));
	}
	ldns_pkt_free(told);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct synthetic_addresses *table = synthetic_addresses_new();
	/* Of the exact size, so that a read past the end is seen. */
	uint8_t *query = malloc(size > 0 ? size : 1);
	uint8_t answer[DNS_ANSWER_MAX];
	size_t length = 0;
	int result;

	if (table && query) {
		memcpy(query, data, size);
		result = dns_answer(table, query, size, answer, &length);
		assert(result == 0 || result == -EBADMSG || result == -ENOMEM);
		if (result == 0)
			check_answer(table, query, answer, length);
	}
	free(query);
	synthetic_addresses_free(table);
	return 0;
}

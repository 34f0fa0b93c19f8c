#include "proxy/dns_answer.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <errno.h>
#include <ldns/ldns.h>
#include <string.h>

/*
 * Theory of operation
 *
 * The header is judged by hand, so that ldns sees only messages with one question, at most one
 * additional record and nothing else. Nothing of the query is copied into the answer but the
 * identifier, two flags and the question, which ldns writes anew.
 */

#define HEADER_SIZE 12u
#define FLAG_QR 0x80u	  /* of the third byte */
#define OPCODE_MASK 0x78u /* of the third byte */
#define FLAG_RD 0x01u	  /* of the third byte */
#define FLAG_RA 0x80u	  /* of the fourth byte */
#define TTL_SECONDS 300u  /* as good as any: the address does not change */
#define RCODE_BADVERS 16u /* RFC 6891 section 9 */

static unsigned count_at(const uint8_t *query, size_t offset)
{
	return (unsigned)query[offset] << 8 | query[offset + 1];
}

/* An answer that says nothing but `rcode`, for a query that ldns was not asked to read. */
static void write_bare(const uint8_t *query, unsigned rcode, uint8_t *answer, size_t *ret_length)
{
	memset(answer, 0, HEADER_SIZE);
	memcpy(answer, query, 2);
	answer[2] = (uint8_t)(FLAG_QR | (query[2] & (OPCODE_MASK | FLAG_RD)));
	answer[3] = (uint8_t)(FLAG_RA | rcode);
	*ret_length = HEADER_SIZE;
}

/* The host name of a question. A label may hold any byte in DNS, dots too: such is none. */
static int question_name(const ldns_rdf *owner, struct host_name *ret_name)
{
	const uint8_t *wire = ldns_rdf_data(owner);
	size_t size = ldns_rdf_size(owner);
	char text[LDNS_MAX_DOMAINLEN];
	size_t length = 0;
	size_t position = 0;

	while (position < size && wire[position] != 0) {
		size_t label = wire[position++];

		if (label > size - position || label + 1 > sizeof(text) - length ||
		    memchr(wire + position, '.', label))
			return -EINVAL;
		memcpy(text + length, wire + position, label);
		length += label;
		text[length++] = '.';
		position += label;
	}
	return host_name_parse(text, length, ret_name);
}

static bool does_not_exist(const struct host_name *name)
{
	static const char *const domains[] = { "invalid", "onion", "ipv4only.arpa",
					       "use-application-dns.net" };

	for (size_t i = 0; i < ARRAY_LENGTH(domains); i++) {
		if (host_name_is_under(name, domains[i]))
			return true;
	}
	return false;
}

static int address_of(struct synthetic_addresses *addresses, const struct host_name *name,
		      ldns_rr_type type, struct ip_address *ret_address)
{
	if (host_name_is_under(name, "localhost"))
		return ip_address_parse(type == LDNS_RR_TYPE_A ? "127.0.0.1" : "::1", ret_address);
	return synthetic_addresses_of(addresses, name, type == LDNS_RR_TYPE_A ? ret_address : NULL,
				      type == LDNS_RR_TYPE_AAAA ? ret_address : NULL);
}

static int push_address(ldns_pkt *answer, const ldns_rr *question, ldns_rr_type type,
			const struct ip_address *address)
{
	ldns_rr *record = ldns_rr_new();
	ldns_rdf *owner = ldns_rdf_clone(ldns_rr_owner(question));
	ldns_rdf *data = type == LDNS_RR_TYPE_A
				 ? ldns_rdf_new_frm_data(LDNS_RDF_TYPE_A, 4, address->bytes)
				 : ldns_rdf_new_frm_data(LDNS_RDF_TYPE_AAAA, 16, address->bytes);

	if (!record || !owner || !data) {
		ldns_rr_free(record);
		ldns_rdf_deep_free(owner);
		ldns_rdf_deep_free(data);
		return -ENOMEM;
	}
	ldns_rr_set_owner(record, owner);
	ldns_rr_set_type(record, type);
	ldns_rr_set_class(record, LDNS_RR_CLASS_IN);
	ldns_rr_set_ttl(record, TTL_SECONDS);
	if (!ldns_rr_push_rdf(record, data)) {
		ldns_rdf_deep_free(data);
		ldns_rr_free(record);
		return -ENOMEM;
	}
	if (!ldns_pkt_push_rr(answer, LDNS_SECTION_ANSWER, record)) {
		ldns_rr_free(record);
		return -ENOMEM;
	}
	return 0;
}

/* Decides; adds the address there is to tell. */
static int resolve(struct synthetic_addresses *addresses, const ldns_rr *question, ldns_pkt *answer)
{
	ldns_rr_type type = ldns_rr_get_type(question);
	struct ip_address address;
	struct host_name name;
	int error;

	if (ldns_rr_get_class(question) != LDNS_RR_CLASS_IN) {
		ldns_pkt_set_rcode(answer, LDNS_RCODE_REFUSED);
		return 0;
	}
	if (question_name(ldns_rr_owner(question), &name) < 0 || does_not_exist(&name)) {
		ldns_pkt_set_rcode(answer, LDNS_RCODE_NXDOMAIN);
		return 0;
	}
	if (type != LDNS_RR_TYPE_A && type != LDNS_RR_TYPE_AAAA)
		return 0;
	error = address_of(addresses, &name, type, &address);
	if (error == -ENOSPC) {
		ldns_pkt_set_rcode(answer, LDNS_RCODE_SERVFAIL);
		return 0;
	}
	return error ? error : push_address(answer, question, type, &address);
}

static int fill_answer(struct synthetic_addresses *addresses, const ldns_pkt *query,
		       ldns_pkt *answer)
{
	const ldns_rr *question = ldns_rr_list_rr(ldns_pkt_question(query), 0);
	ldns_rr *copy = ldns_rr_clone(question);

	if (!copy || !ldns_pkt_push_rr(answer, LDNS_SECTION_QUESTION, copy)) {
		ldns_rr_free(copy);
		return -ENOMEM;
	}
	ldns_pkt_set_id(answer, ldns_pkt_id(query));
	ldns_pkt_set_qr(answer, true);
	ldns_pkt_set_ra(answer, true);
	ldns_pkt_set_rd(answer, ldns_pkt_rd(query));
	ldns_pkt_set_cd(answer, ldns_pkt_cd(query));
	if (ldns_pkt_edns(query))
		ldns_pkt_set_edns_udp_size(answer, DNS_QUERY_MAX);
	if (ldns_pkt_edns_version(query) != 0) {
		ldns_pkt_set_edns_extended_rcode(answer, RCODE_BADVERS >> 4);
		return 0;
	}
	return resolve(addresses, question, answer);
}

static int write_answer(const ldns_pkt *packet, uint8_t *answer, size_t *ret_length)
{
	cleanup_free uint8_t *wire = NULL;
	size_t length = 0;

	if (ldns_pkt2wire(&wire, packet, &length) != LDNS_STATUS_OK)
		return -ENOMEM;
	if (length > DNS_ANSWER_MAX)
		return -EMSGSIZE;
	memcpy(answer, wire, length);
	*ret_length = length;
	return 0;
}

int dns_answer(struct synthetic_addresses *addresses, const uint8_t *query, size_t length,
	       uint8_t answer[static DNS_ANSWER_MAX], size_t *ret_length)
{
	ldns_pkt *asked = NULL;
	ldns_pkt *told;
	int error;

	if (length < HEADER_SIZE || query[2] & FLAG_QR)
		return -EBADMSG;
	if (query[2] & OPCODE_MASK) {
		write_bare(query, LDNS_RCODE_NOTIMPL, answer, ret_length);
		return 0;
	}
	if (length > DNS_QUERY_MAX || count_at(query, 4) != 1 || count_at(query, 6) != 0 ||
	    count_at(query, 8) != 0 || count_at(query, 10) > 1 ||
	    ldns_wire2pkt(&asked, query, length) != LDNS_STATUS_OK) {
		write_bare(query, LDNS_RCODE_FORMERR, answer, ret_length);
		return 0;
	}
	told = ldns_pkt_new();
	error = told ? fill_answer(addresses, asked, told) : -ENOMEM;
	if (!error)
		error = write_answer(told, answer, ret_length);
	ldns_pkt_free(told);
	ldns_pkt_free(asked);
	return error;
}

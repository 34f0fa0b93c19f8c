#include "wire/secret_bundle.h"

#include <errno.h>
#include <string.h>

/* Offset of the count in the bundle. */
#define COUNT_OFFSET 6
#define HEADER_SIZE 8

/* ---- what an entry may hold --------------------------------------------------------------------
 */

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name(const struct secret_text *text)
{
	if (text->length < 1 || text->length > SECRET_NAME_MAX || is_digit(text->data[0]))
		return false;
	for (size_t i = 0; i < text->length; i++) {
		if (!is_letter(text->data[i]) && !is_digit(text->data[i]) && text->data[i] != '_')
			return false;
	}
	return true;
}

static const char *value_fault(const struct secret_text *text)
{
	if (text->length < SECRET_VALUE_MIN)
		return "the value is too short: one of fewer than 8 characters occurs by chance, "
		       "so "
		       "that it could neither be replaced nor hidden safely";
	if (text->length > SECRET_VALUE_MAX)
		return "the value is longer than 4096 characters";
	for (size_t i = 0; i < text->length; i++) {
		if (text->data[i] < ' ' || text->data[i] > '~')
			return "the value holds a character that a header field cannot carry: only "
			       "printable ASCII is possible";
	}
	if (text->data[0] == ' ' || text->data[text->length - 1] == ' ')
		return "the value begins or ends with a space";
	return NULL;
}

static const char *pem_fault(const struct secret_text *text)
{
	if (text->length == 0 || text->length > SECRET_PEM_MAX)
		return "certificates and key are empty, or more than 48 KiB";
	for (size_t i = 0; i < text->length; i++) {
		char c = text->data[i];

		if ((c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t')
			return "it is not PEM, which is text";
	}
	return NULL;
}

/* Labels of a-z, 0-9, '-' and '_', with an optional "*." before them. */
static bool is_host(const struct secret_text *text)
{
	size_t begin = text->length >= 2 && text->data[0] == '*' && text->data[1] == '.' ? 2 : 0;
	size_t label = 0;

	if (text->length > SECRET_HOST_MAX || text->length == begin)
		return false;
	for (size_t i = begin; i < text->length; i++) {
		char c = text->data[i];

		if (c == '.' && label == 0)
			return false;
		if (c != '.' && c != '-' && c != '_' && !is_digit(c) && !(c >= 'a' && c <= 'z'))
			return false;
		label = c == '.' ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return label > 0;
}

/* A header's name: token of RFC 9110, section 5.6.2. */
static bool is_slot(const struct secret_text *text)
{
	if (text->length < 1 || text->length > SECRET_SLOT_MAX)
		return false;
	for (size_t i = 0; i < text->length; i++) {
		char c = text->data[i];

		if (!is_letter(c) && !is_digit(c) && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
			return false;
	}
	return true;
}

const char *secret_entry_fault(const struct secret_entry *entry)
{
	bool is_pem = entry->kind == SECRET_CLIENT_CERTIFICATE;
	const char *fault;

	if (entry->kind < SECRET_PLAIN || entry->kind > SECRET_CLIENT_CERTIFICATE ||
	    (entry->flags & ~SECRET_FLAGS))
		return "it is of an unknown kind";
	if (!is_name(&entry->name))
		return "the name is not one of an environment variable";
	fault = is_pem ? pem_fault(&entry->value) : value_fault(&entry->value);
	if (fault)
		return fault;
	if (entry->prefix_length >= entry->value.length)
		return "the prefix to keep is the whole value";
	if (entry->host_count > SECRET_HOSTS_MAX || entry->slot_count > SECRET_SLOTS_MAX)
		return "it has more than 16 hosts or 16 headers";
	if ((entry->host_count == 0) != (entry->kind == SECRET_CANARY || is_pem))
		return "a secret needs a host; a canary and a client certificate have none";
	if (is_pem && (entry->flags != 0 || entry->slot_count > 0 || entry->prefix_length > 0))
		return "a client certificate has no options";
	for (size_t i = 0; i < entry->host_count; i++) {
		if (!is_host(&entry->hosts[i].pattern))
			return "a host is neither a name such as api.example.com nor *.example.com";
	}
	for (size_t i = 0; i < entry->slot_count; i++) {
		if (!is_slot(&entry->slots[i]))
			return "a header's name is not one";
	}
	return NULL;
}

/* ---- encoding ----------------------------------------------------------------------------------
 */

void secret_bundle_begin(struct byte_writer *writer)
{
	byte_writer_u32(writer, SECRET_BUNDLE_MAGIC);
	byte_writer_u16(writer, SECRET_BUNDLE_VERSION);
	byte_writer_u16(writer, 0);
}

static void count_entry(struct byte_writer *writer)
{
	uint8_t *count = writer->data + COUNT_OFFSET;
	unsigned value = count[0] + 1U;

	if (writer->failed || writer->length < HEADER_SIZE || value > SECRET_COUNT_MAX)
		writer->failed = true;
	else
		count[0] = (uint8_t)value;
}

void secret_bundle_add(struct byte_writer *writer, const struct secret_entry *entry)
{
	if (secret_entry_fault(entry)) {
		writer->failed = true;
		return;
	}
	byte_writer_u8(writer, (uint8_t)entry->kind);
	byte_writer_u8(writer, entry->flags);
	byte_writer_u8(writer, entry->prefix_length);
	byte_writer_u8(writer, 0);
	byte_writer_u8(writer, (uint8_t)entry->name.length);
	byte_writer_u8(writer, entry->host_count);
	byte_writer_u8(writer, entry->slot_count);
	byte_writer_u8(writer, 0);
	byte_writer_u16(writer, (uint16_t)entry->value.length);
	byte_writer_u16(writer, 0);
	byte_writer_bytes(writer, entry->name.data, entry->name.length);
	byte_writer_bytes(writer, entry->value.data, entry->value.length);
	for (size_t i = 0; i < entry->host_count; i++) {
		byte_writer_u16(writer, entry->hosts[i].port);
		byte_writer_u8(writer, (uint8_t)entry->hosts[i].pattern.length);
		byte_writer_bytes(writer, entry->hosts[i].pattern.data,
				  entry->hosts[i].pattern.length);
	}
	for (size_t i = 0; i < entry->slot_count; i++) {
		byte_writer_u8(writer, (uint8_t)entry->slots[i].length);
		byte_writer_bytes(writer, entry->slots[i].data, entry->slots[i].length);
	}
	if (byte_writer_ok(writer))
		count_entry(writer);
}

/* ---- decoding ----------------------------------------------------------------------------------
 */

int secret_bundle_open(struct secret_bundle_reader *reader, const void *data, size_t length)
{
	uint32_t magic;
	uint16_t version;

	byte_reader_init(&reader->bytes, data, length);
	magic = byte_reader_u32(&reader->bytes);
	version = byte_reader_u16(&reader->bytes);
	reader->left = byte_reader_u16(&reader->bytes);
	if (!byte_reader_ok(&reader->bytes) || length > SECRET_BUNDLE_MAX ||
	    magic != SECRET_BUNDLE_MAGIC || version != SECRET_BUNDLE_VERSION ||
	    reader->left > SECRET_COUNT_MAX)
		return -EBADMSG;
	return 0;
}

static struct secret_text read_text(struct byte_reader *bytes, size_t length)
{
	struct secret_text text = { .length = length };

	text.data = (const char *)byte_reader_bytes(bytes, length);
	if (!text.data)
		text.length = 0;
	return text;
}

int secret_bundle_next(struct secret_bundle_reader *reader, struct secret_entry *ret_entry)
{
	struct byte_reader *bytes = &reader->bytes;
	uint8_t zero;
	uint8_t name_length;
	uint16_t value_length;
	uint16_t reserved;

	if (reader->left == 0)
		return byte_reader_done(bytes) ? 0 : -EBADMSG;
	reader->left--;
	*ret_entry = (struct secret_entry){ .kind = (enum secret_kind)byte_reader_u8(bytes) };
	ret_entry->flags = byte_reader_u8(bytes);
	ret_entry->prefix_length = byte_reader_u8(bytes);
	zero = byte_reader_u8(bytes);
	name_length = byte_reader_u8(bytes);
	ret_entry->host_count = byte_reader_u8(bytes);
	ret_entry->slot_count = byte_reader_u8(bytes);
	zero |= byte_reader_u8(bytes);
	value_length = byte_reader_u16(bytes);
	reserved = byte_reader_u16(bytes);
	if (!byte_reader_ok(bytes) || zero != 0 || reserved != 0 ||
	    ret_entry->host_count > SECRET_HOSTS_MAX || ret_entry->slot_count > SECRET_SLOTS_MAX)
		return -EBADMSG;
	ret_entry->name = read_text(bytes, name_length);
	ret_entry->value = read_text(bytes, value_length);
	for (size_t i = 0; i < ret_entry->host_count; i++) {
		ret_entry->hosts[i].port = byte_reader_u16(bytes);
		ret_entry->hosts[i].pattern = read_text(bytes, byte_reader_u8(bytes));
	}
	for (size_t i = 0; i < ret_entry->slot_count; i++)
		ret_entry->slots[i] = read_text(bytes, byte_reader_u8(bytes));
	if (!byte_reader_ok(bytes) || secret_entry_fault(ret_entry))
		return -EBADMSG;
	return 1;
}

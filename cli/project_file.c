#include "cli/project_file.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/flat_yaml.h"
#include "cli/options.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PATTERN_MAX 1024 /* as the file server's POLICY_PATTERN_MAX */

static const char *const list_names[PROJECT_LISTS] = { "deny", "hide", "readonly" };

const char *project_list_name(enum project_list list)
{
	return list_names[list];
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static int hash_bytes(struct project_bytes *bytes)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	if (EVP_Digest(bytes->text, bytes->length, digest, &length, EVP_sha256(), NULL) != 1 ||
	    length != 32)
		return -ENOSYS;
	for (unsigned i = 0; i < length; i++)
		snprintf(bytes->sha256 + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

/* 0 or a negative errno; -ELOOP for what is no regular file. */
static int load(struct project_bytes *bytes)
{
	/* A FIFO must not hold us up, nor a link lead elsewhere. */
	cleanup_fd int fd =
		open(bytes->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat status;
	int error;

	if (fd < 0 || fstat(fd, &status) < 0)
		return errno == ENXIO ? -ELOOP : -errno;
	if (!S_ISREG(status.st_mode))
		return -ELOOP;
	error = read_file(fd, FLAT_YAML_BYTES_MAX, &bytes->text, &bytes->length);
	return error < 0 ? error : hash_bytes(bytes);
}

int project_bytes_read(const char *directory, struct project_bytes *ret_bytes,
		       struct problem *problem)
{
	const char *parent = strcmp(directory, "/") == 0 ? "" : directory;
	struct project_bytes bytes = { .path = text_printf("%s/" PROJECT_FILE_NAME, parent) };
	int error = load(&bytes);

	if (error == 0) {
		*ret_bytes = bytes;
		return 1;
	}
	if (error != -ENOENT)
		problem_set(problem, STATUS_USAGE, "%s: %s", bytes.path,
			    error == -ELOOP   ? "is no regular file"
			    : error == -EFBIG ? "is larger than 256 KiB"
					      : strerror(-error));
	project_bytes_free(&bytes);
	return error == -ENOENT ? 0 : -1;
}

void project_bytes_free(struct project_bytes *bytes)
{
	free(bytes->path);
	free(bytes->text);
	*bytes = (struct project_bytes){ 0 };
}

/* ---- form ----------------------------------------------------------------------------------- */

struct document {
	unsigned version;
	char **deny;
	unsigned deny_count;
	char **hide;
	unsigned hide_count;
	char **readonly;
	unsigned readonly_count;
	char *network;
	char *workspace;
	char *cpus;
	char *memory;
	char *timeout;
	bool *rollback_on_exit;
};

#define OPTIONAL (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER)

/* clang-format off: the macros are the library's table syntax */
static const cyaml_schema_value_t pattern_schema = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, PATTERN_MAX),
};

static const cyaml_schema_field_t document_fields[] = {
	CYAML_FIELD_UINT("version", CYAML_FLAG_DEFAULT, struct document, version),
	CYAML_FIELD_SEQUENCE("deny", OPTIONAL, struct document, deny, &pattern_schema, 0,
			     FLAT_YAML_ITEMS_MAX),
	CYAML_FIELD_SEQUENCE("hide", OPTIONAL, struct document, hide, &pattern_schema, 0,
			     FLAT_YAML_ITEMS_MAX),
	CYAML_FIELD_SEQUENCE("readonly", OPTIONAL, struct document, readonly, &pattern_schema, 0,
			     FLAT_YAML_ITEMS_MAX),
	CYAML_FIELD_STRING_PTR("network", OPTIONAL, struct document, network, 1, 32),
	CYAML_FIELD_STRING_PTR("workspace", OPTIONAL, struct document, workspace, 1, 32),
	CYAML_FIELD_STRING_PTR("cpus", OPTIONAL, struct document, cpus, 1, 32),
	CYAML_FIELD_STRING_PTR("memory", OPTIONAL, struct document, memory, 1, 32),
	CYAML_FIELD_STRING_PTR("timeout", OPTIONAL, struct document, timeout, 1, 32),
	CYAML_FIELD_BOOL_PTR("rollback_on_exit", OPTIONAL, struct document, rollback_on_exit),
	CYAML_FIELD_END
};

static const cyaml_schema_value_t document_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct document, document_fields),
};
/* clang-format on */

#define ONLY_TIGHTENS                                                                              \
	"a project's file may only take away, and this gives; it belongs on the command line or "  \
	"in the user's config.yaml"

static const struct flat_yaml_refusal refusals[] = {
	{ "allow", "a project's file may only take away, and this opens a protection; use "
		   "--allow-write, or a policy of your own with --policy" },
	{ "protect", "a project's file may only take away, and this opens a protection; use a "
		     "policy of your own with --policy" },
	{ "allow_write", ONLY_TIGHTENS },
	{ "volumes", ONLY_TIGHTENS },
	{ "env", ONLY_TIGHTENS },
	{ "policy", ONLY_TIGHTENS },
	{ "image", ONLY_TIGHTENS },
	{ "engine", "the engine is the user's choice; it belongs on the command line or in the "
		    "user's config.yaml" },
	{ "user", ONLY_TIGHTENS },
	{ "keep_on_success", "it would keep changes; a project can only ask for rollback_on_exit" },
	{ NULL, NULL },
};

static const struct flat_yaml_form form = {
	.schema = &document_schema,
	.refusals = refusals,
	.manual = "docs/configuration.md",
};

/* ---- values --------------------------------------------------------------------------------- */

struct taking {
	const struct document *document;
	const struct flat_yaml_lines *lines;
	const char *name;
	struct project_file *file;
	struct problem *problem;
};

static int mistake(const struct taking *taking, const char *key, const char *what)
{
	return problem_set(taking->problem, STATUS_USAGE, "%s:%u: %s: %s", taking->name,
			   flat_yaml_key_line(taking->lines, key), key, what);
}

static void take_rules(struct taking *taking, enum project_list list, char **patterns,
		       unsigned count)
{
	struct project_file *file = taking->file;

	for (unsigned i = 0; i < count; i++)
		file->rules[file->rule_count++] = (struct project_rule){
			.list = list,
			.pattern = text_copy(patterns[i]),
			.line = flat_yaml_item_line(taking->lines, list_names[list], i),
		};
}

static int take_limits(struct taking *taking)
{
	const struct document *document = taking->document;
	uint64_t number;

	if (document->cpus) {
		if (!parse_unsigned(document->cpus, RUN_CPUS_MAX, &number) || number == 0)
			return mistake(taking, "cpus", "write a number from 1 to 16");
		taking->file->cpus = (unsigned)number;
	}
	if (document->memory) {
		if (!parse_size(document->memory, &number) || number >> 20 < RUN_MEMORY_MIN_MIB ||
		    number >> 20 > RUN_MEMORY_MAX_MIB)
			return mistake(taking, "memory",
				       "write a number and a unit, such as 512m or 4g, of at "
				       "least 128m");
		taking->file->memory_mib = (unsigned)(number >> 20);
	}
	if (document->timeout) {
		if (!parse_duration(document->timeout, 1000, &number) || number > UINT32_MAX / 2)
			return mistake(taking, "timeout",
				       "write a duration such as 90, 90s, 5m or 2h, of at most 24 "
				       "days");
		taking->file->timeout_ms = (unsigned)number;
	}
	return 0;
}

static int take_document(struct taking *taking)
{
	const struct document *document = taking->document;
	struct project_file *file = taking->file;
	size_t total =
		(size_t)document->deny_count + document->hide_count + document->readonly_count;

	file->rules = allocate(total + 1, sizeof(*file->rules));
	take_rules(taking, PROJECT_DENY, document->deny, document->deny_count);
	take_rules(taking, PROJECT_HIDE, document->hide, document->hide_count);
	take_rules(taking, PROJECT_READONLY, document->readonly, document->readonly_count);
	if (document->network && strcmp(document->network, "none") != 0)
		return mistake(taking, "network",
			       "a project's file may only take away: write none, or remove it");
	if (document->workspace && strcmp(document->workspace, "readonly") != 0)
		return mistake(taking, "workspace",
			       "a project's file may only take away: write readonly, or remove it");
	if (document->rollback_on_exit && !*document->rollback_on_exit)
		return mistake(taking, "rollback_on_exit",
			       "a project's file may only take away: write true, or remove it");
	file->no_network = document->network;
	file->read_only = document->workspace;
	file->rollback_on_exit = document->rollback_on_exit;
	return take_limits(taking);
}

int project_file_parse(const char *text, size_t length, const char *name,
		       struct project_file *ret_file, struct problem *problem)
{
	struct project_file file = { 0 };
	struct flat_yaml_lines lines;
	void *document;
	int result;

	if (flat_yaml_read(&form, text, length, name, &document, &lines, problem) < 0)
		return -1;
	result = take_document(&(struct taking){ .document = document,
						 .lines = &lines,
						 .name = name,
						 .file = &file,
						 .problem = problem });
	flat_yaml_free(&form, document, &lines);
	if (result < 0)
		project_file_free(&file);
	else
		*ret_file = file;
	return result;
}

void project_file_free(struct project_file *file)
{
	for (size_t i = 0; i < file->rule_count; i++)
		free(file->rules[i].pattern);
	free(file->rules);
	*file = (struct project_file){ 0 };
}

/* ---- for people ----------------------------------------------------------------------------- */

char *project_file_text(const struct project_file *file)
{
	static const char *const meanings[PROJECT_LISTS] = { "neither read nor changed", "not seen",
							     "not changed" };
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return text_copy("");
	for (size_t i = 0; i < file->rule_count; i++) {
		cleanup_free char *pattern = quote_word(file->rules[i].pattern);

		fprintf(out, "  %-12s%s (%s)\n", list_names[file->rules[i].list], pattern,
			meanings[file->rules[i].list]);
	}
	if (file->no_network)
		fprintf(out, "  %-12snone\n", "network");
	if (file->read_only)
		fprintf(out, "  %-12sread-only\n", "workspace");
	if (file->rollback_on_exit)
		fprintf(out, "  %-12severy change is undone when the command ends\n", "roll-back");
	if (file->cpus)
		fprintf(out, "  %-12sat most %u\n", "cpus", file->cpus);
	if (file->memory_mib) {
		cleanup_free char *size = format_size((uint64_t)file->memory_mib << 20);

		fprintf(out, "  %-12sat most %s\n", "memory", size);
	}
	if (file->timeout_ms) {
		cleanup_free char *time = format_duration(file->timeout_ms);

		fprintf(out, "  %-12sat most %s\n", "timeout", time);
	}
	if (ftell(out) == 0)
		fprintf(out, "  nothing\n");
	fclose(out);
	return text;
}

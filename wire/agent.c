#include "wire/agent.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

/* ---- primitives ------------------------------------------------------------------------- */

static const char *get_text(struct byte_reader *reader, size_t limit)
{
	uint32_t length = byte_reader_u32(reader);
	const uint8_t *bytes;

	if (length > limit) {
		byte_reader_fail(reader);
		return "";
	}
	bytes = byte_reader_bytes(reader, (size_t)length + 1);
	if (!bytes || memchr(bytes, '\0', (size_t)length + 1) != bytes + length) {
		byte_reader_fail(reader);
		return "";
	}
	return (const char *)bytes;
}

static const char *get_name(struct byte_reader *reader)
{
	const char *name = get_text(reader, AGENT_NAME_MAX);

	/* These end up in passwd(5) lines, symbolic links and the host name. */
	if (strpbrk(name, ":\n"))
		byte_reader_fail(reader);
	return name;
}

/* Absolute, and no component that is empty, "." or "..". */
static bool path_is_plain(const char *path)
{
	if (path[0] != '/')
		return false;
	if (path[1] == '\0')
		return true;
	while (*path == '/') {
		size_t length = strcspn(++path, "/");

		if (length == 0 || (length == 1 && path[0] == '.') ||
		    (length == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += length;
	}
	return true;
}

static const char *get_path(struct byte_reader *reader)
{
	const char *path = get_text(reader, AGENT_PATH_MAX);

	if (!path_is_plain(path))
		byte_reader_fail(reader);
	return path;
}

static struct agent_strings get_strings(struct byte_reader *reader)
{
	struct agent_strings strings = { .count = byte_reader_u32(reader),
					 .size = byte_reader_u32(reader) };
	uint32_t found = 0;

	strings.bytes = (const char *)byte_reader_bytes(reader, strings.size);
	if (!strings.bytes || strings.count > AGENT_STRINGS_MAX ||
	    (strings.size > 0 && strings.bytes[strings.size - 1] != '\0')) {
		byte_reader_fail(reader);
		return (struct agent_strings){ .bytes = "" };
	}
	for (uint32_t i = 0; i < strings.size; i++) {
		if (strings.bytes[i] == '\0')
			found++;
	}
	if (found != strings.count)
		byte_reader_fail(reader);
	return strings;
}

const char *agent_strings_next(const struct agent_strings *strings, uint32_t *position)
{
	const char *string;

	if (*position >= strings->size)
		return NULL;
	string = strings->bytes + *position;
	*position += (uint32_t)strlen(string) + 1;
	return string;
}

static void writer_fail(struct byte_writer *writer)
{
	writer->failed = true;
}

static void put_text(struct byte_writer *writer, const char *text, size_t limit)
{
	size_t length = strlen(text);

	if (length > limit) {
		writer_fail(writer);
		return;
	}
	byte_writer_u32(writer, (uint32_t)length);
	byte_writer_bytes(writer, text, length + 1);
}

static void put_text_cut(struct byte_writer *writer, const char *text, size_t limit)
{
	size_t length = strnlen(text, limit);

	byte_writer_u32(writer, (uint32_t)length);
	byte_writer_bytes(writer, text, length);
	byte_writer_u8(writer, 0);
}

static void put_name(struct byte_writer *writer, const char *name)
{
	if (strpbrk(name, ":\n"))
		writer_fail(writer);
	put_text(writer, name, AGENT_NAME_MAX);
}

static void put_path(struct byte_writer *writer, const char *path)
{
	if (!path_is_plain(path))
		writer_fail(writer);
	put_text(writer, path, AGENT_PATH_MAX);
}

static void put_strings(struct byte_writer *writer, const char *const *strings)
{
	size_t start = writer->length;
	size_t count = 0;

	byte_writer_u32(writer, 0);
	byte_writer_u32(writer, 0);
	for (; strings && strings[count]; count++)
		byte_writer_bytes(writer, strings[count], strlen(strings[count]) + 1);
	if (count > AGENT_STRINGS_MAX)
		writer_fail(writer);
	if (!byte_writer_ok(writer))
		return;
	byte_writer_patch_u32(writer, start, (uint32_t)count);
	byte_writer_patch_u32(writer, start + 4, (uint32_t)(writer->length - start - 8));
}

/* ---- frames ----------------------------------------------------------------------------- */

int agent_decode_header(const uint8_t *data, size_t payload_max, struct agent_header *ret_header)
{
	struct byte_reader reader;
	struct agent_header header;

	byte_reader_init(&reader, data, AGENT_HEADER_SIZE);
	header.length = byte_reader_u32(&reader);
	header.type = byte_reader_u16(&reader);
	if (byte_reader_u16(&reader) != 0 || header.length > payload_max)
		return -EBADMSG;
	*ret_header = header;
	return 0;
}

static void begin(struct byte_writer *writer, void *buffer, size_t capacity, enum agent_type type)
{
	byte_writer_init(writer, buffer, capacity);
	byte_writer_u32(writer, 0);
	byte_writer_u16(writer, (uint16_t)type);
	byte_writer_u16(writer, 0);
}

static size_t finish(struct byte_writer *writer, size_t payload_max)
{
	size_t payload;

	if (!byte_writer_ok(writer))
		return 0;
	payload = writer->length - AGENT_HEADER_SIZE;
	if (payload > payload_max)
		return 0;
	byte_writer_patch_u32(writer, 0, (uint32_t)payload);
	return writer->length;
}

/* ---- guest to host ---------------------------------------------------------------------- */

int agent_decode_ready(const void *data, size_t length, struct agent_ready *ret_ready)
{
	struct byte_reader reader;
	struct agent_ready ready;

	byte_reader_init(&reader, data, length);
	ready.version = byte_reader_u32(&reader);
	ready.uptime_ns = byte_reader_u64(&reader);
	ready.kernel = get_text(&reader, AGENT_NAME_MAX);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_ready = ready;
	return 0;
}

size_t agent_encode_ready(void *buffer, size_t capacity, const struct agent_ready *ready)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_READY);
	byte_writer_u32(&writer, ready->version);
	byte_writer_u64(&writer, ready->uptime_ns);
	put_text(&writer, ready->kernel, AGENT_NAME_MAX);
	return finish(&writer, AGENT_TO_HOST_MAX);
}

int agent_decode_configured(const void *data, size_t length,
			    struct agent_configured *ret_configured)
{
	struct byte_reader reader;
	struct agent_configured configured;

	byte_reader_init(&reader, data, length);
	configured.uptime_ns = byte_reader_u64(&reader);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_configured = configured;
	return 0;
}

size_t agent_encode_configured(void *buffer, size_t capacity,
			       const struct agent_configured *configured)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_CONFIGURED);
	byte_writer_u64(&writer, configured->uptime_ns);
	return finish(&writer, AGENT_TO_HOST_MAX);
}

int agent_decode_failed(const void *data, size_t length, struct agent_failed *ret_failed)
{
	struct byte_reader reader;
	struct agent_failed failed;

	byte_reader_init(&reader, data, length);
	failed.error = byte_reader_u32(&reader);
	failed.stage = get_text(&reader, AGENT_NAME_MAX);
	failed.text = get_text(&reader, AGENT_TEXT_MAX);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_failed = failed;
	return 0;
}

size_t agent_encode_failed(void *buffer, size_t capacity, const struct agent_failed *failed)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_FAILED);
	byte_writer_u32(&writer, failed->error);
	put_text_cut(&writer, failed->stage, AGENT_NAME_MAX);
	put_text_cut(&writer, failed->text, AGENT_TEXT_MAX);
	return finish(&writer, AGENT_TO_HOST_MAX);
}

int agent_decode_started(const void *data, size_t length, struct agent_started *ret_started)
{
	struct byte_reader reader;
	struct agent_started started;

	byte_reader_init(&reader, data, length);
	started.exec_id = byte_reader_u32(&reader);
	started.pid = byte_reader_u32(&reader);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_started = started;
	return 0;
}

size_t agent_encode_started(void *buffer, size_t capacity, const struct agent_started *started)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_STARTED);
	byte_writer_u32(&writer, started->exec_id);
	byte_writer_u32(&writer, started->pid);
	return finish(&writer, AGENT_TO_HOST_MAX);
}

int agent_decode_exec_failed(const void *data, size_t length, struct agent_exec_failed *ret_failed)
{
	struct byte_reader reader;
	struct agent_exec_failed failed;

	byte_reader_init(&reader, data, length);
	failed.exec_id = byte_reader_u32(&reader);
	failed.stage = byte_reader_u32(&reader);
	failed.error = byte_reader_u32(&reader);
	if (!byte_reader_done(&reader) || failed.stage < AGENT_STAGE_LIMIT ||
	    failed.stage > AGENT_STAGE_EXEC || failed.error > 4095)
		return -EBADMSG;
	*ret_failed = failed;
	return 0;
}

size_t agent_encode_exec_failed(void *buffer, size_t capacity,
				const struct agent_exec_failed *failed)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_EXEC_FAILED);
	byte_writer_u32(&writer, failed->exec_id);
	byte_writer_u32(&writer, failed->stage);
	byte_writer_u32(&writer, failed->error);
	return finish(&writer, AGENT_TO_HOST_MAX);
}

int agent_decode_exited(const void *data, size_t length, struct agent_exited *ret_exited)
{
	struct byte_reader reader;
	struct agent_exited exited;
	bool valid;

	byte_reader_init(&reader, data, length);
	exited.exec_id = byte_reader_u32(&reader);
	exited.kind = byte_reader_u32(&reader);
	exited.code = byte_reader_u32(&reader);
	exited.user_ns = byte_reader_u64(&reader);
	exited.system_ns = byte_reader_u64(&reader);
	exited.max_rss_bytes = byte_reader_u64(&reader);
	valid = (exited.kind == AGENT_EXIT_STATUS && exited.code <= 255) ||
		(exited.kind == AGENT_EXIT_SIGNAL && exited.code >= 1 && exited.code <= 64);
	if (!byte_reader_done(&reader) || !valid)
		return -EBADMSG;
	*ret_exited = exited;
	return 0;
}

size_t agent_encode_exited(void *buffer, size_t capacity, const struct agent_exited *exited)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_EXITED);
	byte_writer_u32(&writer, exited->exec_id);
	byte_writer_u32(&writer, exited->kind);
	byte_writer_u32(&writer, exited->code);
	byte_writer_u64(&writer, exited->user_ns);
	byte_writer_u64(&writer, exited->system_ns);
	byte_writer_u64(&writer, exited->max_rss_bytes);
	return finish(&writer, AGENT_TO_HOST_MAX);
}

int agent_decode_notice(const void *data, size_t length, struct agent_notice *ret_notice)
{
	struct byte_reader reader;
	struct agent_notice notice;

	byte_reader_init(&reader, data, length);
	notice.text = get_text(&reader, AGENT_TEXT_MAX);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_notice = notice;
	return 0;
}

size_t agent_encode_notice(void *buffer, size_t capacity, const struct agent_notice *notice)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_NOTICE);
	put_text_cut(&writer, notice->text, AGENT_TEXT_MAX);
	return finish(&writer, AGENT_TO_HOST_MAX);
}

/* ---- host to guest ---------------------------------------------------------------------- */

static void get_mount(struct byte_reader *reader, uint32_t index, struct agent_mount *mount)
{
	mount->kind = byte_reader_u32(reader);
	mount->flags = byte_reader_u32(reader);
	mount->export_id = byte_reader_u32(reader);
	mount->mode = byte_reader_u32(reader);
	mount->uid = byte_reader_u32(reader);
	mount->gid = byte_reader_u32(reader);
	mount->target = get_path(reader);
	mount->options = get_text(reader, AGENT_TEXT_MAX);
	if (mount->kind < AGENT_MOUNT_IMAGE || mount->kind > AGENT_MOUNT_TMPFS ||
	    (mount->flags & ~AGENT_MOUNT_FLAGS) != 0 || (mount->mode & ~07777U) != 0 ||
	    (mount->kind == AGENT_MOUNT_IMAGE) != (strcmp(mount->target, "/") == 0) ||
	    (mount->kind == AGENT_MOUNT_IMAGE && index != 0) ||
	    (mount->kind != AGENT_MOUNT_TMPFS && mount->options[0] != '\0'))
		byte_reader_fail(reader);
}

static bool is_below(const char *path, const char *home)
{
	size_t length = strlen(home);

	return strncmp(path, home, length) == 0 && path[length] == '/';
}

static void get_file(struct byte_reader *reader, const char *home, struct agent_file *file)
{
	file->mode = byte_reader_u32(reader);
	file->path = get_path(reader);
	file->size = byte_reader_u32(reader);
	if (file->size > AGENT_FILE_SIZE_MAX)
		byte_reader_fail(reader);
	file->data = byte_reader_bytes(reader, file->size);
	if ((file->mode & ~0777U) != 0 || !is_below(file->path, home))
		byte_reader_fail(reader);
}

int agent_decode_config(const void *data, size_t length, struct agent_config *ret_config)
{
	struct byte_reader reader;
	struct agent_config *config = ret_config;
	struct agent_config decoded;

	byte_reader_init(&reader, data, length);
	decoded.clock_seconds = byte_reader_s64(&reader);
	decoded.clock_nanoseconds = byte_reader_u32(&reader);
	decoded.flags = byte_reader_u32(&reader);
	decoded.uid = byte_reader_u32(&reader);
	decoded.gid = byte_reader_u32(&reader);
	decoded.user = get_name(&reader);
	decoded.group = get_name(&reader);
	decoded.home = get_path(&reader);
	decoded.hostname = get_name(&reader);
	decoded.time_zone = get_name(&reader);
	byte_reader_copy(&reader, decoded.entropy, sizeof(decoded.entropy));
	decoded.certificate = get_text(&reader, AGENT_CERTIFICATE_MAX);
	decoded.certificate_hash = byte_reader_u32(&reader);
	decoded.mount_count = byte_reader_u32(&reader);
	if (decoded.mount_count > AGENT_MOUNTS_MAX || decoded.clock_nanoseconds > 999999999 ||
	    (decoded.flags & ~AGENT_CONFIG_FLAGS) != 0 || decoded.flags == AGENT_CONFIG_FLAGS)
		return -EBADMSG;
	for (uint32_t i = 0; i < decoded.mount_count; i++)
		get_mount(&reader, i, &decoded.mounts[i]);
	decoded.file_count = byte_reader_u32(&reader);
	if (decoded.file_count > AGENT_FILES_MAX)
		return -EBADMSG;
	for (uint32_t i = 0; i < decoded.file_count; i++)
		get_file(&reader, decoded.home, &decoded.files[i]);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	for (uint32_t i = decoded.file_count; i < AGENT_FILES_MAX; i++)
		decoded.files[i] = (struct agent_file){ 0 };
	for (uint32_t i = decoded.mount_count; i < AGENT_MOUNTS_MAX; i++)
		decoded.mounts[i] = (struct agent_mount){ 0 };
	*config = decoded;
	return 0;
}

static void put_file(struct byte_writer *writer, const struct agent_file *file)
{
	byte_writer_u32(writer, file->mode);
	put_path(writer, file->path);
	if (file->size > AGENT_FILE_SIZE_MAX) {
		writer_fail(writer);
		return;
	}
	byte_writer_u32(writer, file->size);
	byte_writer_bytes(writer, file->data, file->size);
}

size_t agent_encode_config(void *buffer, size_t capacity, const struct agent_config *config)
{
	struct byte_writer writer;

	if (config->mount_count > AGENT_MOUNTS_MAX || config->file_count > AGENT_FILES_MAX)
		return 0;
	begin(&writer, buffer, capacity, AGENT_CONFIG);
	byte_writer_s64(&writer, config->clock_seconds);
	byte_writer_u32(&writer, config->clock_nanoseconds);
	byte_writer_u32(&writer, config->flags);
	byte_writer_u32(&writer, config->uid);
	byte_writer_u32(&writer, config->gid);
	put_name(&writer, config->user);
	put_name(&writer, config->group);
	put_path(&writer, config->home);
	put_name(&writer, config->hostname);
	put_name(&writer, config->time_zone);
	byte_writer_bytes(&writer, config->entropy, sizeof(config->entropy));
	put_text(&writer, config->certificate ? config->certificate : "", AGENT_CERTIFICATE_MAX);
	byte_writer_u32(&writer, config->certificate_hash);
	byte_writer_u32(&writer, config->mount_count);
	for (uint32_t i = 0; i < config->mount_count; i++) {
		const struct agent_mount *mount = &config->mounts[i];

		byte_writer_u32(&writer, mount->kind);
		byte_writer_u32(&writer, mount->flags);
		byte_writer_u32(&writer, mount->export_id);
		byte_writer_u32(&writer, mount->mode);
		byte_writer_u32(&writer, mount->uid);
		byte_writer_u32(&writer, mount->gid);
		put_path(&writer, mount->target);
		put_text(&writer, mount->options ? mount->options : "", AGENT_TEXT_MAX);
	}
	byte_writer_u32(&writer, config->file_count);
	for (uint32_t i = 0; i < config->file_count; i++) {
		put_file(&writer, &config->files[i]);
	}
	return finish(&writer, AGENT_TO_GUEST_MAX);
}

int agent_decode_exec(const void *data, size_t length, struct agent_exec *ret_exec)
{
	struct byte_reader reader;
	struct agent_exec exec;

	memset(&exec, 0, sizeof(exec));
	byte_reader_init(&reader, data, length);
	exec.exec_id = byte_reader_u32(&reader);
	exec.flags = byte_reader_u32(&reader);
	exec.uid = byte_reader_u32(&reader);
	exec.gid = byte_reader_u32(&reader);
	exec.umask = byte_reader_u32(&reader);
	exec.rows = byte_reader_u16(&reader);
	exec.columns = byte_reader_u16(&reader);
	exec.cwd = get_path(&reader);
	exec.group_count = byte_reader_u32(&reader);
	if (exec.group_count > AGENT_GROUPS_MAX)
		return -EBADMSG;
	for (uint32_t i = 0; i < exec.group_count; i++)
		exec.groups[i] = byte_reader_u32(&reader);
	exec.arguments = get_strings(&reader);
	exec.environment = get_strings(&reader);
	if (!byte_reader_done(&reader) || (exec.flags & ~AGENT_EXEC_FLAGS) != 0 ||
	    exec.umask > 0777 || exec.arguments.count == 0)
		return -EBADMSG;
	*ret_exec = exec;
	return 0;
}

size_t agent_encode_exec(void *buffer, size_t capacity, const struct agent_exec *exec,
			 const char *const *arguments, const char *const *environment)
{
	struct byte_writer writer;

	if (exec->group_count > AGENT_GROUPS_MAX || !arguments || !arguments[0])
		return 0;
	begin(&writer, buffer, capacity, AGENT_EXEC);
	byte_writer_u32(&writer, exec->exec_id);
	byte_writer_u32(&writer, exec->flags);
	byte_writer_u32(&writer, exec->uid);
	byte_writer_u32(&writer, exec->gid);
	byte_writer_u32(&writer, exec->umask);
	byte_writer_u16(&writer, exec->rows);
	byte_writer_u16(&writer, exec->columns);
	put_path(&writer, exec->cwd);
	byte_writer_u32(&writer, exec->group_count);
	for (uint32_t i = 0; i < exec->group_count; i++)
		byte_writer_u32(&writer, exec->groups[i]);
	put_strings(&writer, arguments);
	put_strings(&writer, environment);
	return finish(&writer, AGENT_TO_GUEST_MAX);
}

int agent_decode_resize(const void *data, size_t length, struct agent_resize *ret_resize)
{
	struct byte_reader reader;
	struct agent_resize resize;

	byte_reader_init(&reader, data, length);
	resize.exec_id = byte_reader_u32(&reader);
	resize.rows = byte_reader_u16(&reader);
	resize.columns = byte_reader_u16(&reader);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_resize = resize;
	return 0;
}

size_t agent_encode_resize(void *buffer, size_t capacity, const struct agent_resize *resize)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_RESIZE);
	byte_writer_u32(&writer, resize->exec_id);
	byte_writer_u16(&writer, resize->rows);
	byte_writer_u16(&writer, resize->columns);
	return finish(&writer, AGENT_TO_GUEST_MAX);
}

int agent_decode_signal(const void *data, size_t length, struct agent_signal *ret_signal)
{
	struct byte_reader reader;
	struct agent_signal signal;

	byte_reader_init(&reader, data, length);
	signal.exec_id = byte_reader_u32(&reader);
	signal.signal = byte_reader_u32(&reader);
	signal.flags = byte_reader_u32(&reader);
	if (!byte_reader_done(&reader) || signal.signal < 1 || signal.signal > 64 ||
	    (signal.flags & ~AGENT_SIGNAL_GROUP) != 0)
		return -EBADMSG;
	*ret_signal = signal;
	return 0;
}

size_t agent_encode_signal(void *buffer, size_t capacity, const struct agent_signal *signal)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_SIGNAL);
	byte_writer_u32(&writer, signal->exec_id);
	byte_writer_u32(&writer, signal->signal);
	byte_writer_u32(&writer, signal->flags);
	return finish(&writer, AGENT_TO_GUEST_MAX);
}

int agent_decode_kill(const void *data, size_t length, uint32_t *ret_exec_id)
{
	struct byte_reader reader;
	uint32_t exec_id;

	byte_reader_init(&reader, data, length);
	exec_id = byte_reader_u32(&reader);
	if (!byte_reader_done(&reader))
		return -EBADMSG;
	*ret_exec_id = exec_id;
	return 0;
}

size_t agent_encode_kill(void *buffer, size_t capacity, uint32_t exec_id)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_KILL);
	byte_writer_u32(&writer, exec_id);
	return finish(&writer, AGENT_TO_GUEST_MAX);
}

int agent_decode_shutdown(const void *data, size_t length)
{
	(void)data;
	return length == 0 ? 0 : -EBADMSG;
}

size_t agent_encode_shutdown(void *buffer, size_t capacity)
{
	struct byte_writer writer;

	begin(&writer, buffer, capacity, AGENT_SHUTDOWN);
	return finish(&writer, AGENT_TO_GUEST_MAX);
}

int agent_decode_hello(const void *data, struct agent_hello *ret_hello)
{
	struct byte_reader reader;
	struct agent_hello hello;

	byte_reader_init(&reader, data, sizeof(hello));
	hello.magic = byte_reader_u32(&reader);
	hello.exec_id = byte_reader_u32(&reader);
	hello.stream = byte_reader_u32(&reader);
	hello.zero = byte_reader_u32(&reader);
	if (hello.magic != AGENT_HELLO_MAGIC || hello.stream >= AGENT_STREAMS || hello.zero != 0)
		return -EBADMSG;
	*ret_hello = hello;
	return 0;
}

void agent_encode_hello(void *buffer, uint32_t exec_id, enum agent_stream stream)
{
	struct byte_writer writer;

	byte_writer_init(&writer, buffer, sizeof(struct agent_hello));
	byte_writer_u32(&writer, AGENT_HELLO_MAGIC);
	byte_writer_u32(&writer, exec_id);
	byte_writer_u32(&writer, (uint32_t)stream);
	byte_writer_u32(&writer, 0);
}

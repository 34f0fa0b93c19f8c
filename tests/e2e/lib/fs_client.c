#include "tests/e2e/lib/fs_client.h"

#include "base/io.h"
#include "wire/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "set-up failed: %s: %s\n", what, strerror(errno));
	exit(99);
}

/* ---- the server ----------------------------------------------------------------------------- */

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	must(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
		     listen(fd, 128) == 0,
	     path);
	return fd;
}

/* Until the server is gone. */
static void *audit_events(void *context)
{
	struct fs_server *server = context;
	uint8_t *datagram = malloc(AUDIT_EVENT_MAX);
	ssize_t length;

	must(datagram != NULL, "memory");
	while ((length = recv(server->audit, datagram, AUDIT_EVENT_MAX, 0)) > 0) {
		struct fs_event *event = malloc(sizeof(*event) + (size_t)length);

		must(event != NULL, "memory");
		event->length = (size_t)length;
		memcpy(event->data, datagram, (size_t)length);
		pthread_mutex_lock(&server->lock);
		event->next = server->events;
		server->events = event;
		pthread_mutex_unlock(&server->lock);
	}
	free(datagram);
	return NULL;
}

#define WINDOW_SIZE (FS_WINDOW_CHANNELS * CHANNEL_STRIDE)

static unsigned files_limit;

void fs_server_limit_files(unsigned files)
{
	files_limit = files;
}

static void limit_files(void)
{
	struct rlimit limit = { .rlim_cur = files_limit, .rlim_max = files_limit };

	if (!files_limit)
		return;
	/* Only who has the capability needs to lose it, and may. */
	(void)prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0);
	if (setrlimit(RLIMIT_NOFILE, &limit))
		_exit(126);
}

#define SERVER_FDS 5

static void exec_server(const char *program, const int fds[SERVER_FDS])
{
	char numbers[SERVER_FDS][12];
	char window[64];

	limit_files();

	for (int i = 0; i < SERVER_FDS; i++) {
		set_close_on_exec(fds[i], false);
		snprintf(numbers[i], sizeof(numbers[i]), "%d", fds[i]);
	}
	snprintf(window, sizeof(window), "%s:0:%u", numbers[4], WINDOW_SIZE);
	execl(program, program, "serve", "--config-fd", numbers[0], "--listen-fd", numbers[1],
	      "--control-fd", numbers[2], "--audit-fd", numbers[3], "--window", window, "-q",
	      (char *)NULL);
	_exit(127);
}

/* Sealed, as the guest's memory is. */
static int make_window(uint8_t **ret_memory)
{
	int fd = memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *memory;

	must(fd >= 0 && ftruncate(fd, WINDOW_SIZE) == 0 &&
		     fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0,
	     "memfd");
	memory = mmap(NULL, WINDOW_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(memory != MAP_FAILED, "mmap");
	*ret_memory = memory;
	return fd;
}

void fs_server_start(struct fs_server *server, const char *program, const char *folder,
		     const char *name, const char *configuration)
{
	int control[2];
	int audit[2];
	int fds[SERVER_FDS];

	*server = (struct fs_server){ 0 };
	snprintf(server->socket, sizeof(server->socket), "%s/%s.sock", folder, name);
	snprintf(server->config, sizeof(server->config), "%s/%s.json", folder, name);
	unlink(server->socket);
	fds[0] = open(server->config, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fds[0] >= 0 && write_full(fds[0], configuration, strlen(configuration)) == 0 &&
		     lseek(fds[0], 0, SEEK_SET) == 0,
	     server->config);
	fds[1] = listen_at(server->socket);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) == 0 &&
		     socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, audit) == 0,
	     "socketpair");
	fds[2] = control[1];
	fds[3] = audit[1];
	fds[4] = make_window(&server->window);
	server->control = control[0];
	server->audit = audit[0];
	server->pid = fork();
	must(server->pid >= 0, "fork");
	if (server->pid == 0)
		exec_server(program, fds);
	for (int i = 0; i < SERVER_FDS; i++)
		close(fds[i]);
	pthread_mutex_init(&server->lock, NULL);
	must(pthread_create(&server->auditor, NULL, audit_events, server) == 0, "thread");
}

static int reap(struct fs_server *server)
{
	int status = -1;

	waitpid(server->pid, &status, 0);
	pthread_join(server->auditor, NULL);
	close(server->audit);
	munmap(server->window, WINDOW_SIZE);
	while (server->events) {
		struct fs_event *next = server->events->next;

		free(server->events);
		server->events = next;
	}
	server->pid = -1;
	return status;
}

int fs_server_stop(struct fs_server *server)
{
	close(server->control);
	return reap(server);
}

void fs_server_kill(struct fs_server *server)
{
	kill(server->pid, SIGKILL);
	close(server->control);
	reap(server);
}

bool fs_server_alive(const struct fs_server *server)
{
	return server->pid > 0 && waitpid(server->pid, NULL, WNOHANG) == 0;
}

static bool event_holds(const struct audit_event_view *view, const char *text)
{
	size_t length = strlen(text);

	for (unsigned i = 0; i < view->field_count; i++) {
		const struct audit_field_view *field = &view->fields[i];

		if (field->type == AUDIT_TYPE_TEXT && length <= field->text_length &&
		    memmem(field->text, field->text_length, text, length))
			return true;
	}
	return length == 0;
}

unsigned fs_server_events(struct fs_server *server, unsigned kind, const char *text)
{
	struct audit_event_view view;
	unsigned found = 0;

	pthread_mutex_lock(&server->lock);
	for (const struct fs_event *event = server->events; event; event = event->next) {
		if (audit_event_decode(event->data, event->length, &view) == 0 &&
		    view.kind == kind && event_holds(&view, text))
			found++;
	}
	pthread_mutex_unlock(&server->lock);
	return found;
}

bool fs_server_tells(struct fs_server *server, unsigned kind, const char *text, unsigned count)
{
	for (unsigned i = 0; i < 1000; i++) {
		if (fs_server_events(server, kind, text) > count)
			return true;
		usleep(10000);
	}
	return false;
}

/* ---- a stream ------------------------------------------------------------------------------- */

void fs_connect(struct fs_client *client, const char *socket_path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	*client = (struct fs_client){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	must(client->fd >= 0 &&
		     connect(client->fd, (struct sockaddr *)&address, sizeof(address)) == 0,
	     socket_path);
	client->request = malloc(2 * FS_FRAME_MAX);
	client->answer = malloc(FS_FRAME_MAX);
	must(client->request && client->answer, "memory");
	fs_begin(client);
}

void fs_leave(struct fs_client *client)
{
	close(client->fd);
	free(client->request);
	free(client->answer);
}

void fs_begin(struct fs_client *client)
{
	client->request_length = sizeof(struct fs_frame);
	client->operations = 0;
}

static void append(struct fs_client *client, const void *data, size_t length)
{
	if (length)
		memcpy(client->request + client->request_length, data, length);
	client->request_length += length;
}

void fs_add(struct fs_client *client, enum fs_opcode opcode, const void *fixed, size_t fixed_length,
	    const void *first, size_t first_length, const void *second, size_t second_length)
{
	struct fs_op op = {
		.opcode = (uint16_t)opcode,
		.length = (uint32_t)(fixed_length + first_length + second_length),
	};

	append(client, &op, sizeof(op));
	append(client, fixed, fixed_length);
	append(client, first, first_length);
	append(client, second, second_length);
	client->operations++;
}

/* ---- over a channel -------------------------------------------------------------------------- */

bool fs_ring(struct fs_client *client)
{
	return send(client->fd, "", 1, MSG_NOSIGNAL) == 1;
}

/* Waits for a doorbell, or for the end; false at the end. */
static bool sleep_on_channel(struct fs_client *client)
{
	uint8_t doorbells[16];
	bool awake = true;

	channel_sleep(&client->channel);
	if (channel_available(&client->channel) == 0)
		awake = recv(client->fd, doorbells, sizeof(doorbells), 0) > 0;
	channel_wake(&client->channel);
	return awake;
}

static bool read_channel(struct fs_client *client, void *target, size_t length)
{
	uint8_t *bytes = target;

	while (length > 0) {
		ssize_t available = channel_available(&client->channel);
		size_t part;

		/* What came before the end counts. */
		if (available == 0 && !sleep_on_channel(client))
			available = channel_available(&client->channel);
		if (available < 0 || (available == 0 && client->ended))
			return false;
		if (available == 0) {
			struct pollfd polled = { .fd = client->fd, .events = POLLRDHUP };

			client->ended = poll(&polled, 1, 0) > 0;
			continue;
		}
		part = (size_t)available < length ? (size_t)available : length;
		channel_copy(&client->channel, bytes, part);
		channel_consume(&client->channel, part);
		if (channel_peer_sleeps(&client->channel))
			(void)fs_ring(client);
		bytes += part;
		length -= part;
	}
	return true;
}

static bool write_channel(struct fs_client *client, const void *data, size_t length)
{
	const uint8_t *bytes = data;

	while (length > 0) {
		ssize_t room = channel_room(&client->channel);
		size_t part = (size_t)room < length ? (size_t)room : length;

		if (room < 0)
			return false;
		channel_put(&client->channel, bytes, part);
		channel_publish(&client->channel);
		if (channel_peer_sleeps(&client->channel) && !fs_ring(client))
			return false;
		bytes += part;
		length -= part;
	}
	return true;
}

int fs_join_channel(struct fs_client *client, const struct fs_server *server, uint32_t export_id,
		    uint32_t number)
{
	struct fs_hello hello = {
		.magic = FS_MAGIC,
		.version_min = 1,
		.version_max = FS_VERSION,
		.export_id = export_id,
		.data_max = FS_DATA_MAX,
		.channel = number,
	};
	int error;

	fs_connect(client, server->socket);
	fs_add(client, FS_HELLO, &hello, sizeof(hello), NULL, 0, NULL, 0);
	error = fs_call(client);
	if (error)
		return error;
	channel_attach(&client->channel, server->window + (number - 1) * CHANNEL_STRIDE,
		       CHANNEL_GUEST);
	client->over_channel = true;
	return 0;
}

static bool read_stream(struct fs_client *client, void *target, size_t length)
{
	if (client->over_channel)
		return read_channel(client, target, length);
	return read_full(client->fd, target, length) == (ssize_t)length;
}

bool fs_send_raw(struct fs_client *client, const void *data, size_t length)
{
	const uint8_t *bytes = data;

	if (client->over_channel)
		return write_channel(client, data, length);
	while (length > 0) {
		ssize_t count = send(client->fd, bytes, length, MSG_NOSIGNAL);

		if (count < 0)
			return false;
		bytes += count;
		length -= (size_t)count;
	}
	return true;
}

int fs_send(struct fs_client *client)
{
	struct fs_frame frame = {
		.length = (uint32_t)client->request_length,
		.op_count = (uint16_t)client->operations,
		.tag = ++client->tag,
	};
	bool sent;

	memcpy(client->request, &frame, sizeof(frame));
	sent = fs_send_raw(client, client->request, client->request_length);
	fs_begin(client);
	return sent ? 0 : -1;
}

int fs_receive(struct fs_client *client)
{
	struct byte_reader reader;
	struct fs_frame frame;

	client->reply_count = 0;
	if (!read_stream(client, &frame, sizeof(frame)) || frame.length > FS_FRAME_MAX ||
	    !read_stream(client, client->answer, frame.length - sizeof(frame))) {
		client->ended = true;
		return -1;
	}
	byte_reader_init(&reader, client->answer, frame.length - sizeof(frame));
	for (unsigned i = 0; i < frame.op_count; i++) {
		struct fs_op_reply op;

		byte_reader_copy(&reader, &op, sizeof(op));
		client->replies[i] = (struct fs_reply){
			.opcode = op.opcode,
			.error = op.error,
			.length = op.length,
			.body = byte_reader_bytes(&reader, op.length),
		};
	}
	client->reply_count = frame.op_count;
	if (!byte_reader_done(&reader) || client->replies[0].opcode == FS_GOODBYE) {
		client->ended = true;
		return -1;
	}
	return client->replies[client->reply_count - 1].error;
}

int fs_call(struct fs_client *client)
{
	return fs_send(client) ? -1 : fs_receive(client);
}

int fs_join(struct fs_client *client, const char *socket_path, uint32_t export_id, uint32_t kind)
{
	struct fs_hello hello = {
		.magic = FS_MAGIC,
		.version_min = 1,
		.version_max = FS_VERSION,
		.export_id = export_id,
		.stream_kind = kind,
		.data_max = FS_DATA_MAX,
	};

	fs_connect(client, socket_path);
	fs_add(client, FS_HELLO, &hello, sizeof(hello), NULL, 0, NULL, 0);
	return fs_call(client);
}

/* ---- whole operations ----------------------------------------------------------------------- */

static void take_node(const struct fs_client *client, uint64_t *ret_node)
{
	struct fs_entry entry;

	if (!ret_node)
		return;
	memcpy(&entry, client->replies[0].body, sizeof(entry));
	*ret_node = entry.nodeid;
}

int fs_lookup(struct fs_client *client, uint64_t parent, const char *name, uint64_t *ret_node)
{
	struct fs_parent fixed = { .parent = parent, .name_length = (uint16_t)strlen(name) };
	struct fs_entry entry;
	int error;

	fs_add(client, FS_LOOKUP, &fixed, sizeof(fixed), name, strlen(name), NULL, 0);
	error = fs_call(client);
	if (error)
		return error;
	memcpy(&entry, client->replies[0].body, sizeof(entry));
	if (entry.nodeid == 0)
		return ENOENT;
	take_node(client, ret_node);
	return 0;
}

int fs_forget(struct fs_client *client, uint64_t node, uint64_t lookups)
{
	struct fs_forget fixed = { .count = 1 };
	struct fs_forget_one one = { .nodeid = node, .lookups = lookups };

	fs_add(client, FS_FORGET, &fixed, sizeof(fixed), &one, sizeof(one), NULL, 0);
	return fs_call(client);
}

int fs_getattr(struct fs_client *client, uint64_t node, struct fs_attr *ret_attr)
{
	struct fs_node fixed = { .nodeid = node };
	int error;

	fs_add(client, FS_GETATTR, &fixed, sizeof(fixed), NULL, 0, NULL, 0);
	error = fs_call(client);
	if (!error && ret_attr)
		memcpy(ret_attr, client->replies[0].body, sizeof(*ret_attr));
	return error;
}

int fs_setattr(struct fs_client *client, const struct fs_setattr *set)
{
	fs_add(client, FS_SETATTR, set, sizeof(*set), NULL, 0, NULL, 0);
	return fs_call(client);
}

int fs_make(struct fs_client *client, enum fs_opcode opcode, uint64_t parent, const char *name,
	    uint32_t mode, const char *target, uint64_t *ret_node)
{
	struct fs_make fixed = {
		.parent = parent,
		.mode = mode,
		.name_length = (uint16_t)strlen(name),
		.target_length = target ? (uint16_t)strlen(target) : 0,
	};
	int error;

	fs_add(client, opcode, &fixed, sizeof(fixed), name, strlen(name), target,
	       target ? strlen(target) : 0);
	error = fs_call(client);
	if (!error)
		take_node(client, ret_node);
	return error;
}

int fs_create(struct fs_client *client, uint64_t parent, const char *name, uint32_t mode,
	      uint32_t flags, uint64_t *ret_node, uint64_t *ret_handle)
{
	struct fs_make fixed = {
		.parent = parent,
		.mode = mode,
		.flags = flags,
		.name_length = (uint16_t)strlen(name),
	};
	struct fs_open_reply opened;
	int error;

	fs_add(client, FS_CREATE, &fixed, sizeof(fixed), name, strlen(name), NULL, 0);
	error = fs_call(client);
	if (error)
		return error;
	take_node(client, ret_node);
	memcpy(&opened, client->replies[0].body + sizeof(struct fs_entry), sizeof(opened));
	if (ret_handle)
		*ret_handle = opened.handle;
	return 0;
}

int fs_remove(struct fs_client *client, enum fs_opcode opcode, uint64_t parent, const char *name)
{
	struct fs_parent fixed = { .parent = parent, .name_length = (uint16_t)strlen(name) };

	fs_add(client, opcode, &fixed, sizeof(fixed), name, strlen(name), NULL, 0);
	return fs_call(client);
}

int fs_rename(struct fs_client *client, uint64_t parent, const char *name, uint64_t new_parent,
	      const char *new_name, uint32_t flags)
{
	struct fs_rename fixed = {
		.parent = parent,
		.new_parent = new_parent,
		.flags = flags,
		.name_length = (uint16_t)strlen(name),
		.new_name_length = (uint16_t)strlen(new_name),
	};

	fs_add(client, FS_RENAME, &fixed, sizeof(fixed), name, strlen(name), new_name,
	       strlen(new_name));
	return fs_call(client);
}

int fs_link(struct fs_client *client, uint64_t node, uint64_t parent, const char *name)
{
	struct fs_link fixed = { .nodeid = node,
				 .new_parent = parent,
				 .name_length = (uint16_t)strlen(name) };

	fs_add(client, FS_LINK, &fixed, sizeof(fixed), name, strlen(name), NULL, 0);
	return fs_call(client);
}

int fs_open(struct fs_client *client, uint64_t node, uint32_t flags, uint64_t *ret_handle)
{
	struct fs_open fixed = { .nodeid = node, .flags = flags };
	struct fs_open_reply opened;
	int error;

	fs_add(client, FS_OPEN, &fixed, sizeof(fixed), NULL, 0, NULL, 0);
	error = fs_call(client);
	if (error)
		return error;
	memcpy(&opened, client->replies[0].body, sizeof(opened));
	*ret_handle = opened.handle;
	return 0;
}

int fs_release(struct fs_client *client, uint64_t node, uint64_t handle)
{
	struct fs_node fixed = { .nodeid = node, .handle = handle };

	fs_add(client, FS_RELEASE, &fixed, sizeof(fixed), NULL, 0, NULL, 0);
	return fs_call(client);
}

int fs_write(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset,
	     const void *data, size_t length)
{
	struct fs_io fixed = {
		.nodeid = node, .handle = handle, .offset = offset, .size = (uint32_t)length
	};

	fs_add(client, FS_WRITE, &fixed, sizeof(fixed), data, length, NULL, 0);
	return fs_call(client);
}

int fs_read(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset,
	    uint32_t size)
{
	struct fs_io fixed = { .nodeid = node, .handle = handle, .offset = offset, .size = size };

	fs_add(client, FS_READ, &fixed, sizeof(fixed), NULL, 0, NULL, 0);
	return fs_call(client);
}

int fs_setxattr(struct fs_client *client, uint64_t node, const char *name, const void *value,
		size_t length)
{
	struct fs_xattr fixed = {
		.nodeid = node,
		.value_length = (uint32_t)length,
		.name_length = (uint16_t)strlen(name),
	};

	fs_add(client, FS_SETXATTR, &fixed, sizeof(fixed), name, strlen(name), value, length);
	return fs_call(client);
}

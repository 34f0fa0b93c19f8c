#include "proxy/resolver.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

#include <ares.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>

/*
 * Theory of operation
 *
 * c-ares owns the sockets and tells which of them it waits for; each is a source of the event loop
 * here. One timer serves c-ares's own time limits and, set to fire at once, results: whatever ends
 * a query puts it on the list `finished`, and only the timer's callback delivers from there. So a
 * callback never runs inside c-ares, nor inside resolver_start().
 *
 * c-ares cannot drop a single query. A cancelled one stays until c-ares is done with it, without a
 * callback, and counts until then.
 *
 * c-ares seeds its query identifiers from /dev/urandom when the channel is made, which is why that
 * happens before the jail; and it opens a new socket, on a new port, whenever it was idle.
 */

#define TIMEOUT_DEFAULT_MS 1500 /* doubles with each try */
#define TRIES 3
/* A datagram and a stream socket for each server. */
#define WATCHES_MAX (RESOLVER_SERVERS_MAX * 2)

static const struct jail_syscall calls[] = {
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_INET)),
	JAIL_CALL_IF(SYS_socket, JAIL_ARGUMENT_EQUAL32(0, AF_INET6)),
	JAIL_CALL(SYS_fcntl),
	JAIL_CALL(SYS_setsockopt),
	JAIL_CALL(SYS_connect),
	JAIL_CALL(SYS_getsockname),
	JAIL_CALL(SYS_getpeername),
	JAIL_CALL(SYS_sendto),
	JAIL_CALL(SYS_recvfrom),
	JAIL_CALL(SYS_writev),
	JAIL_CALL(SYS_close),
	JAIL_CALL(SYS_epoll_ctl),
	JAIL_CALL(SYS_epoll_wait),
	JAIL_CALL(SYS_timerfd_settime),
	JAIL_CALL(SYS_read),
	/* c-ares looks for a database of services and of the local names. */
	JAIL_REFUSE(SYS_openat, ENOENT),
	JAIL_REFUSE(SYS_newfstatat, ENOENT),
};
const struct jail_syscall_set resolver_calls = JAIL_SET(calls);

struct resolver_query {
	struct resolver *resolver;
	resolver_done *done; /* NULL: cancelled */
	void *context;
	bool is_trusted;
	struct resolution resolution;
	struct resolver_query *next; /* in `finished` */
};

struct watch {
	struct event_source source; /* first; fd -1: free */
	struct resolver *resolver;
};

struct resolver {
	struct event_loop *loop;
	const struct host_table *pinned;
	struct host_table *hosts;
	ares_channel channel;
	struct event_source timer;
	struct watch watches[WATCHES_MAX];
	size_t query_count;
	struct resolver_query *finished;
	struct resolver_query **finished_end;
};

/* ---- results --------------------------------------------------------------------------------- */

static void block(struct resolution *resolution, const struct ip_address *address,
		  const char *class)
{
	resolution->error = -EACCES;
	resolution->count = 0;
	resolution->blocked = *address;
	resolution->blocked_class = class;
}

/* Takes one more address of the answer; the first blocked one decides. */
static void take_address(struct resolver_query *query, const struct ip_address *address)
{
	struct resolution *resolution = &query->resolution;

	if (resolution->error)
		return;
	if (!query->is_trusted && !resolution->is_pinned) {
		const char *class = address_class(address);

		/* No answer counts as yes. */
		if (!class && address_is_own(address) != 0)
			class = "the host's own";
		if (class) {
			block(resolution, address, class);
			return;
		}
	}
	if (resolution->count < RESOLVER_ADDRESSES_MAX)
		resolution->addresses[resolution->count++] = *address;
}

static void take_entry(struct resolver_query *query, const struct host_table_entry *entry)
{
	for (size_t i = 0; i < entry->count; i++)
		take_address(query, &entry->addresses[i]);
}

static void set_timer(struct resolver *resolver)
{
	struct itimerspec when = { .it_value = { .tv_nsec = 1 } };
	struct timeval limit;

	if (!resolver->finished) {
		const struct timeval *next = ares_timeout(resolver->channel, NULL, &limit);

		when.it_value.tv_sec = next ? next->tv_sec : 0;
		when.it_value.tv_nsec = next ? next->tv_usec * 1000 : 0;
		if (next && next->tv_sec == 0 && next->tv_usec == 0)
			when.it_value.tv_nsec = 1;
	}
	/* Only a bad descriptor or value makes this fail. */
	(void)timerfd_settime(resolver->timer.fd, 0, &when, NULL);
}

static void finish(struct resolver_query *query)
{
	struct resolver *resolver = query->resolver;

	*resolver->finished_end = query;
	resolver->finished_end = &query->next;
}

static void deliver(struct resolver *resolver)
{
	/* Those that callbacks add wait for the next turn. */
	struct resolver_query *list = resolver->finished;

	resolver->finished = NULL;
	resolver->finished_end = &resolver->finished;
	while (list) {
		struct resolver_query *query = list;

		list = query->next;
		resolver->query_count--;
		if (query->done)
			query->done(query->context, &query->resolution);
		free(query);
	}
}

/* ---- c-ares ---------------------------------------------------------------------------------- */

static int error_of_status(int status)
{
	switch (status) {
	case ARES_SUCCESS:
		return 0;
	case ARES_ENOTFOUND:
	case ARES_ENODATA:
		return -ENOENT;
	case ARES_ETIMEOUT:
		return -ETIMEDOUT;
	case ARES_ENOMEM:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

static void on_addresses(void *context, int status, int timeouts, struct ares_addrinfo *info)
{
	struct resolver_query *query = context;

	(void)timeouts;
	query->resolution.error = error_of_status(status);
	for (const struct ares_addrinfo_node *node = info ? info->nodes : NULL; node;
	     node = node->ai_next) {
		struct sockaddr_storage socket = { 0 };
		struct ip_address address;

		memcpy(&socket, node->ai_addr, MIN_OF(node->ai_addrlen, sizeof(socket)));
		if (ip_address_from_socket(&socket, &address, NULL) == 0)
			take_address(query, &address);
	}
	if (!query->resolution.error && query->resolution.count == 0)
		query->resolution.error = -ENOENT;
	ares_freeaddrinfo(info);
	finish(query);
}

static void on_socket_ready(struct event_source *source, uint32_t events)
{
	struct resolver *resolver = ((struct watch *)source)->resolver;
	ares_socket_t fd = source->fd;

	ares_process_fd(resolver->channel, events & ~(uint32_t)EPOLLOUT ? fd : ARES_SOCKET_BAD,
			events & EPOLLOUT ? fd : ARES_SOCKET_BAD);
	set_timer(resolver);
}

static struct watch *find_watch(struct resolver *resolver, int fd)
{
	for (size_t i = 0; i < WATCHES_MAX; i++) {
		if (resolver->watches[i].source.fd == fd)
			return &resolver->watches[i];
	}
	return NULL;
}

/* c-ares waits for something else on the socket; for nothing: it is about to close it. */
static void on_socket_state(void *context, ares_socket_t fd, int readable, int writable)
{
	struct resolver *resolver = context;
	struct watch *watch = find_watch(resolver, fd);
	uint32_t events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u);

	if (watch && events != 0) {
		(void)event_loop_modify(resolver->loop, &watch->source, events);
	} else if (watch) {
		event_loop_remove(resolver->loop, &watch->source);
		watch->source.fd = -1;
	} else if (events != 0) {
		/* A socket that cannot be watched ends in c-ares's time limit. */
		watch = find_watch(resolver, -1);
		if (!watch)
			return;
		watch->source.fd = fd;
		if (event_loop_add(resolver->loop, &watch->source, events) < 0)
			watch->source.fd = -1;
	}
}

static void on_timer(struct event_source *source, uint32_t events)
{
	struct resolver *resolver =
		(struct resolver *)((char *)source - offsetof(struct resolver, timer));
	uint64_t expirations;

	(void)events;
	(void)!read(source->fd, &expirations, sizeof(expirations));
	ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	deliver(resolver);
	set_timer(resolver);
}

/* ---- making ---------------------------------------------------------------------------------- */

/* *ret_text is NULL for a file that is not there. */
static int read_optional(const char *path, char **ret_text, size_t *ret_length)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	*ret_text = NULL;
	*ret_length = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	return read_file(fd, RESOLVER_FILE_MAX, ret_text, ret_length);
}

static int read_hosts(struct resolver *resolver, const char *path)
{
	cleanup_free char *text = NULL;
	size_t length;
	int error = read_optional(path, &text, &length);

	if (!error && text)
		error = host_table_read(resolver->hosts, text, length);
	return error;
}

/* Appends the server of one line of resolv.conf, if it is one, to the list for c-ares. */
static size_t add_server(const char *line, char *servers, size_t capacity)
{
	char address_text[IP_ADDRESS_TEXT_MAX];
	struct ip_address address;
	int length;

	if (sscanf(line, " nameserver %45[0-9A-Fa-f:.]", address_text) != 1 ||
	    ip_address_parse(address_text, &address) < 0)
		return 0;
	length = snprintf(servers, capacity, address.family == 6 ? "[%s]:53," : "%s:53,",
			  address_text);
	return length > 0 && (size_t)length < capacity ? (size_t)length : 0;
}

static int read_servers(const char *path, char *servers, size_t capacity)
{
	cleanup_free char *text = NULL;
	size_t length;
	size_t used = 0;
	size_t count = 0;
	int error = read_optional(path, &text, &length);

	if (error)
		return error;
	for (char *line = text; line && *line;) {
		char *newline = strchrnul(line, '\n');
		bool is_last = *newline == '\0';
		size_t added;

		*newline = '\0';
		added = count < RESOLVER_SERVERS_MAX
				? add_server(line, servers + used, capacity - used)
				: 0;
		used += added;
		count += added > 0;
		line = is_last ? NULL : newline + 1;
	}
	if (used == 0)
		used = (size_t)snprintf(servers, capacity, "127.0.0.1:53,");
	servers[used - 1] = '\0';
	return 0;
}

static int make_channel(struct resolver *resolver, const char *servers, unsigned timeout_ms)
{
	struct in_addr placeholder = { .s_addr = htonl(INADDR_LOOPBACK) };
	char lookups[] = "b";
	/* All of these, or c-ares reads the system's files itself. */
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.timeout = (int)(timeout_ms ? timeout_ms : TIMEOUT_DEFAULT_MS),
		.tries = TRIES,
		.ndots = 1,
		.servers = &placeholder,
		.nservers = 1,
		.lookups = lookups,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = resolver,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
		   ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_SORTLIST |
		   ARES_OPT_SOCK_STATE_CB;
	int status = ares_init_options(&resolver->channel, &options, mask);

	if (status != ARES_SUCCESS) {
		resolver->channel = NULL;
		return error_of_status(status);
	}
	return error_of_status(ares_set_servers_ports_csv(resolver->channel, servers));
}

static int prepare(struct resolver *resolver, const struct resolver_options *options)
{
	char servers[RESOLVER_SERVERS_MAX * (IP_ADDRESS_TEXT_MAX + 8)];
	int error = read_hosts(resolver, options->hosts_path ? options->hosts_path : "/etc/hosts");

	if (!error && !options->servers)
		error = read_servers(options->resolv_conf_path ? options->resolv_conf_path
							       : "/etc/resolv.conf",
				     servers, sizeof(servers));
	if (!error)
		error = make_channel(resolver, options->servers ? options->servers : servers,
				     options->timeout_ms);
	if (error)
		return error;
	resolver->timer.ready = on_timer;
	resolver->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (resolver->timer.fd < 0)
		return -errno;
	error = event_loop_add(resolver->loop, &resolver->timer, EPOLLIN);
	if (error) {
		close(resolver->timer.fd);
		resolver->timer.fd = -1;
	}
	return error;
}

int resolver_new(const struct resolver_options *options, struct resolver **ret_resolver)
{
	struct resolver *resolver = calloc(1, sizeof(*resolver));
	int error;

	if (!resolver)
		return -ENOMEM;
	resolver->loop = options->loop;
	resolver->pinned = options->pinned;
	resolver->timer.fd = -1;
	resolver->finished_end = &resolver->finished;
	resolver->hosts = host_table_new();
	for (size_t i = 0; i < WATCHES_MAX; i++) {
		resolver->watches[i].source.fd = -1;
		resolver->watches[i].source.ready = on_socket_ready;
		resolver->watches[i].resolver = resolver;
	}
	error = resolver->hosts ? prepare(resolver, options) : -ENOMEM;
	if (error) {
		resolver_free(resolver);
		return error;
	}
	*ret_resolver = resolver;
	return 0;
}

void resolver_free(struct resolver *resolver)
{
	if (!resolver)
		return;
	/* Every query that is under way comes back from this, to be freed below. */
	if (resolver->channel)
		ares_destroy(resolver->channel);
	for (struct resolver_query *query = resolver->finished; query;) {
		struct resolver_query *next = query->next;

		free(query);
		query = next;
	}
	if (resolver->timer.fd >= 0) {
		event_loop_remove(resolver->loop, &resolver->timer);
		close(resolver->timer.fd);
	}
	host_table_free(resolver->hosts);
	free(resolver);
}

/* ---- queries --------------------------------------------------------------------------------- */

bool resolver_is_pinned(const struct resolver *resolver, const struct host_name *name)
{
	return resolver->pinned && host_table_find(resolver->pinned, name);
}

int resolver_start(struct resolver *resolver, const struct host_name *name, bool is_trusted,
		   resolver_done *done, void *context, struct resolver_query **ret_query)
{
	static const struct ares_addrinfo_hints hints = {
		.ai_flags = ARES_AI_NOSORT,
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
	};
	const struct host_table_entry *pinned =
		resolver->pinned ? host_table_find(resolver->pinned, name) : NULL;
	const struct host_table_entry *known =
		pinned ? pinned : host_table_find(resolver->hosts, name);
	struct resolver_query *query;

	if (resolver->query_count >= RESOLVER_QUERIES_MAX)
		return -EBUSY;
	query = calloc(1, sizeof(*query));
	if (!query)
		return -ENOMEM;
	query->resolver = resolver;
	query->done = done;
	query->context = context;
	query->is_trusted = is_trusted;
	query->resolution.is_pinned = pinned != NULL;
	resolver->query_count++;
	if (known) {
		take_entry(query, known);
		finish(query);
	} else if (host_name_is_under(name, "localhost")) {
		query->resolution.error = -ENOENT;
		finish(query);
	} else {
		ares_getaddrinfo(resolver->channel, name->text, NULL, &hints, on_addresses, query);
	}
	set_timer(resolver);
	*ret_query = query;
	return 0;
}

void resolver_cancel(struct resolver_query *query)
{
	query->done = NULL;
}

#include "guest-init/egress.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "guest-init/egress_dns.h"
#include "guest-init/egress_routes.h"
#include "guest-init/egress_steering.h"
#include "guest-init/machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define DNS_PORT 53
/* Connections that may come at once; the kernel's own cap is 4096. */
#define BACKLOG 4096
#define ACCEPTS_PER_TURN 64
/* Two descriptors for each stream, and some. */
#define OPEN_FILES (2 * EGRESS_STREAMS_MAX + 256)

struct listener {
	struct event_source source;
	struct carrier *carrier;
	void (*accepted)(struct carrier *carrier, int fd);
};

enum which_listener {
	LISTENER_V4,
	LISTENER_V6,
	LISTENER_DNS_V4,
	LISTENER_DNS_V6,
	LISTENER_PUBLISH,
	LISTENERS,
};

struct carrier {
	struct event_loop loop;
	struct egress_streams *streams;
	struct egress_dns *dns;
	struct listener listeners[LISTENERS];
	int steering;
};

/* ---- what comes in ---------------------------------------------------------------------- */

static void accept_all(struct event_source *source, uint32_t events)
{
	struct listener *listener =
		(struct listener *)((char *)source - offsetof(struct listener, source));

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0 && errno != EINTR && errno != ECONNABORTED)
			return;
		if (fd >= 0)
			listener->accepted(listener->carrier, fd);
	}
}

/* The socket's own name is where the program wanted to go. False when that is this process, which
 * somebody dialled by the listener's real name. */
static bool find_target(int fd, struct egress_target *ret_target)
{
	struct sockaddr_storage name = { 0 };
	socklen_t length = sizeof(name);

	memset(ret_target, 0, sizeof(*ret_target));
	if (getsockname(fd, (struct sockaddr *)&name, &length) < 0)
		return false;
	if (name.ss_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&name;

		ret_target->family = 4;
		ret_target->port = ntohs(v4->sin_port);
		memcpy(ret_target->address, &v4->sin_addr, sizeof(v4->sin_addr));
		return ret_target->address[0] != 127;
	}
	if (name.ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&name;

		ret_target->family = 6;
		ret_target->port = ntohs(v6->sin6_port);
		memcpy(ret_target->address, &v6->sin6_addr, sizeof(v6->sin6_addr));
		return !IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
	}
	return false;
}

static void carry_out(struct carrier *carrier, int fd)
{
	struct egress_target target;

	if (find_target(fd, &target))
		egress_streams_out(carrier->streams, fd, EGRESS_STREAM_PORT, &target);
	else
		close(fd);
}

static void carry_queries(struct carrier *carrier, int fd)
{
	egress_streams_out(carrier->streams, fd, EGRESS_DNS_PORT, NULL);
}

static void carry_in(struct carrier *carrier, int fd)
{
	egress_streams_in(carrier->streams, fd);
}

/* ---- setting up ------------------------------------------------------------------------- */

static int bind_loopback(int family, int type, uint16_t port)
{
	const struct sockaddr_in v4 = { .sin_family = AF_INET,
					.sin_port = htons(port),
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
					 .sin6_port = htons(port),
					 .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	const struct sockaddr *address = (const struct sockaddr *)&v4;
	socklen_t length = sizeof(v4);
	const int on = 1;
	cleanup_fd int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (family == AF_INET6) {
		address = (const struct sockaddr *)&v6;
		length = sizeof(v6);
	}
	if (bind(fd, address, length) < 0)
		return -errno;
	if (type == SOCK_STREAM) {
		/* Accepted sockets inherit it: what the host sends is on its way as it comes. */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (listen(fd, BACKLOG) < 0)
			return -errno;
	}
	return steal_fd(&fd);
}

static int add_listener(struct carrier *carrier, enum which_listener which, int fd,
			void (*accepted)(struct carrier *, int))
{
	struct listener *listener = &carrier->listeners[which];

	*listener = (struct listener){ .source = { .ready = accept_all, .fd = fd },
				       .carrier = carrier,
				       .accepted = accepted };
	return event_loop_add(&carrier->loop, &listener->source, EPOLLIN);
}

/* A kernel without IPv6 leaves that family out. */
static int listen_loopback(struct carrier *carrier, enum which_listener which, int family,
			   uint16_t port, void (*accepted)(struct carrier *, int))
{
	int fd = bind_loopback(family, SOCK_STREAM, port);

	if (fd < 0)
		return family == AF_INET6 && fd == -EAFNOSUPPORT ? 0 : fd;
	return add_listener(carrier, which, fd, accepted);
}

static int start_dns(struct carrier *carrier, const struct egress_options *options)
{
	int sockets[2] = { bind_loopback(AF_INET, SOCK_DGRAM, DNS_PORT),
			   bind_loopback(AF_INET6, SOCK_DGRAM, DNS_PORT) };
	int error = sockets[0] < 0 ? sockets[0] : 0;

	if (sockets[1] < 0 && sockets[1] != -EAFNOSUPPORT)
		error = sockets[1];
	if (error == 0)
		error = egress_dns_new(&carrier->loop, options->dial, options->context, sockets,
				       &carrier->dns);
	for (size_t i = 0; error < 0 && i < ARRAY_LENGTH(sockets); i++) {
		if (sockets[i] >= 0)
			close(sockets[i]);
	}
	return error;
}

static int start_listeners(struct carrier *carrier, const struct egress_options *options)
{
	int error = listen_loopback(carrier, LISTENER_V4, AF_INET, 0, carry_out);

	if (error == 0)
		error = listen_loopback(carrier, LISTENER_V6, AF_INET6, 0, carry_out);
	if (error == 0)
		error = listen_loopback(carrier, LISTENER_DNS_V4, AF_INET, DNS_PORT, carry_queries);
	if (error == 0)
		error = listen_loopback(carrier, LISTENER_DNS_V6, AF_INET6, DNS_PORT,
					carry_queries);
	if (error == 0 && options->publish_listener >= 0)
		error = add_listener(carrier, LISTENER_PUBLISH, options->publish_listener,
				     carry_in);
	return error == 0 ? start_dns(carrier, options) : error;
}

static int set_up(struct carrier *carrier, const struct egress_options *options,
		  struct failure *failure)
{
	int error = event_loop_init(&carrier->loop);

	if (error < 0)
		return failure_set(failure, "network", -error, "cannot make an event loop");
	carrier->streams = egress_streams_new(&carrier->loop, options->dial, options->context);
	if (!carrier->streams)
		return failure_set(failure, "network", ENOMEM, "out of memory");
	error = start_listeners(carrier, options);
	if (error < 0)
		return failure_set(failure, "network", -error, "cannot listen on loopback");
	error = egress_routes_set(failure);
	if (error < 0)
		return error;
	carrier->steering =
		egress_steering_start(carrier->listeners[LISTENER_V4].source.fd,
				      carrier->listeners[LISTENER_V6].source.fd, failure);
	return carrier->steering < 0 ? carrier->steering : 0;
}

int egress_run(const struct egress_options *options, struct failure *failure)
{
	/* The process lives no longer than this: its end releases everything. */
	static struct carrier carrier;
	int error;

	for (size_t i = 0; i < LISTENERS; i++)
		carrier.listeners[i].source.fd = -1;
	error = set_up(&carrier, options, failure);
	if (error == 0 && options->ready_fd >= 0 && write(options->ready_fd, "", 1) != 1)
		error = failure_set(failure, "network", errno, "cannot say that it is ready");
	while (error >= 0) {
		bool busy = egress_streams_are_busy(carrier.streams);

		error = event_loop_run_once(&carrier.loop, busy ? 0 : -1);
		if (error >= 0)
			egress_streams_turn(carrier.streams);
	}
	return failure_set(failure, "network", -error, "the event loop ended");
}

/* ---- the process ------------------------------------------------------------------------ */

static int dial(void *context, unsigned port)
{
	(void)context;
	return machine_dial(port);
}

static int listen_for_host(void)
{
	const struct sockaddr_vm address = { .svm_family = AF_VSOCK,
					     .svm_cid = VMADDR_CID_ANY,
					     .svm_port = EGRESS_PUBLISH_PORT };
	cleanup_fd int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return -errno;
	return steal_fd(&fd);
}

static void prepare_process(void)
{
	const struct rlimit files = { .rlim_cur = OPEN_FILES, .rlim_max = OPEN_FILES };
	cleanup_fd int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	prctl(PR_SET_NAME, "guest-egress");
	/* Best effort: /proc may not be mounted yet. */
	if (oom >= 0)
		(void)!write(oom, "-1000", 5);
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

static _Noreturn void live(int ready_fd)
{
	struct egress_options options = { .dial = dial, .ready_fd = ready_fd };
	struct failure failure = { 0 };

	/* The streams to the host are guest-init's alone. */
	for (int fd = STDERR_FILENO + 1; fd < 1024; fd++) {
		if (fd != ready_fd)
			close(fd);
	}
	prepare_process();
	options.publish_listener = listen_for_host();
	if (options.publish_listener < 0)
		failure_set(&failure, "network", -options.publish_listener,
			    "cannot listen for the host");
	else
		egress_run(&options, &failure);
	(void)!write(ready_fd, &failure, sizeof(failure));
	_exit(1);
}

int egress_start(struct egress *egress, struct failure *failure)
{
	int ready[2];

	*egress = (struct egress){ .pid = -1, .ready_fd = -1 };
	if (pipe2(ready, O_CLOEXEC) < 0)
		return failure_set(failure, "network", errno, "cannot start its process");
	egress->pid = fork();
	if (egress->pid == 0)
		live(ready[1]);
	close(ready[1]);
	if (egress->pid < 0) {
		close(ready[0]);
		return failure_set(failure, "network", errno, "cannot start its process");
	}
	egress->ready_fd = ready[0];
	return 0;
}

int egress_wait(struct egress *egress, struct failure *failure)
{
	cleanup_fd int fd = steal_fd(&egress->ready_fd);
	struct failure told = { 0 };
	ssize_t count;

	do {
		count = read(fd, &told, sizeof(told));
	} while (count < 0 && errno == EINTR);
	if (count == 1)
		return 0;
	if (count != (ssize_t)sizeof(told))
		return failure_set(failure, "network", 0, "its process ended");
	return failure_set(failure, "network", told.error, "%s", told.text);
}

void egress_ended(struct egress *egress)
{
	egress->pid = -1;
	egress_routes_clear();
}

#include "proxy/broker.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/time_slice.h"
#include "jail/jail.h"
#include "proxy/connector.h"
#include "proxy/control.h"
#include "proxy/dns_stream.h"
#include "proxy/egress_report.h"
#include "proxy/guest.h"
#include "proxy/host_pattern.h"
#include "proxy/proxy_config.h"
#include "proxy/secret_heap.h"
#include "proxy/secret_store.h"
#include "proxy/services.h"
#include "proxy/session_ca.h"
#include "proxy/synthetic_addresses.h"
#include "proxy/tls.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_MS 1000
/* Two for each connection, and what else there is. */
#define FILES_WANTED (2u * GUESTS_MAX + 1024u)
/* 40 ms and some 200 KiB, at most. */
#define LEAVES_AHEAD_MAX 64u

struct broker;

/* A listening socket, and who takes what it accepts. */
struct listener {
	struct event_source source; /* first */
	struct broker *broker;
	bool is_resting;
	void (*accepted)(struct broker *broker, int fd);
};

struct broker {
	struct services services;
	struct event_loop loop;
	struct proxy_config *config;
	struct resolver *resolver;
	struct session_ca *ca;
	struct guests *guests;
	struct dns_streams *dns_streams;
	struct control *control;
	struct listener streams;
	struct listener queries;
	uint64_t swept_ms;
};

/* ---- connections ---------------------------------------------------------------------------- */

static void accept_guest(struct broker *broker, int fd)
{
	guests_add(broker->guests, fd);
}

static void accept_dns(struct broker *broker, int fd)
{
	dns_streams_add(broker->dns_streams, fd);
}

/* Who waits stays there when no file or memory is left for him, so that the listener stays ready;
 * it is looked at again at the next tick, or the processor would do nothing else. */
static void rest(struct listener *listener)
{
	listener->is_resting =
		event_loop_modify(&listener->broker->loop, &listener->source, 0) == 0;
}

static void wake(struct listener *listener)
{
	if (listener->is_resting)
		listener->is_resting =
			event_loop_modify(&listener->broker->loop, &listener->source, EPOLLIN) != 0;
}

static void on_listener(struct event_source *source, uint32_t events)
{
	struct listener *listener = (struct listener *)source;
	int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd >= 0)
		listener->accepted(listener->broker, fd);
	else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		rest(listener);
}

static int listen_at(struct broker *broker, struct listener *listener, int fd,
		     void (*accepted)(struct broker *broker, int fd))
{
	*listener = (struct listener){
		.source = { .ready = on_listener, .fd = fd },
		.broker = broker,
		.accepted = accepted,
	};
	if (set_nonblocking(fd, true) < 0)
		return -errno;
	return event_loop_add(&broker->loop, &listener->source, EPOLLIN);
}

/* ---- setting up ----------------------------------------------------------------------------- */

static int failed(const char *what, int error)
{
	log_error("%s: %s", what, strerror(-error));
	return error;
}

static int read_identity(struct services *services, const struct egress_rule *rule)
{
	const char *name = rule->client_certificate;
	const char *problem = "no memory";
	struct secret_text pem;
	int result;

	if (!services->secrets || !secret_store_certificate(services->secrets, name, &pem)) {
		log_error("%s: client_certificate: %s is not in the bundle", rule->where, name);
		return -ENOENT;
	}
	if (!secret_heap_is_locked()) {
		log_error("%s: client_certificate: its key cannot be locked in memory; raise "
			  "RLIMIT_MEMLOCK (ulimit -l)",
			  rule->where);
		return -EPERM;
	}
	result = client_identities_add(&services->identities, name, pem.data, pem.length, &problem);
	if (result)
		log_error("%s: client_certificate: %s", rule->where, problem);
	return result;
}

static int read_identities(struct broker *broker)
{
	const struct egress_policy_options *policy = &broker->config->policy;
	struct services *services = &broker->services;
	int result = 0;

	for (size_t i = 0; i < policy->rule_count && !result; i++) {
		if (policy->rules[i].client_certificate)
			result = read_identity(services, &policy->rules[i]);
	}
	/* Then nothing is to be searched for in bodies. */
	if (services->secrets && secret_store_count(services->secrets) == 0) {
		secret_store_free(services->secrets);
		services->secrets = NULL;
	}
	return result;
}

static int read_config(struct broker *broker, const struct broker_options *options)
{
	char error[PROXY_CONFIG_ERROR_MAX];
	char policy_error[EGRESS_ERROR_MAX];
	char problem[SECRET_PROBLEM_MAX];
	int result = proxy_config_read(options->config_fd, &broker->config, error);

	if (result) {
		log_error("%s", error);
		return result;
	}
	result = egress_policy_new(&broker->config->policy, &broker->services.policy, policy_error);
	if (result) {
		log_error("%s", policy_error);
		return result;
	}
	if (options->secrets_fd >= 0) {
		result = secret_store_read(options->secrets_fd, &broker->services.secrets, problem);
		if (result) {
			log_error("%s", problem);
			return result;
		}
	}
	return read_identities(broker);
}

static int make_resolver(struct broker *broker)
{
	const struct resolver_options resolver = {
		.loop = &broker->loop,
		.pinned = broker->config->pinned,
	};
	struct connector_options connector = {
		.loop = &broker->loop,
		.upstream = broker->config->has_upstream ? &broker->config->upstream : NULL,
		.files_max = broker->services.files_max,
	};
	int error = resolver_new(&resolver, &broker->resolver);

	if (error)
		return failed("cannot read how this host resolves names", error);
	connector.resolver = broker->resolver;
	error = connector_new(&connector, &broker->services.connector);
	return error ? failed("cannot connect to hosts", error) : 0;
}

static int make_tls(struct broker *broker, const struct broker_options *options)
{
	int error = session_ca_new(broker->config->policy.session, &broker->ca);

	if (error)
		return failed("cannot make the session's certificate authority", error);
	error = tls_new(broker->ca, options->upstream_ca_fd, &broker->services.tls);
	if (error == -EBADMSG)
		return failed("no certificate in what --upstream-ca names", error);
	return error ? failed("cannot load this host's trusted certificates", error) : 0;
}

/* On a single one, to look for what somebody else is to do keeps him from doing it. */
static bool has_several_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

static int make_services(struct broker *broker, const struct broker_options *options)
{
	struct services *services = &broker->services;
	int error = event_loop_init(&broker->loop);

	if (error)
		return failed("cannot make an event loop", error);
	broker->loop.polls = has_several_processors();
	services->loop = &broker->loop;
	services->report = egress_report_new(options->audit_fd);
	services->addresses = synthetic_addresses_new();
	services->upstreams = upstream_pool_new(services);
	broker->guests = guests_new(services);
	broker->dns_streams = dns_streams_new(services);
	if (!services->report || !services->addresses || !services->upstreams || !broker->guests ||
	    !broker->dns_streams)
		return failed("cannot start", -ENOMEM);
	error = read_config(broker, options);
	if (!error)
		error = make_resolver(broker);
	if (!error)
		error = make_tls(broker, options);
	return error;
}

static void release(struct broker *broker)
{
	control_free(broker->control);
	guests_free(broker->guests);
	dns_streams_free(broker->dns_streams);
	upstream_pool_free(broker->services.upstreams);
	connector_free(broker->services.connector);
	resolver_free(broker->resolver);
	tls_free(broker->services.tls);
	session_ca_free(broker->ca);
	secret_store_free(broker->services.secrets);
	client_identities_release(&broker->services.identities);
	egress_policy_free(broker->services.policy);
	synthetic_addresses_free(broker->services.addresses);
	egress_report_free(broker->services.report);
	proxy_config_free(broker->config);
	event_loop_release(&broker->loop);
}

/* ---- the jail ------------------------------------------------------------------------------- */

static const struct jail_syscall broker_calls[] = {
	JAIL_CALL(SYS_epoll_wait), JAIL_CALL(SYS_epoll_pwait), JAIL_CALL(SYS_epoll_ctl),
	JAIL_CALL_IF(SYS_accept4, JAIL_ARGUMENT_EQUAL32(3, SOCK_NONBLOCK | SOCK_CLOEXEC)),
	JAIL_CALL(SYS_recvfrom), JAIL_CALL(SYS_sendto), JAIL_CALL(SYS_shutdown),
	JAIL_CALL_IF(SYS_setsockopt, JAIL_ARGUMENT_EQUAL32(1, SOL_SOCKET),
		     JAIL_ARGUMENT_EQUAL32(2, SO_LINGER)),
	JAIL_CALL_IF(SYS_setsockopt, JAIL_ARGUMENT_EQUAL32(1, SOL_SOCKET),
		     JAIL_ARGUMENT_EQUAL32(2, SO_SNDBUF)),
	/* Secrets that are captured meanwhile get locked memory like the others. */
	JAIL_CALL(SYS_mlock),
	JAIL_CALL(SYS_mlock2), /* either may be what the C library makes of mlock2() */
};
static const struct jail_syscall_set broker_set = JAIL_SET(broker_calls);

/* Their contents have been taken over. A memfd that stayed open would hold the secrets a second
 * time, in memory that is not locked. */
static void close_inputs(const struct broker_options *options)
{
	const int inputs[] = { options->config_fd, options->secrets_fd, options->upstream_ca_fd };

	for (size_t i = 0; i < ARRAY_LENGTH(inputs); i++) {
		if (inputs[i] >= 0)
			close(inputs[i]);
	}
}

/* Before the first byte of the guest's: the network remains, and no file. */
static int confine(struct broker *broker)
{
	static const struct jail_syscall_set *const sets[] = {
		&jail_calls_process,
		&resolver_calls,
		&connector_calls,
		&broker_set,
	};
	const struct jail_rlimit rlimits[] = { { RLIMIT_CORE, 0 } };
	const struct jail_spec spec = {
		.component = "proxy",
		.rlimits = rlimits,
		.rlimit_count = ARRAY_LENGTH(rlimits),
		.syscall_sets = sets,
		.syscall_set_count = ARRAY_LENGTH(sets),
		.network_allowed = JAIL_NET_CONNECT_TCP,
		.namespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS,
		.empty_root = true,
		.keep_all_fds = true,
	};
	struct jail_report report;
	char text[JAIL_REPORT_TEXT_MAX];
	int error = jail_enter(&spec, &report);

	if (error) {
		log_error("cannot lock the process: %s: %s",
			  report.failed_stage ? report.failed_stage : "set-up", strerror(-error));
		return error;
	}
	jail_report_text(&report, text, sizeof(text));
	egress_report_jail(broker->services.report, text);
	log_debug("jail: %s", text);
	return 0;
}

/* Returns how many there may be. */
static uint64_t raise_files(void)
{
	struct rlimit limit;
	rlim_t before;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	before = limit.rlim_cur;
	limit.rlim_cur = MIN_OF(limit.rlim_max, (rlim_t)FILES_WANTED);
	/* With fewer, connections are refused sooner. */
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? before : limit.rlim_cur;
}

/* ---- serving -------------------------------------------------------------------------------- */

/* The log is told before anybody sleeps. False when it takes no more. */
static bool tell_log(struct broker *broker)
{
	egress_report_flush(broker->services.report);
	return !egress_report_has_failed(broker->services.report);
}

static int serve(struct broker *broker)
{
	while (tell_log(broker) && !control_has_ended(broker->control)) {
		uint64_t now;
		int count = event_loop_run_once(&broker->loop, TICK_MS);

		if (count < 0)
			return failed("cannot wait for events", count);
		now = clock_now_ms();
		if (now - broker->swept_ms >= TICK_MS) {
			broker->swept_ms = now;
			wake(&broker->streams);
			wake(&broker->queries);
			guests_sweep(broker->guests, now);
			upstream_pool_sweep(broker->services.upstreams, now);
		}
	}
	if (egress_report_has_failed(broker->services.report))
		return failed("the audit process no longer takes events; the network ends here",
			      -EPIPE);
	return 0;
}

/* Whether a certificate was made. One that cannot be is for the handshake to tell. */
static bool mint_for(struct broker *broker, const struct host_pattern *pattern)
{
	X509 *leaf;
	EVP_PKEY *key;

	return !pattern->is_wildcard && !pattern->is_tcp &&
	       session_ca_leaf(broker->ca, &pattern->name, &leaf, &key) == 0;
}

/* For the names that are allowed as they are, while the guest still boots: a certificate takes
 * 0.6 ms, as much as all the rest of a handshake. */
static void mint_ahead(struct broker *broker)
{
	const struct egress_policy_options *policy = &broker->config->policy;
	size_t count = 0;

	for (size_t i = 0; i < policy->allow_count && count < LEAVES_AHEAD_MAX; i++) {
		const char *text = policy->allow[i];
		struct host_pattern pattern;

		if (host_pattern_parse(text, strlen(text), &pattern) == 0)
			count += mint_for(broker, &pattern) ? 1 : 0;
	}
	for (size_t i = 0; i < policy->rule_count && count < LEAVES_AHEAD_MAX; i++)
		count += mint_for(broker, &policy->rules[i].host) ? 1 : 0;
	log_debug("%zu certificates made ahead", count);
}

static int run(struct broker *broker, const struct broker_options *options)
{
	int error = make_services(broker, options);

	if (!error)
		error = control_new(&broker->services, options->control_fd, &broker->control);
	if (error)
		return error;
	close_inputs(options);
	error = confine(broker);
	if (!error)
		error = control_tell_ready(broker->control, session_ca_certificate(broker->ca));
	if (!error)
		error = listen_at(broker, &broker->streams, options->listen_fd, accept_guest);
	if (!error)
		error = listen_at(broker, &broker->queries, options->dns_fd, accept_dns);
	if (!error)
		mint_ahead(broker);
	return error ? failed("cannot start serving", error) : serve(broker);
}

int broker_run(const struct broker_options *options)
{
	struct broker broker = { .loop = { .epoll_fd = -1 } };
	int error;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* A guest and its server wait for it, each of which takes a slice when it comes to run. */
	(void)time_slice_ask(TIME_SLICE_MIN_NS);
	/* The buffers of bodies come and go with every turn: keep them on the heap. */
	mallopt(M_MMAP_THRESHOLD, 512 * 1024);
	mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
	broker.services.files_max = raise_files();
	if (secret_heap_init() < 0)
		log_info("the keys of the session's certificates cannot be locked in memory "
			 "(RLIMIT_MEMLOCK)");
	error = run(&broker, options);
	release(&broker);
	return error;
}

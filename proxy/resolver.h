/*
 * Names to addresses, on the host, for a connection that is about to be made.
 *
 * A name is asked for once and its addresses are judged as a whole: if any of them is one that the
 * broker may not connect to (proxy/address_class.h) the name has none. An attacker who owns a
 * name's zone gains nothing by mixing, by an alias to somebody else's name, or by another answer a
 * moment later, because the connection goes to an address that was judged.
 *
 * First come the names that the person pinned: their addresses are exempt from judgement, that is
 * what pinning is for. Then the host's hosts file, then its name servers, both of which are read
 * when the resolver is made, before the jail closes: later changes of these files are not seen.
 * No search domain is added to a name.
 *
 * Results arrive in the callback, never from inside resolver_start().
 *
 * Sources: resolv.conf(5), hosts(5); RFC 6761 (localhost is no name to ask for).
 */
#ifndef PROXY_RESOLVER_H
#define PROXY_RESOLVER_H

#include "base/event_loop.h"
#include "jail/jail.h"
#include "proxy/host_table.h"

#define RESOLVER_ADDRESSES_MAX 16u /* kept of an answer; all are judged */
#define RESOLVER_QUERIES_MAX 256u  /* under way at once */
#define RESOLVER_SERVERS_MAX 8u
#define RESOLVER_FILE_MAX (16u * 1024u * 1024u)

struct resolution {
	/* 0; -ENOENT: there is no such name, or it has no address; -EACCES: a blocked address;
	 * -ETIMEDOUT: no server answered; -EIO: servers failed; -ENOMEM */
	int error;
	size_t count;
	struct ip_address addresses[RESOLVER_ADDRESSES_MAX];
	bool is_pinned;
	struct ip_address blocked; /* with -EACCES: which, and of what class */
	const char *blocked_class;
};

struct resolver;
struct resolver_query;

struct resolver_options {
	struct event_loop *loop;
	/* NULL: the system's. A file that is not there is an empty one. */
	const char *hosts_path;
	const char *resolv_conf_path;
	/* "ADDRESS:PORT,[ADDRESS]:PORT" instead of those in resolv.conf; or NULL. */
	const char *servers;
	unsigned timeout_ms;		 /* of the first try, which doubles; 0: the default */
	const struct host_table *pinned; /* borrowed for the resolver's life; or NULL */
};

typedef void resolver_done(void *context, const struct resolution *resolution);

/* Reads the files and takes what it needs from the kernel: call it before the jail. */
int resolver_new(const struct resolver_options *options, struct resolver **ret_resolver);
/* Queries that are under way end without a callback. */
void resolver_free(struct resolver *resolver);

/* With `is_trusted` the person named this host for the broker's own use (an upstream proxy), and
 * its addresses are not judged. -EBUSY over RESOLVER_QUERIES_MAX, -ENOMEM. The query is gone when
 * `done` is called. */
int resolver_start(struct resolver *resolver, const struct host_name *name, bool is_trusted,
		   resolver_done *done, void *context, struct resolver_query **ret_query);
/* `done` will not be called. */
void resolver_cancel(struct resolver_query *query);

bool resolver_is_pinned(const struct resolver *resolver, const struct host_name *name);

/* What resolving calls once the jail is shut. */
extern const struct jail_syscall_set resolver_calls;

#endif

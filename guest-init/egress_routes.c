#include "guest-init/egress_routes.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdalign.h>
#include <string.h>
#include <sys/socket.h>

/* The kernel's tables are 253 to 255 and its rules 0, 32766 and 32767; any between will do. */
#define TABLE 100
#define RULE_PRIORITY 1000
#define NEW (NLM_F_CREATE | NLM_F_EXCL)

const uint8_t egress_own_v6[16] = { 0xfd, 0x6d, 0x6c, [15] = 0x02 };

/* One request under construction. */
struct request {
	struct nlmsghdr header;
	alignas(NLMSG_ALIGNTO) uint8_t payload[256];
};

static void begin(struct request *request, uint16_t type, uint16_t flags, const void *body,
		  size_t length)
{
	*request = (struct request){
		.header.nlmsg_len = (uint32_t)NLMSG_LENGTH(length),
		.header.nlmsg_type = type,
		.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags,
	};
	memcpy(request->payload, body, length);
}

static void add(struct request *request, uint16_t type, const void *data, size_t length)
{
	uint8_t *end = (uint8_t *)request + NLMSG_ALIGN(request->header.nlmsg_len);
	struct rtattr attribute = { .rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(length) };

	memcpy(end, &attribute, sizeof(attribute));
	memcpy(end + RTA_LENGTH(0), data, length);
	request->header.nlmsg_len =
		NLMSG_ALIGN(request->header.nlmsg_len) + (uint32_t)RTA_SPACE(length);
}

static void add_u32(struct request *request, uint16_t type, uint32_t value)
{
	add(request, type, &value, sizeof(value));
}

/* Sends and waits for the kernel's answer. */
static int ask(int fd, const struct request *request)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		uint8_t echo[512];
	} reply;
	ssize_t count;

	if (send(fd, request, request->header.nlmsg_len, 0) < 0)
		return -errno;
	count = recv(fd, &reply, sizeof(reply), 0);
	if (count < 0)
		return -errno;
	if (count < (ssize_t)NLMSG_LENGTH(sizeof(reply.error)) ||
	    reply.header.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return reply.error.error;
}

static int add_address(int fd, int family, const void *address, size_t length, unsigned interface)
{
	const struct ifaddrmsg body = {
		.ifa_family = (uint8_t)family,
		.ifa_prefixlen = (uint8_t)(length * 8),
		/* Usable at once: there is nobody who might have the address already. */
		.ifa_flags = IFA_F_NODAD,
		.ifa_scope = RT_SCOPE_UNIVERSE,
		.ifa_index = interface,
	};
	struct request request;

	begin(&request, RTM_NEWADDR, NEW, &body, sizeof(body));
	add(&request, IFA_LOCAL, address, length);
	add(&request, IFA_ADDRESS, address, length);
	return ask(fd, &request);
}

static int add_route(int fd, int family, const void *source, size_t length, unsigned interface)
{
	const struct rtmsg body = {
		.rtm_family = (uint8_t)family,
		.rtm_table = TABLE,
		.rtm_protocol = RTPROT_BOOT,
		.rtm_scope = RT_SCOPE_HOST,
		.rtm_type = RTN_LOCAL,
	};
	struct request request;

	begin(&request, RTM_NEWROUTE, NEW, &body, sizeof(body));
	add_u32(&request, RTA_OIF, interface);
	add(&request, RTA_PREFSRC, source, length);
	return ask(fd, &request);
}

/* RTM_NEWRULE or RTM_DELRULE. */
static int change_rule(int fd, uint16_t type, int family)
{
	const struct fib_rule_hdr body = {
		.family = (uint8_t)family,
		.table = TABLE,
		.action = FR_ACT_TO_TBL,
	};
	const uint8_t protocol = IPPROTO_TCP;
	struct request request;

	begin(&request, type, type == RTM_NEWRULE ? NEW : 0, &body, sizeof(body));
	add_u32(&request, FRA_PRIORITY, RULE_PRIORITY);
	add(&request, FRA_IP_PROTO, &protocol, sizeof(protocol));
	return ask(fd, &request);
}

static int set_family(int fd, int family, const void *own, size_t length, unsigned interface)
{
	int error = add_address(fd, family, own, length, interface);

	if (error == 0)
		error = add_route(fd, family, own, length, interface);
	return error == 0 ? change_rule(fd, RTM_NEWRULE, family) : error;
}

int egress_routes_set(struct failure *failure)
{
	const uint32_t own_v4 = htonl(EGRESS_OWN_V4);
	unsigned loopback = if_nametoindex("lo");
	cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int error;

	if (fd < 0 || loopback == 0)
		return failure_set(failure, "network", errno, "cannot ask for routes");
	error = set_family(fd, AF_INET, &own_v4, sizeof(own_v4), loopback);
	if (error < 0)
		return failure_set(failure, "network", -error, "cannot set the routes of IPv4");
	error = set_family(fd, AF_INET6, egress_own_v6, sizeof(egress_own_v6), loopback);
	/* A kernel without IPv6 has no connections of it. */
	if (error < 0 && error != -EAFNOSUPPORT && error != -EOPNOTSUPP)
		return failure_set(failure, "network", -error, "cannot set the routes of IPv6");
	return 0;
}

void egress_routes_clear(void)
{
	cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return;
	(void)change_rule(fd, RTM_DELRULE, AF_INET);
	(void)change_rule(fd, RTM_DELRULE, AF_INET6);
}

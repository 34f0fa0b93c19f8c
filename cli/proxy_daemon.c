#include "cli/proxy_daemon.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/network_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define READY_TIMEOUT_MS 30000
#define ANSWER_TIMEOUT_MS 10000
#define FDS_MAX 7

static const char *const verbosity_flags[] = { "-q", NULL, "-v", "--debug" };

/* ---- starting --------------------------------------------------------------------------- */

/* A descriptor that holds `text`, to be read from its beginning. */
static int sealed_text(const char *text, struct problem *problem)
{
	cleanup_fd int fd = memfd_create("matchlock-network", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int error = fd < 0 ? -errno : write_full(fd, text, strlen(text));

	if (error == 0 &&
	    (lseek(fd, 0, SEEK_SET) < 0 ||
	     fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0))
		error = -errno;
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot write the network's rules: %s",
				   strerror(-error));
	return steal_fd(&fd);
}

static int write_configuration(const struct plan *plan, const struct run_options *options,
			       struct problem *problem)
{
	json_t *json = network_broker_json(plan, options);
	cleanup_free char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int fd;

	json_decref(json);
	if (!text)
		return problem_set(problem, STATUS_SANDBOX,
				   "the network's rules cannot be written as JSON");
	fd = sealed_text(text, problem);
	explicit_bzero(text, strlen(text));
	return fd;
}

static int open_upstream_ca(const struct run_options *options, int *ret_fd, struct problem *problem)
{
	const char *path = options->network.upstream_ca;

	*ret_fd = -1;
	if (!path)
		return 0;
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? problem_set(problem, STATUS_USAGE, "--upstream-ca %s: %s", path,
					 strerror(errno))
			   : 0;
}

static void pass(struct text_list *arguments, const char *flag, int fd, int fds[FDS_MAX],
		 size_t *count)
{
	if (fd < 0)
		return;
	argument_number(arguments, flag, fd);
	fds[(*count)++] = fd;
}

int proxy_daemon_start(struct proxy_daemon *proxy, const struct plan *plan,
		       const struct run_options *options, const struct paths *paths,
		       const struct proxy_sockets *sockets, struct problem *problem)
{
	cleanup_list struct text_list arguments = { 0 };
	cleanup_fd int config_fd = write_configuration(plan, options, problem);
	cleanup_fd int control_fd = -1;
	cleanup_fd int ca_fd = -1;
	int fds[FDS_MAX];
	size_t count = 0;

	if (config_fd < 0 || open_upstream_ca(options, &ca_fd, problem) < 0 ||
	    make_pair(SOCK_SEQPACKET, &proxy->control, &control_fd, problem) < 0)
		return -1;
	text_list_add(&arguments, "matchlock-proxy");
	pass(&arguments, "--config-fd", config_fd, fds, &count);
	pass(&arguments, "--secrets-fd", sockets->secrets, fds, &count);
	pass(&arguments, "--listen-fd", sockets->streams, fds, &count);
	pass(&arguments, "--dns-fd", sockets->queries, fds, &count);
	pass(&arguments, "--control-fd", control_fd, fds, &count);
	pass(&arguments, "--audit-fd", sockets->audit, fds, &count);
	pass(&arguments, "--upstream-ca-fd", ca_fd, fds, &count);
	return child_start_daemon(&proxy->child, paths, "matchlock-proxy", &arguments,
				  verbosity_flags[options->verbosity], fds, count, problem);
}

/* ---- what it says ----------------------------------------------------------------------- */

static int fail(struct proxy_daemon *proxy, const char *what, struct problem *problem)
{
	cleanup_free char *end = NULL;

	if (!child_wait(&proxy->child, 1000))
		return problem_set(problem, STATUS_SANDBOX, "the broker (matchlock-proxy) %s",
				   what);
	end = child_end_text(&proxy->child);
	return problem_set(problem, STATUS_SANDBOX, "the broker (matchlock-proxy) ended with %s",
			   end);
}

/* The message borrows from `buffer`, PROXY_CONTROL_MAX bytes. */
static int receive(struct proxy_daemon *proxy, uint8_t *buffer, int timeout_ms,
		   struct proxy_control *ret_message, struct problem *problem)
{
	struct pollfd poll_fd = { .fd = proxy->control, .events = POLLIN };
	ssize_t count;
	int ready;

	do {
		ready = poll(&poll_fd, 1, timeout_ms);
	} while (ready < 0 && errno == EINTR);
	if (ready == 0)
		return fail(proxy, "does not answer", problem);
	count = recv(proxy->control, buffer, PROXY_CONTROL_MAX, MSG_DONTWAIT);
	if (count <= 0)
		return fail(proxy, "has hung up", problem);
	if (proxy_control_decode(buffer, (size_t)count, ret_message) < 0)
		return fail(proxy, "sent a malformed message", problem);
	return 0;
}

/* As `openssl x509 -subject_hash` has it. */
static int read_certificate(struct proxy_daemon *proxy, const char *pem, struct problem *problem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	int ok = 0;

	if (certificate)
		proxy->certificate_hash = (uint32_t)X509_NAME_hash_ex(
			X509_get_subject_name(certificate), NULL, NULL, &ok);
	X509_free(certificate);
	BIO_free(bio);
	if (!ok)
		return problem_set(problem, STATUS_SANDBOX,
				   "the broker (matchlock-proxy) sent no certificate");
	proxy->certificate = text_copy(pem);
	return 0;
}

int proxy_daemon_wait_ready(struct proxy_daemon *proxy, struct problem *problem)
{
	cleanup_free uint8_t *buffer = allocate(1, PROXY_CONTROL_MAX);
	struct proxy_control message;

	while (!proxy->certificate) {
		if (receive(proxy, buffer, READY_TIMEOUT_MS, &message, problem) < 0)
			return -1;
		if (message.type == PROXY_CONTROL_READY)
			return read_certificate(proxy, message.text, problem);
		if (message.type != PROXY_CONTROL_PLACEHOLDER)
			return fail(proxy, "sent a message out of order", problem);
		text_list_take(&proxy->placeholders,
			       text_printf("%s=%s", message.name, message.text));
	}
	return 0;
}

int proxy_daemon_ask(struct proxy_daemon *proxy, enum proxy_control_type type, const char *text,
		     char **ret_text, struct problem *problem)
{
	cleanup_free uint8_t *buffer = allocate(1, PROXY_CONTROL_MAX);
	const struct proxy_control question = { .type = type, .text = text };
	struct proxy_control answer;
	size_t length = proxy_control_encode(buffer, PROXY_CONTROL_MAX, &question);

	if (length == 0)
		return problem_set(problem, STATUS_USAGE, "the pattern is too long");
	if (proxy->control < 0 ||
	    send(proxy->control, buffer, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return fail(proxy, "has hung up", problem);
	if (receive(proxy, buffer, ANSWER_TIMEOUT_MS, &answer, problem) < 0)
		return -1;
	if (answer.type != PROXY_CONTROL_RESULT || answer.error > INT32_MAX)
		return fail(proxy, "sent a message out of order", problem);
	*ret_text = text_copy(answer.text);
	return (int)answer.error;
}

/* ---- ending ----------------------------------------------------------------------------- */

void proxy_daemon_finish(struct proxy_daemon *proxy)
{
	if (proxy->control >= 0)
		close(proxy->control);
	proxy->control = -1;
}

void proxy_daemon_release(struct proxy_daemon *proxy)
{
	proxy_daemon_finish(proxy);
	child_kill(&proxy->child);
	child_close(&proxy->child);
	free(proxy->certificate);
	text_list_free(&proxy->placeholders);
	*proxy = (struct proxy_daemon)PROXY_DAEMON_INIT;
}

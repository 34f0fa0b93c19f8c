/*
 * guest-init: the guest's first process.
 *
 * Theory of operation
 *
 * Every step that is not needed to reach the host comes after the host has been reached, so that
 * both sides work at the same time: the modules up to vsock, dial, READY; then, while the host
 * prepares CONFIG, loopback and the modules for files and for devices that are there. (A guest that
 * is to be stored for later ones does all of these before it dials, since they are the same in each
 * of them, has itself stored, and goes on as they will.) With CONFIG
 * the file daemon starts first, for it has the longest way, and clock and entropy are set
 * meanwhile. Then the root is put together, processors that wait for it are started, CONFIGURED is
 * sent, and the exec server runs until the host says SHUTDOWN or is gone.
 *
 * The file daemon, guest-fused, is this same program by another name. What the two have in common,
 * the C library above all, is read into memory once, and where the guest is emulated it is
 * translated once: the emulator knows code by the page of memory that it is in.
 *
 * Whatever happens ends in a power-off: a guest without its host has nothing to do. What went
 * wrong is told to the host as FAILED, and on the console.
 */
#include "base/checked.h"
#include "base/cleanup.h"
#include "guest-fused/daemon.h"
#include "guest-init/control.h"
#include "guest-init/egress.h"
#include "guest-init/exec_server.h"
#include "guest-init/failure.h"
#include "guest-init/file_daemon.h"
#include "guest-init/guest_root.h"
#include "guest-init/home_files.h"
#include "guest-init/machine.h"
#include "guest-init/modules.h"
#include "guest-init/trust_store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define HANGUP_WAIT_MS 2000
/* The module after which the host can be dialled. */
#define LAST_MODULE_TO_HOST "-vmw_vsock_virtio_transport.ko"

struct guest {
	struct control control;
	struct failure failure;
	struct module_list modules;
	bool prepared;
	struct file_daemon daemon;
	struct egress egress;
	struct agent_config config;
	uint8_t *config_payload; /* `config` borrows from it */
};

static void prepare_process(void)
{
	sigset_t blocked;

	/* The exec server reads SIGCHLD from a descriptor. Children start with clean masks. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
}

/* What needs nothing of the host, and all of it is the same in every session. */
static int prepare_guest(struct guest *guest)
{
	int result = machine_bring_up_loopback(&guest->failure);

	if (result == 0)
		result = module_list_load(&guest->modules, NULL, &guest->failure);
	module_list_close(&guest->modules);
	return result == 0 ? module_load_devices(&guest->failure) : result;
}

/* The modules that a dial needs; and where later guests go on from, from which moment on two guests
 * differ. */
static int prepare_to_dial(struct guest *guest)
{
	int result = module_list_open(&guest->modules, &guest->failure);

	if (result == 0)
		result = module_list_load(&guest->modules, LAST_MODULE_TO_HOST, &guest->failure);
	if (result < 0 || !machine_may_be_stored())
		return result;
	result = guest_root_early(&guest->failure);
	if (result == 0)
		result = prepare_guest(guest);
	if (result == 0)
		machine_store();
	guest->prepared = true;
	return result;
}

static int reach_host(struct guest *guest)
{
	struct agent_ready ready = { .version = AGENT_VERSION };
	struct utsname system;
	cleanup_fd int connection = -1;
	uint8_t frame[512];
	int result;

	result = prepare_to_dial(guest);
	if (result < 0)
		return result;
	result = connection = machine_dial(AGENT_CONTROL_PORT);
	/* The host is answering meanwhile. */
	if (result >= 0 && !guest->prepared && guest_root_early(&guest->failure) < 0)
		return -EIO;
	if (result >= 0)
		result = machine_dial_wait(connection);
	if (result >= 0)
		result = control_init(&guest->control, steal_fd(&connection));
	if (result < 0)
		return failure_set(&guest->failure, "vsock", -result, "cannot reach the host");
	uname(&system);
	ready.uptime_ns = machine_uptime_ns();
	ready.kernel = system.release;
	result = control_send(&guest->control, frame,
			      agent_encode_ready(frame, sizeof(frame), &ready));
	if (result < 0)
		return failure_set(&guest->failure, "vsock", -result, "cannot talk to the host");
	return 0;
}

static int receive_config(struct guest *guest)
{
	struct agent_header header;
	const uint8_t *payload;
	int result = control_receive(&guest->control, &header, &payload);

	if (result < 0)
		return failure_set(&guest->failure, "vsock", -result, "lost the host");
	if (header.type != AGENT_CONFIG)
		return failure_set(&guest->failure, "configuration", 0,
				   "expected CONFIG, not a frame of type %u", header.type);
	guest->config_payload = malloc(header.length + 1);
	if (!guest->config_payload)
		return failure_set(&guest->failure, "configuration", ENOMEM, "out of memory");
	memcpy(guest->config_payload, payload, header.length);
	if (agent_decode_config(guest->config_payload, header.length, &guest->config) < 0)
		return failure_set(&guest->failure, "configuration", 0, "CONFIG is malformed");
	return 0;
}

/* What a guest with a network has more; the process sets up while the root is put together. */
static int connect_network(struct guest *guest)
{
	const struct agent_config *config = &guest->config;
	int result;

	if (!(config->flags & AGENT_CONFIG_NETWORK))
		return 0;
	result = trust_store_add(config->certificate, config->certificate_hash, &guest->failure);
	return result == 0 ? egress_wait(&guest->egress, &guest->failure) : result;
}

static int configure(struct guest *guest)
{
	struct agent_configured configured;
	uint8_t frame[64];
	int result;

	result = file_daemon_start(&guest->daemon, &guest->config, &guest->failure);
	if (result == 0)
		result = machine_configure(&guest->config, &guest->failure);
	if (result == 0 && (guest->config.flags & AGENT_CONFIG_NETWORK))
		result = egress_start(&guest->egress, &guest->failure);
	if (result == 0)
		result = guest_root_assemble(&guest->config, &guest->daemon, &guest->failure);
	if (result == 0)
		result = home_files_write(&guest->config, &guest->failure);
	if (result == 0)
		result = connect_network(guest);
	if (result == 0)
		result = machine_start_processors(&guest->failure);
	if (result < 0)
		return result;
	configured.uptime_ns = machine_uptime_ns();
	result = control_send(&guest->control, frame,
			      agent_encode_configured(frame, sizeof(frame), &configured));
	if (result < 0)
		return failure_set(&guest->failure, "vsock", -result, "cannot talk to the host");
	return 0;
}

static int dial(void *context, unsigned port)
{
	(void)context;
	return machine_dial(port);
}

static void network_ended(struct guest *guest)
{
	const struct agent_notice notice = {
		.text = "the guest's network process ended; nothing can be reached any more",
	};
	uint8_t frame[256];

	egress_ended(&guest->egress);
	control_send(&guest->control, frame, agent_encode_notice(frame, sizeof(frame), &notice));
}

/* Orphans are reaped and forgotten; the file daemon's end is the guest's. */
static int child_ended(void *context, pid_t pid, int status)
{
	struct guest *guest = context;

	if (pid == guest->egress.pid)
		network_ended(guest);
	if (pid != guest->daemon.pid)
		return 0;
	guest->daemon.pid = -1;
	return failure_set(&guest->failure, "guest-fused", 0,
			   "it ended with %s %d: the workspace is not reachable any more",
			   WIFSIGNALED(status) ? "signal" : "status",
			   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static int serve(struct guest *guest)
{
	cleanup_fd int cgroups = open("/sys/fs/cgroup", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct exec_server_options options = {
		.control = &guest->control,
		.dial = dial,
		.on_child = child_ended,
		.context = guest,
		.cgroup_root = cgroups,
	};
	int result = exec_server_run(&options);

	if (result == -EBADMSG)
		failure_set(&guest->failure, "protocol", 0, "the host sent a malformed frame");
	else if (result < 0 && result != -ECONNRESET)
		failure_set(&guest->failure, "exec", -result, "the exec server ended");
	return result;
}

static int live(struct guest *guest)
{
	int result = reach_host(guest);

	/* The host is preparing CONFIG meanwhile. */
	if (result == 0 && !guest->prepared)
		result = prepare_guest(guest);
	if (result == 0)
		result = receive_config(guest);
	if (result == 0)
		result = configure(guest);
	if (result == 0)
		result = serve(guest);
	return result;
}

static void report(struct guest *guest)
{
	struct agent_failed failed = { .error = (uint32_t)guest->failure.error,
				       .stage = guest->failure.stage,
				       .text = guest->failure.text };
	uint8_t frame[2048];

	if (!guest->failure.stage)
		return;
	fprintf(stderr, "guest-init: %s: %s (%s)\n", failed.stage, failed.text,
		strerror(guest->failure.error));
	if (guest->control.fd >= 0)
		control_send(&guest->control, frame,
			     agent_encode_failed(frame, sizeof(frame), &failed));
}

/* Gives the host some time to read what was sent: it hangs up when it has. */
static void wait_for_hangup(struct guest *guest)
{
	struct pollfd poll_fd = { .fd = guest->control.fd, .events = POLLIN };

	if (guest->control.fd < 0 || !guest->failure.stage)
		return;
	control_flush(&guest->control);
	shutdown(guest->control.fd, SHUT_WR);
	poll(&poll_fd, 1, HANGUP_WAIT_MS);
}

/* The kernel does not wait for all that it has handed to guest-fused: while it turns itself off,
 * the last of it reaches the host. */
static bool has_writable_export(const struct agent_config *config)
{
	for (size_t i = 0; i < config->mount_count; i++) {
		if (config->mounts[i].kind == AGENT_MOUNT_EXPORT &&
		    (config->mounts[i].flags & AGENT_MOUNT_READ_ONLY) == 0)
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	static struct guest guest = { .control = { .fd = -1 },
				      .daemon = { .pid = -1 },
				      .egress = { .pid = -1, .ready_fd = -1 } };
	int result;

	if (argc > 0 && strcmp(argv[0], FUSED_NAME) == 0)
		return fused_main(argc, argv);
	if (getpid() != 1) {
		fprintf(stderr, "guest-init is the first process of a guest and does nothing "
				"elsewhere\n");
		return 2;
	}
	prepare_process();
	result = live(&guest);
	report(&guest);
	if (result == 0) {
		/* Asked for: nothing written may be lost. */
		sync();
		guest_root_unmount_exports(&guest.config);
	}
	wait_for_hangup(&guest);
	machine_power_off(result == 0 && !has_writable_export(&guest.config));
}

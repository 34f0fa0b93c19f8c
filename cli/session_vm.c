#include "cli/session_vm.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/canary_files.h"
#include "cli/client_certificates.h"
#include "cli/port_forward.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* How the VMM names an end that is KVM's own. */
#define KVM_CANNOT "kvm-internal-error"
/* An emulated guest on a busy host takes long; one that hangs should still end some day. */
#define READY_TIMEOUT_MS 180000
/* One that goes on from a snapshot needs a part of a second, and there is another way. */
#define GO_ON_TIMEOUT_MS 20000
#define CONFIGURE_TIMEOUT_MS 120000
#define POWER_OFF_TIMEOUT_MS 20000
#define FILES_TIMEOUT_MS 120000 /* the undo log's last fsync */
#define AUDIT_TIMEOUT_MS 60000
#define PROXY_TIMEOUT_MS 10000
#define FORWARDER_TIMEOUT_MS 2000
#define GUEST_CID "3"

/* Who writes to the log: the file server, this process, the VMM, and the broker if there is one. */
#define SOURCES 5

static const char *const verbosity_flags[] = { "-q", NULL, "-v", "--debug" };

static void close_and_forget(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* What only another start of the VMM would need. */
static void drop_spares(struct session_vm *vm)
{
	memory_window_close(&vm->memory);
	close_and_forget(&vm->vmm_audit);
	close_and_forget(&vm->spare_control_listen);
	close_and_forget(&vm->spare_stream_listen);
	start_snapshot_close(&vm->snapshot);
}

void session_vm_tell(struct session_vm *vm)
{
	int error = vm->audit_socket < 0 ? 0 : audit_event_send(&vm->event, vm->audit_socket);

	/* A log that is gone ends the session by way of its process; nothing to add here. */
	if (error)
		log_debug("audit: %s", strerror(-error));
}

void session_vm_pass_on(struct session_vm *vm, const void *event, size_t length)
{
	if (vm->audit_socket >= 0 && send(vm->audit_socket, event, length, MSG_NOSIGNAL) < 0)
		log_debug("audit: %s", strerror(errno));
}

/* ---- starting --------------------------------------------------------------------------- */

static void add_snapshot(const struct session_vm *vm, struct text_list *arguments)
{
	if (vm->snapshot.stored >= 0)
		argument_number(arguments, "--snapshot", vm->snapshot.stored);
	if (vm->snapshot.fresh >= 0)
		argument_number(arguments, "--new-snapshot", vm->snapshot.fresh);
}

static int start_vmm(struct session_vm *vm, const struct plan *plan,
		     const struct run_options *options, const struct paths *paths,
		     const struct guest_kernel *kernel, const char *engine, struct problem *problem)
{
	const struct memory_window *memory = &vm->memory;
	cleanup_list struct text_list arguments = { 0 };
	cleanup_free char *console_path = text_printf("%s/console.log", vm->files.directory);
	cleanup_fd int console_fd =
		open(console_path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	cleanup_fd int control_fd = -1;

	if (console_fd < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot make %s: %s", console_path,
				   strerror(errno));
	if (make_pair(SOCK_SEQPACKET, &vm->vmm_control, &control_fd, problem) < 0)
		return -1;
	text_list_add(&arguments, "matchlock-vmm");
	argument_text(&arguments, "--engine", engine);
	argument_text(&arguments, "--kernel", kernel->vmlinux);
	argument_text(&arguments, "--initrd", kernel->initrd);
	argument_number(&arguments, "--cpus", plan->cpus);
	argument_number(&arguments, "--memory", plan->memory_mib);
	if (plan->huge_pages)
		text_list_add(&arguments, "--huge-pages");
	argument_number(&arguments, "--memory-fd", memory->fd);
	if (memory->size > 0) {
		argument_number(&arguments, "--doorbell-fd", memory->doorbell_engine);
		text_list_add(&arguments, "--window");
		text_list_take(&arguments,
			       text_printf("%#llx:%#llx", (unsigned long long)memory->address,
					   (unsigned long long)memory->size));
	}
	argument_text(&arguments, "--cid", GUEST_CID);
	argument_text(&arguments, "--socket-base", vm->files.socket_base);
	argument_number(&arguments, "--audit-fd", vm->vmm_audit);
	argument_number(&arguments, "--control-fd", control_fd);
	argument_number(&arguments, "--console-fd", console_fd);
	add_snapshot(vm, &arguments);

	const int kept[] = {
		vm->vmm_audit,		 control_fd,	      console_fd,	 memory->fd,
		memory->doorbell_engine, vm->snapshot.stored, vm->snapshot.fresh
	};

	return child_start_daemon(&vm->vmm, paths, "matchlock-vmm", &arguments,
				  verbosity_flags[options->verbosity], kept, ARRAY_LENGTH(kept),
				  problem);
}

static int start_fsserver(struct session_vm *vm, const struct run_options *options,
			  const struct paths *paths, int audit_fd, struct problem *problem)
{
	const struct memory_window *memory = &vm->memory;
	cleanup_list struct text_list arguments = { 0 };
	cleanup_fd int config_fd = open(vm->files.config, O_RDONLY | O_CLOEXEC);
	cleanup_fd int control_fd = -1;

	if (config_fd < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot open %s: %s", vm->files.config,
				   strerror(errno));
	if (make_pair(SOCK_STREAM, &vm->fsserver_control, &control_fd, problem) < 0)
		return -1;
	text_list_add(&arguments, "matchlock-fsserver");
	text_list_add(&arguments, "serve");
	argument_number(&arguments, "--config-fd", config_fd);
	argument_number(&arguments, "--listen-fd", vm->files.files_listen);
	argument_number(&arguments, "--control-fd", control_fd);
	argument_number(&arguments, "--audit-fd", audit_fd);
	if (memory->size > 0) {
		argument_number(&arguments, "--doorbell-fd", memory->doorbell_server);
		text_list_add(&arguments, "--window");
		text_list_take(&arguments, text_printf("%d:%#llx:%#llx", memory->fd,
						       (unsigned long long)memory->address,
						       (unsigned long long)memory->size));
	}
	return child_start_daemon(&vm->fsserver, paths, "matchlock-fsserver", &arguments,
				  verbosity_flags[options->verbosity],
				  (const int[]){ config_fd, vm->files.files_listen, control_fd,
						 audit_fd, memory->fd, memory->doorbell_server },
				  memory->size > 0 ? 6 : 4, problem);
}

static int start_audit(struct session_vm *vm, const struct plan *plan,
		       const struct run_options *options, const struct paths *paths,
		       const int *sources, size_t source_count, struct problem *problem)
{
	cleanup_list struct text_list arguments = { 0 };
	int kept[1 + SOURCES];
	size_t count = 0;
	cleanup_fd int directory_fd =
		open(vm->files.directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (directory_fd < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot open %s: %s",
				   vm->files.directory, strerror(errno));
	text_list_add(&arguments, "matchlock-audit");
	text_list_add(&arguments, "serve");
	argument_number(&arguments, "--directory-fd", directory_fd);
	kept[count++] = directory_fd;
	for (size_t i = 0; i < source_count; i++) {
		if (sources[i] < 0)
			continue;
		kept[count++] = sources[i];
		argument_number(&arguments, "--source-fd", sources[i]);
	}
	text_list_add(&arguments, "--policy-first");
	argument_text(&arguments, "--session", plan->id);
	return child_start_daemon(&vm->audit, paths, "matchlock-audit", &arguments,
				  verbosity_flags[options->verbosity], kept, count, problem);
}

static int start_proxy(struct session_vm *vm, const struct plan *plan,
		       const struct run_options *options, const struct paths *paths, int audit_fd,
		       struct problem *problem)
{
	const struct proxy_sockets sockets = {
		.streams = vm->files.egress_listen,
		.queries = vm->files.dns_listen,
		.audit = audit_fd,
		.secrets = vm->secrets_fd,
	};

	int result = proxy_daemon_start(&vm->proxy, plan, options, paths, &sockets, problem);

	close_and_forget(&vm->secrets_fd);
	return result;
}

/* Before the VM starts: a port that is taken is told at once. */
static int start_forwarder(struct session_vm *vm, const struct run_options *options,
			   const struct paths *paths, int *ret_audit, struct problem *problem)
{
	const struct network_options *network = &options->network;
	cleanup_list struct text_list arguments = { 0 };
	cleanup_fd int audit_fd = -1;
	cleanup_fd int end_fd = -1;
	int fds[NETWORK_FORWARDS_MAX + 2];
	size_t count = 0;
	int result = 0;

	if (network->forward_count == 0)
		return 0;
	if (make_pair(SOCK_SEQPACKET, ret_audit, &audit_fd, problem) < 0 ||
	    make_pair(SOCK_SEQPACKET, &vm->forwarder_end, &end_fd, problem) < 0)
		return -1;
	text_list_add(&arguments, "matchlock");
	text_list_add(&arguments, "port-forward");
	argument_text(&arguments, "--base", vm->files.socket_base);
	for (; result == 0 && count < network->forward_count; count++) {
		fds[count] = port_forward_listen(&network->forwards[count], problem);
		if (fds[count] < 0) {
			result = -1;
			break;
		}
		text_list_add(&arguments, "--listen-fd");
		text_list_take(&arguments, text_printf("%d:%u", fds[count],
						       network->forwards[count].guest_port));
	}
	argument_number(&arguments, "--audit-fd", audit_fd);
	argument_number(&arguments, "--end-fd", end_fd);
	fds[count] = audit_fd;
	fds[count + 1] = end_fd;
	if (result == 0)
		result = child_start_daemon(&vm->forwarder, paths, "matchlock", &arguments, NULL,
					    fds, count + 2, problem);
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
	return result;
}

static int watch(struct session_vm *vm, int fd, struct problem *problem)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (fd >= 0 && epoll_ctl(vm->watch_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot watch a descriptor: %s",
				   strerror(errno));
	return 0;
}

static int begin_watching(struct session_vm *vm, struct problem *problem)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGQUIT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	vm->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	vm->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (vm->watch_fd < 0 || vm->signal_fd < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot watch for signals: %s",
				   strerror(errno));
	return watch(vm, vm->signal_fd, problem);
}

/* Once the engine is known, and before the guest can touch a file. */
static void tell_start(struct session_vm *vm, const struct plan *plan,
		       const struct run_options *options)
{
	cleanup_free char *command = quote_command(options->command.items);
	const struct plan_export *workspace = plan_workspace(plan);

	audit_event_begin(&vm->event, AUDIT_SESSION_START);
	audit_event_text(&vm->event, AUDIT_FIELD_SESSION, plan->id);
	audit_event_text(&vm->event, AUDIT_FIELD_COMMAND, command);
	audit_event_text(&vm->event, AUDIT_FIELD_WORKSPACE, workspace ? workspace->host : NULL);
	audit_event_text(&vm->event, AUDIT_FIELD_ENGINE, vm->engine[0] ? vm->engine : plan->engine);
	audit_event_text(&vm->event, AUDIT_FIELD_IMAGE, plan->exports[0].host);
	audit_event_text(&vm->event, AUDIT_FIELD_USER, plan->user.name);
	session_vm_tell(vm);
}

static void tell_forwards(struct session_vm *vm, const struct run_options *options)
{
	for (size_t i = 0; i < options->network.forward_count; i++) {
		const struct port_forward *forward = &options->network.forwards[i];
		cleanup_free char *rule = text_printf("%s:%u:%u", forward->address,
						      forward->host_port, forward->guest_port);

		audit_event_begin(&vm->event, AUDIT_GRANT);
		audit_event_text(&vm->event, AUDIT_FIELD_OPERATION, "forward");
		audit_event_text(&vm->event, AUDIT_FIELD_RULE, rule);
		session_vm_tell(vm);
	}
}

static int start_daemons(struct session_vm *vm, const struct plan *plan,
			 const struct run_options *options, const struct paths *paths,
			 const struct guest_kernel *kernel, struct session_record *record,
			 struct problem *problem)
{
	int sources[SOURCES] = { -1, -1, -1, -1, -1 };
	size_t source_count = SOURCES;
	int fsserver_audit = -1;
	int proxy_audit = -1;
	int result = -1;

	/* The file server comes first: the log opens with the policy that it tells. */
	if (make_pair(SOCK_SEQPACKET, &sources[0], &fsserver_audit, problem) < 0 ||
	    make_pair(SOCK_SEQPACKET, &sources[1], &vm->audit_socket, problem) < 0 ||
	    make_pair(SOCK_SEQPACKET, &sources[2], &vm->vmm_audit, problem) < 0)
		goto out;
	if (plan->has_network && make_pair(SOCK_SEQPACKET, &sources[3], &proxy_audit, problem) < 0)
		goto out;
	if (start_forwarder(vm, options, paths, &sources[4], problem) < 0)
		goto out;
	if (memory_window_make(plan->memory_mib, &vm->memory, problem) < 0 ||
	    start_vmm(vm, plan, options, paths, kernel, plan->engine, problem) < 0)
		goto out;
	if (session_files_complete(&vm->files, plan, options, paths, problem) < 0 ||
	    start_audit(vm, plan, options, paths, sources, source_count, problem) < 0 ||
	    start_fsserver(vm, options, paths, fsserver_audit, problem) < 0)
		goto out;
	if (plan->has_network && start_proxy(vm, plan, options, paths, proxy_audit, problem) < 0)
		goto out;
	session_record_add_process(record, "vmm", vm->vmm.pid);
	session_record_add_process(record, "audit", vm->audit.pid);
	session_record_add_process(record, "fsserver", vm->fsserver.pid);
	if (plan->has_network)
		session_record_add_process(record, "proxy", vm->proxy.child.pid);
	if (vm->forwarder.pid)
		session_record_add_process(record, "forwarder", vm->forwarder.pid);
	if (session_record_save(paths, record, problem) < 0 ||
	    watch(vm, vm->vmm.pidfd, problem) < 0 || watch(vm, vm->audit.pidfd, problem) < 0 ||
	    watch(vm, vm->fsserver.pidfd, problem) < 0 ||
	    watch(vm, vm->proxy.child.pidfd, problem) < 0 ||
	    watch(vm, vm->forwarder.pidfd, problem) < 0)
		goto out;
	result = 0;
out:
	for (size_t i = 0; i < ARRAY_LENGTH(sources); i++)
		close_and_forget(&sources[i]);
	close_and_forget(&fsserver_audit);
	close_and_forget(&proxy_audit);
	close_and_forget(&vm->files.files_listen);
	close_and_forget(&vm->files.egress_listen);
	close_and_forget(&vm->files.dns_listen);
	return result;
}

/* ---- the guest -------------------------------------------------------------------------- */

static void add_mount(struct agent_config *config, const struct plan_export *export)
{
	config->mounts[config->mount_count++] = (struct agent_mount){
		.kind = export->profile == PLAN_PROFILE_IMAGE ? AGENT_MOUNT_IMAGE
							      : AGENT_MOUNT_EXPORT,
		.flags = (export->read_only ? AGENT_MOUNT_READ_ONLY : 0) |
			 (export->tree ? AGENT_MOUNT_FILE : 0),
		.export_id = export->id,
		.target = export->guest,
		.options = "",
	};
}

static void fill_config(const struct session_vm *vm, const struct plan *plan,
			struct agent_config *config)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	config->clock_seconds = now.tv_sec;
	config->clock_nanoseconds = (uint32_t)now.tv_nsec;
	config->flags = plan->has_network ? AGENT_CONFIG_NETWORK : AGENT_CONFIG_NO_NETWORK;
	config->certificate = plan->has_network ? vm->proxy.certificate : "";
	config->certificate_hash = vm->proxy.certificate_hash;
	config->uid = plan->user.uid;
	config->gid = plan->user.gid;
	config->user = plan->user.name;
	config->group = plan->user.group;
	config->home = plan->user.home;
	config->hostname = plan->hostname;
	config->time_zone = plan->time_zone;
	while (getrandom(config->entropy, sizeof(config->entropy), 0) !=
	       (ssize_t)sizeof(config->entropy))
		continue;
	for (size_t i = 0; i < plan->export_count; i++) {
		add_mount(config, &plan->exports[i]);
		if (i == 0 && plan->home_is_empty)
			config->mounts[config->mount_count++] = (struct agent_mount){
				.kind = AGENT_MOUNT_TMPFS,
				.mode = 0700,
				.uid = plan->user.uid,
				.gid = plan->user.gid,
				.target = plan->user.home,
				.options = "",
			};
	}
}

static void pass_on_notice(void *context, const char *text)
{
	(void)context;
	log_info("guest: %s", text);
}

/* "restored" or "stored", "started ENGINE" and "end REASON: DETAILS", one datagram each. */
static void read_vmm_control(struct session_vm *vm)
{
	char text[512];
	ssize_t count;

	while (vm->vmm_control >= 0 &&
	       (count = recv(vm->vmm_control, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
		text[count] = '\0';
		if (strncmp(text, "started ", 8) == 0)
			snprintf(vm->engine, sizeof(vm->engine), "%.15s", text + 8);
		else if (strncmp(text, "end ", 4) == 0)
			snprintf(vm->vmm_end, sizeof(vm->vmm_end), "%s", text + 4);
		else if (strcmp(text, "restored") == 0)
			vm->restored = true;
		else if (strcmp(text, "stored") == 0)
			vm->stored = true;
	}
}

static void read_signal(struct session_vm *vm)
{
	struct signalfd_siginfo information;

	if (vm->signal_fd >= 0 &&
	    read(vm->signal_fd, &information, sizeof(information)) == sizeof(information))
		vm->signal_number = (int)information.ssi_signo;
}

const char *session_vm_engine(struct session_vm *vm)
{
	read_vmm_control(vm);
	return vm->engine;
}

char *session_vm_casualty(struct session_vm *vm)
{
	cleanup_free char *end = NULL;

	read_vmm_control(vm);
	/* In the order of who would drag the others along. */
	if (vm->audit.pid && child_poll(&vm->audit)) {
		end = child_end_text(&vm->audit);
		return text_printf("the audit process (matchlock-audit) ended with %s, and nothing "
				   "runs without a log",
				   end);
	}
	if (vm->fsserver.pid && child_poll(&vm->fsserver)) {
		end = child_end_text(&vm->fsserver);
		return text_printf("the file server (matchlock-fsserver) ended with %s", end);
	}
	if (vm->proxy.child.pid && child_poll(&vm->proxy.child)) {
		end = child_end_text(&vm->proxy.child);
		return text_printf("the broker of the network (matchlock-proxy) ended with %s",
				   end);
	}
	if (vm->forwarder.pid && child_poll(&vm->forwarder)) {
		end = child_end_text(&vm->forwarder);
		return text_printf("the process of forwarded ports (matchlock port-forward) ended "
				   "with %s",
				   end);
	}
	if (vm->vmm.pid && child_poll(&vm->vmm)) {
		end = child_end_text(&vm->vmm);
		return text_printf("the virtual machine (matchlock-vmm) ended with %s%s%s", end,
				   vm->vmm_end[0] ? ": " : "", vm->vmm_end);
	}
	return NULL;
}

static bool vmm_ended_with(const struct session_vm *vm, const char *reason)
{
	return strncmp(vm->vmm_end, reason, strlen(reason)) == 0;
}

/* Why waiting for the guest failed, best reason first. */
static int boot_problem(struct session_vm *vm, int error, struct problem *problem)
{
	cleanup_free char *casualty = NULL;

	read_signal(vm);
	if (vm->signal_number)
		return problem_set(problem, 128 + vm->signal_number,
				   "stopped by %s before the command started",
				   strsignal(vm->signal_number));
	/* What a daemon said on standard error comes before its end is seen. */
	if (error == -ECONNRESET)
		child_wait(&vm->vmm, 1000);
	casualty = session_vm_casualty(vm);
	return problem_set(
		problem, STATUS_SANDBOX,
		"the guest did not come up: %s\nits console is in %s/console.log%s",
		casualty && error != -EREMOTEIO ? casualty : agent_client_error(vm->client),
		vm->files.directory,
		vmm_ended_with(vm, KVM_CANNOT) ? "\n--engine qemu runs it in software; matchlock "
						 "doctor says what is wrong with KVM here"
					       : "");
}

static int make_client(struct session_vm *vm, int *control_listen, int *stream_listen,
		       struct problem *problem)
{
	int error =
		agent_client_create(steal_fd(control_listen), steal_fd(stream_listen), &vm->client);

	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX, "cannot wait for the guest: %s",
				   strerror(-error));
	agent_client_on_notice(vm->client, pass_on_notice, NULL);
	return 0;
}

static int make_spare_client(struct session_vm *vm, struct problem *problem)
{
	int control_listen = fcntl(vm->spare_control_listen, F_DUPFD_CLOEXEC, 0);
	int stream_listen = fcntl(vm->spare_stream_listen, F_DUPFD_CLOEXEC, 0);

	return make_client(vm, &control_listen, &stream_listen, problem);
}

/* Ends the VM from outside, whatever the guest does. */
static void end_vmm(struct session_vm *vm)
{
	close_and_forget(&vm->vmm_control);
	if (!child_wait(&vm->vmm, 2000))
		child_kill(&vm->vmm);
}

/* What a guest that did not come up is started again with: the engine, or NULL when the session has
 * failed. One that sleeps to be stored goes on from there. */
static const char *next_engine(struct session_vm *vm, const struct plan *plan)
{
	if (vm->spare_control_listen < 0 || vm->signal_number || !child_wait(&vm->vmm, 1000))
		return NULL;
	read_signal(vm);
	read_vmm_control(vm);
	if (vm->signal_number)
		return NULL;
	if (vmm_ended_with(vm, "asleep")) {
		if (vm->stored)
			start_snapshot_turn(&vm->snapshot);
		else
			start_snapshot_close(&vm->snapshot);
		return plan->engine;
	}
	start_snapshot_close(&vm->snapshot);
	if (strcmp(plan->engine, "auto") == 0 && vmm_ended_with(vm, KVM_CANNOT)) {
		log_warning("KVM cannot run this guest (%s); starting it again in software, the "
			    "weaker boundary; --engine qemu does so at once",
			    vm->vmm_end);
		return "qemu";
	}
	if (!vm->restored)
		return NULL;
	log_warning("the guest did not go on from its snapshot (%s); starting it afresh",
		    vm->vmm_end);
	return plan->engine;
}

static int start_again(struct session_vm *vm, const struct plan *plan,
		       const struct run_options *options, const struct paths *paths,
		       const struct guest_kernel *kernel, const char *engine,
		       struct session_record *record, struct problem *problem)
{
	agent_client_destroy(vm->client);
	vm->client = NULL;
	epoll_ctl(vm->watch_fd, EPOLL_CTL_DEL, vm->vmm.pidfd, NULL);
	child_close(&vm->vmm);
	vm->vmm = (struct child)CHILD_INIT("vmm");
	close_and_forget(&vm->vmm_control);
	vm->vmm_end[0] = '\0';
	vm->engine[0] = '\0';
	vm->restored = vm->stored = false;
	(void)unlink(vm->files.socket_base);
	if (make_spare_client(vm, problem) < 0 ||
	    start_vmm(vm, plan, options, paths, kernel, engine, problem) < 0)
		return -1;
	session_record_add_process(record, "vmm", vm->vmm.pid);
	if (session_record_save(paths, record, problem) < 0)
		return -1;
	return watch(vm, vm->vmm.pidfd, problem);
}

/* The guest has reached this process, and nothing else has reached the guest. What the VMM stored
 * it stored before that, or it does not count. */
static void settle_snapshot(struct session_vm *vm, int error)
{
	read_signal(vm);
	read_vmm_control(vm);
	if (error == 0 && vm->stored)
		start_snapshot_keep(&vm->snapshot);
	else if (error < 0 && vm->restored && !vm->signal_number)
		start_snapshot_drop(&vm->snapshot);
}

/* As agent_client_wait_ready(). A guest that went on from a snapshot and does nothing counts as one
 * that ended. */
static int await_ready(struct session_vm *vm, struct agent_client_ready *ret_ready)
{
	bool may_go_on = vm->snapshot.stored >= 0;
	int error =
		agent_client_wait_ready(vm->client, vm->watch_fd,
					may_go_on ? GO_ON_TIMEOUT_MS : READY_TIMEOUT_MS, ret_ready);

	if (error != -ETIMEDOUT || !may_go_on)
		return error;
	read_vmm_control(vm);
	if (!vm->restored)
		return agent_client_wait_ready(vm->client, vm->watch_fd, READY_TIMEOUT_MS,
					       ret_ready);
	snprintf(vm->vmm_end, sizeof(vm->vmm_end), "nothing was heard of it for %d s",
		 GO_ON_TIMEOUT_MS / 1000);
	end_vmm(vm);
	return -ECONNRESET;
}

static int await_guest(struct session_vm *vm, const struct plan *plan,
		       const struct run_options *options, const struct paths *paths,
		       const struct guest_kernel *kernel, struct session_record *record,
		       struct problem *problem)
{
	struct agent_client_ready ready = { 0 };
	const char *engine;
	int error;

	vm->spare_control_listen = fcntl(vm->files.control_listen, F_DUPFD_CLOEXEC, 0);
	vm->spare_stream_listen = fcntl(vm->files.stream_listen, F_DUPFD_CLOEXEC, 0);
	if (make_client(vm, &vm->files.control_listen, &vm->files.stream_listen, problem) < 0)
		return -1;
	error = await_ready(vm, &ready);
	settle_snapshot(vm, error);
	/* Once to sleep, once to be woken, once more when that fails. */
	while (error == -ECONNRESET && (engine = next_engine(vm, plan)) != NULL) {
		if (start_again(vm, plan, options, paths, kernel, engine, record, problem) < 0)
			return -1;
		error = await_ready(vm, &ready);
		settle_snapshot(vm, error);
	}
	drop_spares(vm);
	if (error < 0)
		return boot_problem(vm, error, problem);
	log_info("the guest runs Linux %s; its agent was ready after %.2f s of guest time%s",
		 ready.kernel, (double)ready.uptime_ns / 1e9,
		 vm->restored ? ", most of them in the guest that it goes on from" : "");
	return 0;
}

static int configure_guest(struct session_vm *vm, const struct plan *plan, struct problem *problem)
{
	cleanup_guest_files struct guest_files files = { 0 };
	cleanup_free struct agent_config *config = NULL;
	int error;

	if (plan->has_network &&
	    (proxy_daemon_wait_ready(&vm->proxy, problem) < 0 ||
	     guest_files_add_trust(&files, plan, vm->proxy.certificate, problem) < 0))
		return -1;
	canary_files_add(&files, plan, &vm->proxy.placeholders);
	config = allocate(1, sizeof(*config));
	fill_config(vm, plan, config);
	guest_files_list(&files, config);
	error = agent_client_configure(vm->client, config, vm->watch_fd, CONFIGURE_TIMEOUT_MS);
	return error < 0 ? boot_problem(vm, error, problem) : 0;
}

int session_vm_start(struct session_vm *vm, const struct plan *plan,
		     const struct run_options *options, const struct paths *paths,
		     struct session_record *record, struct problem *problem)
{
	struct guest_kernel kernel = { 0 };
	int result;

	*vm = (struct session_vm){
		.files = SESSION_FILES_INIT,
		.vmm = CHILD_INIT("vmm"),
		.fsserver = CHILD_INIT("fsserver"),
		.audit = CHILD_INIT("audit"),
		.proxy = PROXY_DAEMON_INIT,
		.forwarder = CHILD_INIT("forwarder"),
		.memory = { .fd = -1, .doorbell_engine = -1, .doorbell_server = -1 },
		.snapshot = START_SNAPSHOT_INIT,
		.vmm_audit = -1,
		.spare_control_listen = -1,
		.spare_stream_listen = -1,
		.vmm_control = -1,
		.fsserver_control = -1,
		.audit_socket = -1,
		.secrets_fd = -1,
		.forwarder_end = -1,
		.watch_fd = -1,
		.signal_fd = -1,
	};
	/* Before any child is there to inherit what the environment holds. */
	if ((options->network.secret_count > 0 || plan->plants_canaries ||
	     client_certificates_are_wanted(plan->egress_rules)) &&
	    secret_options_bundle(options->network.secrets, options->network.secret_count,
				  plan->plants_canaries, plan->egress_rules, &vm->secrets_fd,
				  problem) < 0)
		return -1;
	if (guest_kernel_find(paths, true, &kernel, problem) < 0)
		return -1;
	if (!options->no_snapshot && !plan->huge_pages)
		start_snapshot_open(paths, plan->engine, kernel.trimmed, plan->cpus,
				    plan->memory_mib, &vm->snapshot);
	result = begin_watching(vm, problem);
	if (result == 0)
		result = session_files_begin(&vm->files, paths, plan, problem);
	if (result == 0)
		result = start_daemons(vm, plan, options, paths, &kernel, record, problem);
	if (result == 0)
		result = await_guest(vm, plan, options, paths, &kernel, record, problem);
	guest_kernel_free(&kernel);
	read_vmm_control(vm);
	tell_start(vm, plan, options);
	tell_forwards(vm, options);
	if (result == 0)
		result = configure_guest(vm, plan, problem);
	if (result == 0) {
		/* From now on the command gets the signals; cli/exec_session.h. */
		epoll_ctl(vm->watch_fd, EPOLL_CTL_DEL, vm->signal_fd, NULL);
		close_and_forget(&vm->signal_fd);
	}
	return result;
}

/* ---- ending ----------------------------------------------------------------------------- */

static void stop_guest(struct session_vm *vm, bool orderly)
{
	if (!vm->vmm.pid || vm->vmm.ended)
		return;
	if (orderly && vm->client)
		agent_client_shutdown(vm->client);
	if (!orderly || !child_wait(&vm->vmm, POWER_OFF_TIMEOUT_MS)) {
		if (orderly)
			log_warning("the guest did not power off within %d s and is stopped",
				    POWER_OFF_TIMEOUT_MS / 1000);
		end_vmm(vm);
	}
}

int session_vm_stop(struct session_vm *vm, bool orderly, struct problem *problem)
{
	cleanup_free char *end = NULL;
	bool was_dead = vm->fsserver.pid && child_poll(&vm->fsserver);

	close_and_forget(&vm->forwarder_end);
	if (vm->forwarder.pid && !child_wait(&vm->forwarder, FORWARDER_TIMEOUT_MS))
		child_kill(&vm->forwarder);
	stop_guest(vm, orderly && !was_dead);
	proxy_daemon_finish(&vm->proxy);
	if (vm->proxy.child.pid && !child_wait(&vm->proxy.child, PROXY_TIMEOUT_MS)) {
		log_warning("the broker (matchlock-proxy) did not finish and is killed");
		child_kill(&vm->proxy.child);
	}
	close_and_forget(&vm->fsserver_control);
	if (!vm->fsserver.pid)
		return 0;
	if (!child_wait(&vm->fsserver, FILES_TIMEOUT_MS)) {
		child_kill(&vm->fsserver);
		return problem_set(problem, STATUS_SANDBOX,
				   "the file server did not finish within %d s and was killed; its "
				   "undo log is good up to the last change",
				   FILES_TIMEOUT_MS / 1000);
	}
	if (child_exit_status(&vm->fsserver) == 0)
		return 0;
	end = child_end_text(&vm->fsserver);
	return problem_set(problem, STATUS_SANDBOX,
			   "the file server (matchlock-fsserver) ended with %s", end);
}

int session_vm_end_audit(struct session_vm *vm, struct problem *problem)
{
	cleanup_free char *end = NULL;

	/* The log ends when nobody can write to it any more. */
	drop_spares(vm);
	close_and_forget(&vm->audit_socket);
	if (!vm->audit.pid)
		return 0;
	if (!child_wait(&vm->audit, AUDIT_TIMEOUT_MS)) {
		child_kill(&vm->forwarder);
		child_close(&vm->forwarder);
		proxy_daemon_release(&vm->proxy);
		child_kill(&vm->audit);
		return problem_set(problem, STATUS_SANDBOX,
				   "the audit process did not finish and was killed; the log may "
				   "lack its end");
	}
	if (child_exit_status(&vm->audit) == 0)
		return 0;
	end = child_end_text(&vm->audit);
	return problem_set(problem, STATUS_SANDBOX,
			   "the audit process (matchlock-audit) ended with %s; the log may be "
			   "incomplete",
			   end);
}

void session_vm_release(struct session_vm *vm)
{
	child_kill(&vm->vmm);
	child_kill(&vm->fsserver);
	child_kill(&vm->audit);
	child_close(&vm->vmm);
	child_close(&vm->fsserver);
	child_close(&vm->audit);
	if (vm->client)
		agent_client_destroy(vm->client);
	vm->client = NULL;
	drop_spares(vm);
	close_and_forget(&vm->forwarder_end);
	close_and_forget(&vm->vmm_control);
	close_and_forget(&vm->fsserver_control);
	close_and_forget(&vm->audit_socket);
	close_and_forget(&vm->secrets_fd);
	close_and_forget(&vm->watch_fd);
	close_and_forget(&vm->signal_fd);
	session_files_release(&vm->files);
}

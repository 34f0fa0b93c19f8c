/* `matchlock doctor`: what this machine offers, and how to fix what it lacks. */
#include "base/checked.h"
#include "base/cleanup.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/guest_kernel.h"
#include "cli/launch.h"
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHECKS_MAX 16
#define DISK_WANTED (UINT64_C(2) << 30)
#define DISK_NEEDED (UINT64_C(256) << 20)

enum verdict {
	VERDICT_OK,
	VERDICT_WORSE,	/* works, less well */
	VERDICT_BROKEN, /* `matchlock run` cannot work */
};

struct check {
	const char *name;
	enum verdict verdict;
	char *detail;
	char *fix; /* NULL when there is nothing to fix */
};

struct report {
	struct check checks[CHECKS_MAX];
	size_t count;
};

static void add(struct report *report, const char *name, enum verdict verdict, char *detail,
		const char *fix)
{
	if (report->count == CHECKS_MAX) {
		free(detail);
		return;
	}
	report->checks[report->count++] = (struct check){
		.name = name,
		.verdict = verdict,
		.detail = detail,
		.fix = fix ? text_copy(fix) : NULL,
	};
}

static void check_programs(struct report *report, const struct paths *paths)
{
	static const char *const names[] = { "matchlock-vmm", "matchlock-fsserver",
					     "matchlock-audit", "guest-kernel.sh" };
	struct problem problem;
	cleanup_free char *initramfs = NULL;

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		cleanup_free char *program = find_program(paths, names[i], &problem);

		if (!program) {
			add(report, "programs", VERDICT_BROKEN, text_copy(problem.text),
			    "run `make` in the source tree, or `make install`");
			return;
		}
	}
	initramfs = find_initramfs(paths, &problem);
	if (!initramfs)
		add(report, "programs", VERDICT_BROKEN, text_copy(problem.text),
		    "run `make` in the source tree, or `make install`");
	else
		add(report, "programs", VERDICT_OK, text_copy("all parts are installed"), NULL);
}

/* What the VMM itself finds: the first line that it prints. */
static bool probe_kvm(const struct paths *paths, char **ret_why)
{
	struct problem problem;
	cleanup_free char *program = find_program(paths, "matchlock-vmm", &problem);
	cleanup_list struct text_list arguments = { 0 };
	cleanup_free char *output = NULL;
	int status = 1;

	text_list_add(&arguments, "matchlock-vmm");
	text_list_add(&arguments, "--probe-kvm");
	if (!program ||
	    run_helper(program, arguments.items, 4096, &output, NULL, &status, &problem) < 0 ||
	    !output || !*output) {
		*ret_why = text_copy("matchlock-vmm, which would find out, does not run");
		return false;
	}
	output[strcspn(output, "\n")] = '\0';
	*ret_why = steal_pointer(&output);
	return status == 0;
}

static bool check_kvm(struct report *report, const struct paths *paths)
{
	char *why = NULL;
	bool usable = probe_kvm(paths, &why);
	const char *fix = NULL;

	if (!usable && access("/dev/kvm", F_OK) < 0)
		fix = "enable virtualization in the firmware (or nested virtualization in the "
		      "outer hypervisor) and load kvm_intel or kvm_amd; until then QEMU runs "
		      "guests "
		      "in software";
	else if (!usable && access("/dev/kvm", R_OK | W_OK) < 0)
		fix = "sudo usermod -aG kvm \"$USER\", then log in again";
	else if (!usable)
		fix = "use a host with real KVM; until then QEMU runs guests in software";
	add(report, "kvm", usable ? VERDICT_OK : VERDICT_WORSE, why, fix);
	return usable;
}

static void check_qemu(struct report *report, bool kvm)
{
	cleanup_free char *output = NULL;
	char *arguments[] = { text_copy("qemu-system-x86_64"), text_copy("--version"), NULL };
	struct problem problem;
	const char *program = "/usr/bin/qemu-system-x86_64";
	int status = 1;

	(void)kvm;
	if (run_helper(program, arguments, 4096, &output, NULL, &status, &problem) == 0 &&
	    status == 0 && output) {
		output[strcspn(output, "\n")] = '\0';
		add(report, "qemu", VERDICT_OK, text_copy(output), NULL);
	} else {
		add(report, "qemu", VERDICT_BROKEN,
		    text_printf("%s does not run, and it runs the guest", program),
		    "sudo apt-get install qemu-system-x86");
	}
	free(arguments[0]);
	free(arguments[1]);
}

static void check_kernel(struct report *report, const struct paths *paths)
{
	struct guest_kernel kernel = { 0 };
	struct problem problem;

	if (guest_kernel_find(paths, false, &kernel, &problem) == 0)
		add(report, "guest kernel", VERDICT_OK,
		    text_printf("%s, %s; %s", kernel.trimmed ? "trimmed" : "Debian's",
				kernel.version, kernel.vmlinux),
		    NULL);
	else if (problem.status == STATUS_USAGE)
		add(report, "guest kernel", VERDICT_BROKEN, text_copy(problem.text),
		    "unset MATCHLOCK_KERNEL, or set it to a kernel that is there");
	else
		add(report, "guest kernel", VERDICT_WORSE, text_copy(problem.text),
		    "nothing to do: the first `matchlock run` downloads it (27 MB, by apt-get)");
	guest_kernel_free(&kernel);
}

static void check_isolation(struct report *report)
{
	int namespaces = jail_user_namespaces_allowed();
	int landlock = jail_landlock_abi();

	if (namespaces == 0)
		add(report, "user namespaces", VERDICT_OK, text_copy("allowed"), NULL);
	else
		add(report, "user namespaces", VERDICT_WORSE,
		    text_printf("not allowed (%s): the daemons' jails lack namespaces",
				strerror(-namespaces)),
		    "sudo sysctl -w kernel.unprivileged_userns_clone=1 (on Ubuntu 24.04 and later: "
		    "kernel.apparmor_restrict_unprivileged_userns=0)");
	if (landlock >= 2)
		add(report, "landlock", VERDICT_OK, text_printf("ABI %d", landlock), NULL);
	else if (landlock == 1)
		add(report, "landlock", VERDICT_WORSE,
		    text_copy("ABI 1, too old for a file server (renames): the jails do without"),
		    "use Linux 5.19 or later");
	else
		add(report, "landlock", VERDICT_WORSE,
		    text_copy("not available: the jails do without"),
		    "use Linux 5.19 or later with landlock in CONFIG_LSM, or boot with "
		    "lsm=landlock,...");
}

static void check_io_uring(struct report *report)
{
	struct io_uring_params parameters = { 0 };
	long fd = syscall(SYS_io_uring_setup, 4, &parameters);

	if (fd >= 0) {
		close((int)fd);
		add(report, "io_uring", VERDICT_OK, text_copy("allowed"), NULL);
		return;
	}
	add(report, "io_uring", VERDICT_WORSE,
	    text_printf("not allowed (%s): file transfers are slower", strerror(errno)),
	    "sudo sysctl -w kernel.io_uring_disabled=0");
}

/* Tries FICLONE between two nameless files here. 0 or a negative errno. */
static int try_reflink(void)
{
	cleanup_fd int source = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	cleanup_fd int target = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char block[4096] = "matchlock";

	if (source < 0 || target < 0)
		return -errno;
	if (write(source, block, sizeof(block)) != (ssize_t)sizeof(block))
		return -EIO;
	return ioctl(target, FICLONE, source) < 0 ? -errno : 0;
}

static void check_reflink(struct report *report)
{
	int error = try_reflink();

	if (error == 0)
		add(report, "reflink here", VERDICT_OK,
		    text_copy("pre-images of changed files cost nothing"), NULL);
	else
		add(report, "reflink here", VERDICT_WORSE,
		    text_printf("none in this place (%s): pre-images of changed blocks are "
				"copied",
				strerror(-error)),
		    "keep workspaces on XFS or btrfs");
}

static void check_disk(struct report *report, const struct paths *paths)
{
	cleanup_free char *path = text_copy(paths->state);
	cleanup_free char *size = NULL;
	struct statvfs status;
	uint64_t available;

	while (statvfs(path, &status) < 0) {
		char *slash = strrchr(path, '/');

		if (!slash || slash == path) {
			add(report, "disk space", VERDICT_WORSE,
			    text_printf("cannot look at %s: %s", paths->state, strerror(errno)),
			    NULL);
			return;
		}
		*slash = '\0';
	}
	available = (uint64_t)status.f_bavail * status.f_frsize;
	size = format_size(available);
	add(report, "disk space",
	    available < DISK_NEEDED   ? VERDICT_BROKEN
	    : available < DISK_WANTED ? VERDICT_WORSE
				      : VERDICT_OK,
	    text_printf("%s free for logs and undo stores in %s", size, paths->state),
	    available < DISK_WANTED ? "matchlock prune, or make room" : NULL);
}

static void check_directories(struct report *report, const struct paths *paths)
{
	struct problem problem;
	int fd = open_private_directory(paths->runtime, &problem);

	if (fd >= 0) {
		close(fd);
		fd = open_private_directory(paths->state, &problem);
	}
	if (fd >= 0) {
		close(fd);
		add(report, "directories", VERDICT_OK,
		    text_printf("%s, %s", paths->state, paths->runtime), NULL);
	} else {
		add(report, "directories", VERDICT_BROKEN, text_copy(problem.text),
		    "see above; XDG_STATE_HOME and XDG_RUNTIME_DIR choose other places");
	}
}

static void print_text(const struct report *report)
{
	static const char *const marks[] = { "ok", "worse", "BROKEN" };

	for (size_t i = 0; i < report->count; i++) {
		const struct check *check = &report->checks[i];

		printf("%-7s %-16s %s\n", marks[check->verdict], check->name, check->detail);
		if (check->fix)
			printf("%-24s fix: %s\n", "", check->fix);
	}
}

static void print_json(const struct report *report, bool works)
{
	static const char *const names[] = { "ok", "worse", "broken" };
	cleanup_free char *text = NULL;
	json_t *checks = json_array();
	json_t *json;

	for (size_t i = 0; i < report->count; i++) {
		const struct check *check = &report->checks[i];

		json_array_append_new(
			checks, json_pack("{s:s, s:s, s:s, s:o}", "name", check->name, "verdict",
					  names[check->verdict], "detail", check->detail, "fix",
					  check->fix ? json_string(check->fix) : json_null()));
	}
	json = json_pack("{s:b, s:o}", "works", works ? 1 : 0, "checks", checks);
	text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	puts(text ? text : "{}");
	json_decref(json);
}

int command_doctor(int argc, char **argv, const struct paths *paths)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct report report = { 0 };
	struct problem problem;
	bool works = true;
	bool json = false;
	bool kvm;
	int option;

	restart_options();
	while ((option = next_option(argc, argv, "doctor", ":h", options, &problem)) != -1) {
		if (option == -2)
			return command_problem(&problem);
		if (option == 'h')
			return command_help("doctor");
		json = true;
	}
	if (optind < argc)
		return command_usage("doctor", "it takes no arguments");
	check_programs(&report, paths);
	kvm = check_kvm(&report, paths);
	check_qemu(&report, kvm);
	check_kernel(&report, paths);
	check_isolation(&report);
	check_io_uring(&report);
	check_reflink(&report);
	check_disk(&report, paths);
	check_directories(&report, paths);
	for (size_t i = 0; i < report.count; i++)
		works = works && report.checks[i].verdict != VERDICT_BROKEN;
	if (json)
		print_json(&report, works);
	else
		print_text(&report);
	for (size_t i = 0; i < report.count; i++) {
		free(report.checks[i].detail);
		free(report.checks[i].fix);
	}
	return works ? 0 : 1;
}

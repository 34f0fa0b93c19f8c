#include "fsserver/afterwards.h"

#include "base/cleanup.h"
#include "base/escape.h"
#include "base/log.h"
#include "fsserver/config.h"
#include "fsserver/report.h"
#include "fsserver/review.h"
#include "fsserver/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static int read_config(const char *path, struct config **ret_config)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char error[CONFIG_ERROR_MAX] = "";
	int result;

	if (fd < 0) {
		int reason = errno;

		log_error("cannot open %s: %s", path, strerror(reason));
		return -reason;
	}
	result = config_read(fd, ret_config, error);
	if (result)
		log_error("%s", error);
	return result;
}

static int open_both(const struct config_export *export, int *ret_store, int *ret_root)
{
	cleanup_fd int store = open(export->undo_store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int root = -1;

	if (store < 0) {
		int error = errno;

		log_error("cannot open the undo store %s: %s", export->undo_store, strerror(error));
		return -error;
	}
	root = open(export->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		int error = errno;

		log_error("cannot open %s: %s", export->path, strerror(error));
		return -error;
	}
	*ret_store = steal_fd(&store);
	*ret_root = steal_fd(&root);
	return 0;
}

/* ---- rolling back --------------------------------------------------------------------------- */

struct roll_back {
	bool json;
	json_t *kept;
	json_t *failed;
};

/* Names are bytes that a guest chose: shown escaped, in JSON too. */
static json_t *escaped(const char *text)
{
	char shown[PATH_MAX * 4 + 1];
	size_t length = escape_text(text, strlen(text), shown, sizeof(shown));

	return json_stringn(shown, length);
}

static void on_kept(const char *path, const char *kept_path, void *context)
{
	struct roll_back *roll_back = context;

	json_array_append_new(roll_back->kept, json_pack("{s:o, s:o}", "path", escaped(path),
							 "kept", escaped(kept_path)));
	if (!roll_back->json)
		log_warning("%s was also changed by the host; the other version is kept at %s",
			    path, kept_path);
}

static void on_failed(const char *path, int error, void *context)
{
	struct roll_back *roll_back = context;
	int number = error < 0 ? -error : error;

	json_array_append_new(roll_back->failed, json_pack("{s:o, s:s}", "path", escaped(path),
							   "error", strerror(number)));
	if (!roll_back->json)
		log_error("%s could not be restored: %s", path, strerror(number));
}

static int roll_back_export(const struct config_export *export, struct roll_back *roll_back,
			    struct undo_report *sum)
{
	struct undo_callbacks callbacks = { .on_kept = on_kept,
					    .on_failed = on_failed,
					    .context = roll_back };
	struct undo_report report = { 0 };
	cleanup_fd int store = -1;
	cleanup_fd int root = -1;
	int result = open_both(export, &store, &root);

	if (result)
		return result;
	result = undo_roll_back(store, root, &callbacks, &report);
	if (result)
		log_error("cannot roll %s back: %s", export->path, strerror(-result));
	sum->restored += report.restored;
	sum->removed += report.removed;
	sum->kept += report.kept;
	sum->failed += report.failed;
	sum->already_done = sum->already_done || report.already_done;
	return result;
}

static void print_roll_back(const struct roll_back *roll_back, const struct undo_report *sum)
{
	if (roll_back->json) {
		json_t *result =
			json_pack("{s:I, s:I, s:I, s:I, s:b, s:O, s:O}", "restored",
				  (json_int_t)sum->restored, "removed", (json_int_t)sum->removed,
				  "kept", (json_int_t)sum->kept, "failed", (json_int_t)sum->failed,
				  "already_done", sum->already_done, "conflicts", roll_back->kept,
				  "failures", roll_back->failed);

		json_dumpf(result, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(result);
	} else if (sum->already_done && sum->restored + sum->removed == 0) {
		puts("already rolled back");
	} else {
		printf("restored %llu, removed %llu, kept both versions of %llu, failed %llu\n",
		       (unsigned long long)sum->restored, (unsigned long long)sum->removed,
		       (unsigned long long)sum->kept, (unsigned long long)sum->failed);
	}
}

int afterwards_roll_back(const struct afterwards_options *options)
{
	struct roll_back roll_back = { .json = options->json };
	struct undo_report sum = { 0 };
	struct config *config = NULL;
	struct report *report = NULL;
	int result = read_config(options->config, &config);

	if (result || !config)
		return EXIT_FAILURE;
	roll_back.kept = json_array();
	roll_back.failed = json_array();
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *export = &config->exports[i];
		int error;

		if (!export->undo_store)
			continue;
		error = roll_back_export(export, &roll_back, &sum);
		if (error)
			result = error;
	}
	print_roll_back(&roll_back, &sum);
	if (options->audit_fd >= 0 && report_new(options->audit_fd, &report) == 0) {
		report_rollback(report, sum.restored, sum.removed, sum.kept, sum.failed,
				config->session);
		report_free(report);
	}
	json_decref(roll_back.kept);
	json_decref(roll_back.failed);
	config_free(config);
	if (result || sum.failed)
		return EXIT_FAILURE;
	return sum.kept ? AFTERWARDS_KEPT : EXIT_SUCCESS;
}

/* ---- showing changes ------------------------------------------------------------------------ */

int afterwards_diff(const struct afterwards_options *options)
{
	struct review_options review = {
		.json = options->json,
		.name_only = options->name_only,
		.colour = options->colour,
		.paths = (const char *const *)options->paths,
		.path_count = options->path_count,
	};
	struct config *config = NULL;
	int result = read_config(options->config, &config);

	if (result || !config)
		return EXIT_FAILURE;
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *export = &config->exports[i];
		cleanup_fd int store = -1;
		cleanup_fd int root = -1;
		int error;

		if (!export->undo_store)
			continue;
		error = open_both(export, &store, &root);
		if (!error)
			error = review_print(store, root, &review, stdout);
		if (error) {
			log_error("cannot list the changes of %s: %s", export->path,
				  strerror(-error));
			result = error;
		}
	}
	config_free(config);
	return result ? EXIT_FAILURE : EXIT_SUCCESS;
}

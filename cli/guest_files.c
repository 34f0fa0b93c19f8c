#include "cli/guest_files.h"

#include "base/cleanup.h"
#include "cli/nss_database.h"

#include <assert.h>
#include <string.h>

/* Whether something of the host's is mounted at the path or above it. */
static bool is_mounted(const struct plan *plan, const char *path)
{
	for (size_t i = 0; i < plan->export_count; i++) {
		const char *guest = plan->exports[i].guest;
		size_t length = strlen(guest);

		if (plan->exports[i].profile != PLAN_PROFILE_IMAGE &&
		    strncmp(path, guest, length) == 0 &&
		    (path[length] == '/' || path[length] == '\0'))
			return true;
	}
	return false;
}

void guest_files_add(struct guest_files *files, const struct plan *plan, const char *name,
		     void *data, size_t size)
{
	cleanup_free char *path = text_printf("%s/%s", plan->user.home, name);
	cleanup_free void *owned = data;

	if (!plan->home_is_empty || is_mounted(plan, path))
		return;
	assert(files->count < AGENT_FILES_MAX);
	files->items[files->count++] =
		(struct guest_file){ steal_pointer(&path), steal_pointer(&owned), size };
}

int guest_files_add_trust(struct guest_files *files, const struct plan *plan,
			  const char *certificate, struct problem *problem)
{
	struct nss_database database;
	int error;

	if (!plan->home_is_empty)
		return 0;
	error = nss_database_make(certificate, &database);
	if (error < 0)
		return problem_set(problem, STATUS_SANDBOX,
				   "cannot make the databases of ~/.pki/nssdb: %s",
				   error == -EBADMSG ? "the broker's certificate is malformed"
						     : "SQLite or OpenSSL failed");
	guest_files_add(files, plan, ".pki/nssdb/cert9.db", steal_pointer(&database.certificates),
			database.certificates_size);
	guest_files_add(files, plan, ".pki/nssdb/key4.db", steal_pointer(&database.keys),
			database.keys_size);
	return 0;
}

void guest_files_list(const struct guest_files *files, struct agent_config *config)
{
	for (uint32_t i = 0; i < files->count; i++)
		config->files[i] = (struct agent_file){
			.mode = 0600,
			.path = files->items[i].path,
			.data = files->items[i].data,
			.size = (uint32_t)files->items[i].size,
		};
	config->file_count = files->count;
}

void guest_files_free(struct guest_files *files)
{
	for (uint32_t i = 0; i < files->count; i++) {
		free(files->items[i].path);
		free(files->items[i].data);
	}
	files->count = 0;
}

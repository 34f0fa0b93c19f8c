#include "cli/canary_files.h"

#include "base/checked.h"
#include "base/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *value_of(const struct text_list *placeholders, const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < placeholders->count; i++) {
		if (strncmp(placeholders->items[i], name, length) == 0 &&
		    placeholders->items[i][length] == '=')
			return placeholders->items[i] + length + 1;
	}
	return NULL;
}

/* NULL without decoys. */
static char *dotenv_text(const struct text_list *placeholders)
{
	static const char *const names[] = { "PROD_GITHUB_TOKEN", "STRIPE_LIVE_SECRET_KEY",
					     "PROD_DATABASE_PASSWORD", "BACKUP_SIGNING_KEY" };
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	fputs("# production\n", out);
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		const char *value = value_of(placeholders, names[i]);

		if (value)
			fprintf(out, "%s=%s\n", names[i], value);
	}
	fclose(out);
	if (text && strchr(text, '='))
		return text;
	free(text);
	return NULL;
}

/* Not the default profile, which programs would take by themselves. */
static char *aws_text(const struct text_list *placeholders)
{
	const char *id = value_of(placeholders, "PROD_ACCESS_KEY_ID");
	const char *key = value_of(placeholders, "PROD_SECRET_ACCESS_KEY");

	if (!id || !key)
		return NULL;
	return text_printf("[production]\naws_access_key_id = %s\naws_secret_access_key = %s\n", id,
			   key);
}

/* Whether something of the host's is mounted at the path, above it or below. */
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

/* Takes over the text. */
static void add(struct canary_files *files, const struct plan *plan, const char *name, char *text)
{
	char *path = text_printf("%s/%s", plan->user.home, name);

	if (!text || is_mounted(plan, path)) {
		free(path);
		free(text);
		return;
	}
	files->paths[files->count] = path;
	files->texts[files->count++] = text;
}

void canary_files_make(const struct plan *plan, const struct text_list *placeholders,
		       struct canary_files *ret_files)
{
	*ret_files = (struct canary_files){ 0 };
	if (!plan->home_is_empty || !plan->plants_canaries)
		return;
	add(ret_files, plan, ".env", dotenv_text(placeholders));
	add(ret_files, plan, ".aws/credentials", aws_text(placeholders));
}

void canary_files_free(struct canary_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		free(files->paths[i]);
		free(files->texts[i]);
	}
	files->count = 0;
}

void canary_files_add(const struct canary_files *files, struct agent_config *config)
{
	for (size_t i = 0; i < files->count; i++)
		config->files[config->file_count++] =
			(struct agent_file){ 0600, files->paths[i], files->texts[i] };
}

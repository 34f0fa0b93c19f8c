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

static void add(struct guest_files *files, const struct plan *plan, const char *name, char *text)
{
	if (text)
		guest_files_add(files, plan, name, text, strlen(text));
}

void canary_files_add(struct guest_files *files, const struct plan *plan,
		      const struct text_list *placeholders)
{
	if (!plan->plants_canaries)
		return;
	add(files, plan, ".env", dotenv_text(placeholders));
	add(files, plan, ".aws/credentials", aws_text(placeholders));
}

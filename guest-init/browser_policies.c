#include "guest-init/browser_policies.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "wire/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_MAX_LENGTH 96u

/* Each reads all files of its directory. Ubuntu's Chromium has another name, and the browsers that
 * Playwright and Puppeteer bring are Chromium or Chrome for Testing. */
static const char *const chromium_directories[] = {
	"etc/chromium/policies/managed",   "etc/chromium-browser/policies/managed",
	"etc/opt/chrome/policies/managed", "etc/opt/chrome_for_testing/policies/managed",
	"etc/opt/edge/policies/managed",   "etc/brave/policies/managed",
};

static const char firefox_directory[] = "etc/firefox/policies";
static const char firefox_policy[] =
	"{\"policies\": {\"Certificates\": {\"Install\": [\"" AGENT_TRUST_CERTIFICATE "\"]}}}\n";

/* The image has something else there. */
static bool is_image_business(int error)
{
	return error == -EEXIST || error == -ENOENT || error == -ENOTDIR || error == -ELOOP ||
	       error == -EACCES;
}

static int make_directories(int root_fd, const char *path)
{
	char part[PATH_MAX_LENGTH];

	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdirat(root_fd, part, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdirat(root_fd, part, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static int add_file(int root_fd, const char *directory, const char *name, const char *text)
{
	char path[PATH_MAX_LENGTH];
	cleanup_fd int fd = -1;
	int error = make_directories(root_fd, directory);

	if (error == 0) {
		snprintf(path, sizeof(path), "%s/%s", directory, name);
		fd = openat(root_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0644);
		error = fd < 0 ? -errno : write_full(fd, text, strlen(text));
	}
	return is_image_business(error) ? 0 : error;
}

/* NULL without memory, or when it is not PEM. */
static char *make_chromium_policy(const char *certificate)
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----";
	const char *from = strstr(certificate, begin);
	const char *to = from ? strstr(from, "-----END") : NULL;
	cleanup_free char *encoded = NULL;
	char *policy = NULL;
	size_t length = 0;

	if (!to)
		return NULL;
	encoded = malloc((size_t)(to - from) + 1);
	if (!encoded)
		return NULL;
	for (from += sizeof(begin) - 1; from < to; from++) {
		if (*from != '\n' && *from != '\r')
			encoded[length++] = *from;
	}
	encoded[length] = '\0';
	return asprintf(&policy, "{\"CACertificates\": [\"%s\"]}\n", encoded) < 0 ? NULL : policy;
}

int browser_policies_add_at(int root_fd, const char *certificate)
{
	cleanup_free char *policy = make_chromium_policy(certificate);
	int error = policy ? 0 : -ENOMEM;

	/* An image of single programs, which is left as bare as it is. */
	if (faccessat(root_fd, "etc", F_OK, 0) < 0)
		return 0;
	for (size_t i = 0; error == 0 && i < ARRAY_LENGTH(chromium_directories); i++)
		error = add_file(root_fd, chromium_directories[i], "matchlock.json", policy);
	if (error == 0)
		error = add_file(root_fd, firefox_directory, "policies.json", firefox_policy);
	return error;
}

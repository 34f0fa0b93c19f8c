#include "guest-init/trust_store.h"

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "guest-init/browser_policies.h"
#include "guest-init/java_store.h"
#include "wire/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Debian and Alpine, Alpine and the BSDs, Red Hat, SUSE. One may be a symbolic link to another. */
static const char *const bundles[] = {
	"etc/ssl/certs/ca-certificates.crt",
	"etc/ssl/cert.pem",
	"etc/pki/tls/certs/ca-bundle.crt",
	"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"etc/ssl/ca-bundle.pem",
	"var/lib/ca-certificates/ca-bundle.pem",
};

/* Where update-ca-certificates(8) and update-ca-trust(8) look. */
static const char *const sources[] = {
	"usr/local/share/ca-certificates",
	"etc/pki/ca-trust/source/anchors",
	"etc/pki/trust/anchors",
};

#define HASHED_DIRECTORY "etc/ssl/certs"
#define HASHED_MAX 16

/* All paths are below the root that is given. */
static const char *below(const char *path)
{
	return path + 1;
}

static int write_new(int root_fd, const char *path, const char *first, const char *second)
{
	cleanup_fd int fd =
		openat(root_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	int error = fd < 0 ? -errno : write_full(fd, first, strlen(first));

	if (error == 0 && second)
		error = write_full(fd, second, strlen(second));
	return error;
}

/* Appends the certificate. *ret_text is what was there before; it stays NULL when nothing was. */
static int add_to_bundle(int root_fd, const char *path, const char *certificate, char **ret_text)
{
	cleanup_free char *text = NULL;
	cleanup_fd int fd = openat(root_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	cleanup_fd int output = -1;
	size_t length = 0;
	int error;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EACCES
			       ? 0
			       : -errno;
	error = read_file(fd, TRUST_STORE_BUNDLE_MAX, &text, &length);
	/* A link that led here before; or something odd, which is the image's business. */
	if (error < 0 || !text || strstr(text, certificate))
		return error == -ENOMEM ? error : 0;
	output = openat(root_fd, path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY);
	if (output < 0)
		return -errno;
	if (length > 0 && text[length - 1] != '\n')
		error = write_full(output, "\n", 1);
	if (error == 0)
		error = write_full(output, certificate, strlen(certificate));
	if (error == 0)
		*ret_text = steal_pointer(&text);
	return error;
}

/* Java's stores are replaced, not added to: their checksum is at the end. */
static int add_to_java(int root_fd, const char *certificate)
{
	static const char *const stores[] = { "etc/ssl/certs/java/cacerts",
					      "etc/pki/ca-trust/extracted/java/cacerts" };

	for (size_t i = 0; i < ARRAY_LENGTH(stores); i++) {
		cleanup_fd int fd = openat(root_fd, stores[i], O_RDONLY | O_CLOEXEC | O_NOCTTY);
		cleanup_free char *store = NULL;
		cleanup_free uint8_t *grown = NULL;
		cleanup_fd int output = -1;
		size_t length = 0;
		int error;

		if (fd < 0 || read_file(fd, JAVA_STORE_MAX, &store, &length) < 0)
			continue;
		error = java_store_add((const uint8_t *)store, length, certificate, &grown,
				       &length);
		/* A store of another form is left as it is. */
		if (error == -EBADMSG)
			continue;
		if (error == 0) {
			output = openat(root_fd, stores[i], O_WRONLY | O_TRUNC | O_CLOEXEC);
			error = output < 0 ? -errno : write_full(output, grown, length);
		}
		if (error < 0)
			return error;
	}
	return 0;
}

static int add_hashed(int root_fd, const char *certificate, uint32_t hash)
{
	struct stat status;

	if (fstatat(root_fd, HASHED_DIRECTORY, &status, 0) < 0)
		return 0;
	for (unsigned i = 0; i < HASHED_MAX; i++) {
		char path[sizeof(HASHED_DIRECTORY) + 32];
		int error;

		snprintf(path, sizeof(path), HASHED_DIRECTORY "/%08x.%u", hash, i);
		error = write_new(root_fd, path, certificate, NULL);
		if (error != -EEXIST)
			return error;
	}
	return 0;
}

static int add_sources(int root_fd, const char *certificate)
{
	for (size_t i = 0; i < ARRAY_LENGTH(sources); i++) {
		struct stat status;
		char path[96];
		int error;

		if (fstatat(root_fd, sources[i], &status, 0) < 0)
			continue;
		snprintf(path, sizeof(path), "%s/matchlock.crt", sources[i]);
		error = write_new(root_fd, path, certificate, NULL);
		if (error < 0 && error != -EEXIST)
			return error;
	}
	return 0;
}

int trust_store_add_at(int root_fd, const char *certificate, uint32_t hash, struct failure *failure)
{
	cleanup_free char *trusted = NULL;
	int error = 0;

	for (size_t i = 0; error == 0 && i < ARRAY_LENGTH(bundles); i++) {
		cleanup_free char *text = NULL;

		error = add_to_bundle(root_fd, bundles[i], certificate, &text);
		if (error < 0)
			return failure_set(failure, "certificates", -error, "cannot add to /%s",
					   bundles[i]);
		if (!trusted)
			trusted = steal_pointer(&text);
	}
	error = add_hashed(root_fd, certificate, hash);
	if (error == 0)
		error = add_sources(root_fd, certificate);
	if (error == 0)
		error = add_to_java(root_fd, certificate);
	if (error == 0)
		error = browser_policies_add_at(root_fd, certificate);
	if (error < 0)
		return failure_set(failure, "certificates", -error,
				   "cannot add to the image's certificates");
	if (mkdirat(root_fd, below(TRUST_STORE_DIRECTORY), 0755) < 0 && errno != EEXIST)
		error = -errno;
	if (error == 0)
		error = write_new(root_fd, below(AGENT_TRUST_CERTIFICATE), certificate, NULL);
	if (error == 0)
		error = write_new(root_fd, below(AGENT_TRUST_BUNDLE), certificate, trusted);
	if (error < 0)
		return failure_set(failure, "certificates", -error,
				   "cannot write to " TRUST_STORE_DIRECTORY);
	return 0;
}

int trust_store_add(const char *certificate, uint32_t hash, struct failure *failure)
{
	cleanup_fd int root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (root_fd < 0)
		return failure_set(failure, "certificates", errno, "cannot open the root");
	return trust_store_add_at(root_fd, certificate, hash, failure);
}

/* trust_files ROOT CERTIFICATE: what guest-init does to an image's trust stores, done to a tree. */
#include "base/cleanup.h"
#include "base/io.h"
#include "guest-init/trust_store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	struct failure failure = { 0 };
	cleanup_fd int root_fd = -1;
	cleanup_fd int fd = -1;
	cleanup_free char *certificate = NULL;

	if (argc != 3) {
		fputs("usage: trust_files ROOT CERTIFICATE\n", stderr);
		return 2;
	}
	root_fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (root_fd < 0 || fd < 0 ||
	    read_file(fd, TRUST_STORE_BUNDLE_MAX, &certificate, NULL) < 0) {
		perror("trust_files");
		return EXIT_FAILURE;
	}
	if (trust_store_add_at(root_fd, certificate, 0, &failure) < 0) {
		fprintf(stderr, "trust_files: %s\n", failure.text);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

/* nss_files DIRECTORY CERTIFICATE: the databases of NSS that a session puts into its guest's home.
 */
#include "base/cleanup.h"
#include "base/io.h"
#include "cli/nss_database.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static int write_file(int directory, const char *name, const uint8_t *data, size_t size)
{
	cleanup_fd int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? -1 : write_full(fd, data, size);
}

int main(int argc, char **argv)
{
	struct nss_database database = { 0 };
	cleanup_fd int directory = -1;
	cleanup_fd int fd = -1;
	cleanup_free char *certificate = NULL;
	int error;

	if (argc != 3) {
		fputs("usage: nss_files DIRECTORY CERTIFICATE\n", stderr);
		return 2;
	}
	directory = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (directory < 0 || fd < 0 || read_file(fd, 65536, &certificate, NULL) < 0) {
		perror("nss_files");
		return EXIT_FAILURE;
	}
	error = nss_database_make(certificate, &database);
	if (error == 0)
		error = write_file(directory, "cert9.db", database.certificates,
				   database.certificates_size);
	if (error == 0)
		error = write_file(directory, "key4.db", database.keys, database.keys_size);
	nss_database_free(&database);
	if (error < 0)
		fprintf(stderr, "nss_files: it failed (%d)\n", error);
	return error < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/*
 * Decoys in files: what somebody who looks for credentials finds in the caller's home, ~/.env and a
 * profile in ~/.aws/credentials, with the same decoys as the environment.
 */
#ifndef CLI_CANARY_FILES_H
#define CLI_CANARY_FILES_H

#include "cli/guest_files.h"

/* `placeholders` ("NAME=VALUE") hold the decoys when there are any. */
void canary_files_add(struct guest_files *files, const struct plan *plan,
		      const struct text_list *placeholders);

#endif

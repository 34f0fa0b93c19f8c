/*
 * Deletes a directory and everything below it: undo stores, whose graveyards hold trees that a
 * guest shaped. Nothing here follows a symlink or crosses to another file system, depth does not
 * matter, and directories without permissions are opened up first.
 */
#ifndef CLI_REMOVE_TREE_H
#define CLI_REMOVE_TREE_H

/* 0 (also when `path` does not exist) or a negative errno; what could be removed is gone then. */
int remove_tree(const char *path);

#endif

#include "fsserver/export.h"

#include "base/cleanup.h"
#include "fsserver/aliases.h"
#include "fsserver/watch.h"
#include "wire/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char deleted_suffix[] = " (deleted)";

/* So many directories may have to be opened anew for one object that moved with them. */
#define COLD_DEPTH_MAX 32u

/* ---- descriptors for reading ---------------------------------------------------------------- */

static void cache_unlink(struct export *export, struct node *node)
{
	if (node->cache_previous)
		node->cache_previous->cache_next = node->cache_next;
	else
		export->cache_newest = node->cache_next;
	if (node->cache_next)
		node->cache_next->cache_previous = node->cache_previous;
	else
		export->cache_oldest = node->cache_previous;
	node->cache_previous = NULL;
	node->cache_next = NULL;
}

static void cache_drop(struct export *export, struct node *node)
{
	cache_unlink(export, node);
	close(node->read_fd);
	node->read_fd = -1;
	export->cache_count--;
}

static void cache_push(struct export *export, struct node *node)
{
	node->cache_previous = NULL;
	node->cache_next = export->cache_newest;
	if (export->cache_newest)
		export->cache_newest->cache_previous = node;
	else
		export->cache_oldest = node;
	export->cache_newest = node;
}

int export_read_fd(struct export *export, struct node *node, int *ret_fd)
{
	int fd;
	int error;

	if (node->read_fd >= 0) {
		if (export->cache_newest != node) {
			cache_unlink(export, node);
			cache_push(export, node);
		}
		*ret_fd = node->read_fd;
		return 0;
	}
	error = host_reopen(&export->scope, node->fd, O_RDONLY, &fd);
	if (error)
		return error;
	if (export->cache_count >= EXPORT_READ_CACHE_MAX)
		cache_drop(export, export->cache_oldest);
	node->read_fd = fd;
	cache_push(export, node);
	export->cache_count++;
	*ret_fd = fd;
	return 0;
}

static void node_gone(struct node *node, void *context)
{
	struct export *export = context;

	if (node->read_fd >= 0)
		cache_drop(export, node);
	if (export->watch)
		watch_forget(export->watch, node);
}

/* ---- cold nodes ----------------------------------------------------------------------------- */

/* A path is all that leads back, and only the time of birth tells that what stands there is not
 * another object with a used inode number: without both the descriptor stays. */
static bool cool_node(struct node *node, void *context, struct node_cold *ret_cold)
{
	struct export *export = context;
	char path[PATH_MAX];
	struct statx stat;

	if (host_stat(node->fd, &stat) || !node_birth_of(&stat) ||
	    export_path_of(export, node->fd, stat.stx_nlink, path))
		return false;
	ret_cold->birth = node_birth_of(&stat);
	ret_cold->path = strdup(path);
	return ret_cold->path;
}

static bool is_object(const struct node *node, int fd)
{
	struct node_key key;
	struct statx stat;

	if (host_stat(fd, &stat))
		return false;
	key = node_key_of(&stat);
	return key.ino == node->key.ino && key.device == node->key.device &&
	       key.mount == node->key.mount && node_birth_of(&stat) == node->place.cold.birth &&
	       (stat.stx_mode & S_IFMT) == node->type;
}

static int use(struct export *export, struct node *node, unsigned depth);

/* Opens a cold node's object by its name in its directory, which may itself be cold. */
static int open_in_directory(struct export *export, const struct node *node, unsigned depth,
			     int *ret_fd)
{
	struct node *directory = node_table_get(export->nodes, node->parent);
	const char *name = strrchr(node->place.cold.path, '/');
	int error;

	if (!directory || directory->type != S_IFDIR || depth == 0)
		return -ESTALE;
	error = use(export, directory, depth - 1);
	if (error)
		return error;
	return host_open_child(&export->scope, directory->fd,
			       name ? name + 1 : node->place.cold.path, ret_fd);
}

static int use(struct export *export, struct node *node, unsigned depth)
{
	cleanup_fd int fd = -1;
	int error;

	if (node->fd < 0) {
		error = host_open_below(&export->scope, export->base_fd, node->place.cold.path,
					&fd);
		if (error == -EMFILE || error == -ENFILE || error == -ENOMEM)
			return error;
		if (error || !is_object(node, fd)) {
			if (fd >= 0)
				close(steal_fd(&fd));
			error = open_in_directory(export, node, depth, &fd);
			if (error || !is_object(node, fd))
				return error == -ENFILE ? -ENFILE : -ESTALE;
		}
		error = node_table_warm(export->nodes, node, steal_fd(&fd));
		if (error)
			return error;
	}
	node_table_used(export->nodes, node);
	return 0;
}

int export_use(struct export *export, struct node *node)
{
	return use(export, node, COLD_DEPTH_MAX);
}

struct node *export_known_node(struct export *export, const struct statx *stat)
{
	return node_table_find_inode(export->nodes, stat);
}

void export_keep_warm(struct export *export, const struct statx *stat, int fd)
{
	struct node *node = node_table_find_inode(export->nodes, stat);
	int own;

	if (!node || node->fd >= 0)
		return;
	own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	/* Without one the node becomes stale, which is no worse than that. */
	if (own >= 0 && node_table_warm(export->nodes, node, own) == 0)
		node_table_used(export->nodes, node);
}

/* ---- opening -------------------------------------------------------------------------------- */

static int describe(char error[static EXPORT_ERROR_MAX], const struct config_export *config,
		    const char *what, const char *path, int result)
{
	snprintf(error, EXPORT_ERROR_MAX, "export %s: %s %s: %s", config->name, what, path,
		 strerror(-result));
	return result;
}

/* The directory in which paths begin. */
static int open_base(struct export *export, char error[static EXPORT_ERROR_MAX])
{
	const char *path = export->config->path;
	ssize_t length;

	export->base_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (export->base_fd < 0)
		return describe(error, export->config, "cannot open", path, -errno);
	length = host_path_of(&export->scope, export->base_fd, export->root_path, PATH_MAX);
	if (length < 0)
		return describe(error, export->config, "cannot tell the place of", path,
				(int)length);
	export->root_length = length == 1 ? 0 : (size_t)length;
	return 0;
}

static int open_root(struct export *export, char error[static EXPORT_ERROR_MAX])
{
	const struct config_export *config = export->config;
	const char *what = config->file ? config->file : config->path;
	struct statx stat;
	struct node_key key;
	int node_fd;
	int result = host_scope_init(&export->scope, config->cross_mounts);

	if (result)
		return describe(error, config, "cannot open", "/proc/self/fd", result);
	result = open_base(export, error);
	if (result)
		return result;
	if (config->file) {
		result = host_open_child(&export->scope, export->base_fd, config->file,
					 &export->root_fd);
	} else {
		export->root_fd = fcntl(export->base_fd, F_DUPFD_CLOEXEC, 3);
		result = export->root_fd < 0 ? -errno : 0;
	}
	if (result)
		return describe(error, config, "cannot open", what, result);
	result = host_stat(export->root_fd, &stat);
	if (!result && config->file && !S_ISREG(stat.stx_mode))
		result = -ENXIO;
	if (result)
		return describe(error, config, "cannot serve", what, result);
	export->root_device = host_stat_device(&stat);
	key = node_key_of(&stat);
	node_fd = fcntl(export->root_fd, F_DUPFD_CLOEXEC, 3);
	if (node_fd < 0)
		return describe(error, config, "cannot keep", what, -errno);
	result =
		node_table_add(export->nodes, &key, stat.stx_mode & S_IFMT, node_fd, &export->root);
	return result ? describe(error, config, "cannot keep", what, result) : 0;
}

/* In a tree, looking a name up asks the policy. A single file is not looked up. */
static int judge_file(const struct export *export, char error[static EXPORT_ERROR_MAX])
{
	const struct config_export *config = export->config;
	struct policy_verdict verdict = { 0 };

	if (!config->file)
		return 0;
	policy_judge(export->policy, POLICY_READ, config->file, S_IFREG, &verdict);
	if (verdict.allowed)
		return 0;
	snprintf(error, EXPORT_ERROR_MAX, "export %s: %s/%s: %s: %s", config->name, config->path,
		 config->file, verdict.rule, verdict.reason);
	return -EACCES;
}

static int load_policy(struct export *export, char error[static EXPORT_ERROR_MAX])
{
	const struct config_export *config = export->config;
	const struct config *all = export->server->config;
	cleanup_fd int fd = -1;
	struct policy_options options = {
		.profile = config->profile,
		.policy_name = config->policy_name,
		.extra_allow = config->allow.items,
		.extra_allow_count = config->allow.count,
		.extra_hide = config->hide.items,
		.extra_hide_count = config->hide.count,
		.extra_rules = config->rules,
		.extra_rule_count = config->rule_count,
		.read_only = config->read_only,
		.export_path = export->root_length ? export->root_path : "/",
		.homes = all->homes.items,
		.home_count = all->homes.count,
	};
	char place[PATH_MAX + NAME_MAX + 2];
	int result;

	if (config->file) {
		/* What is asked for by its own name is not hidden by the rules about homes. */
		snprintf(place, sizeof(place), "%.*s/%.255s", (int)export->root_length,
			 export->root_path, config->file);
		options.export_path = place;
	}
	if (config->policy) {
		fd = open(config->policy, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return describe(error, config, "cannot open the policy", config->policy,
					-errno);
	}
	options.policy_fd = fd;
	result = policy_load(&options, &export->policy, error, EXPORT_ERROR_MAX);
	if (result)
		return result;
	result = judge_file(export, error);
	if (result)
		return result;
	export->may_hide = policy_may_hide_below(export->policy, "");
	report_policy(export->server->report, policy_name(export->policy),
		      policy_hash(export->policy), policy_rule_count(export->policy));
	return 0;
}

/* The store's directory is hidden as well when it lies inside the tree: other sessions keep
 * theirs in it. */
static int hide_store(struct export *export)
{
	cleanup_fd int parent = -1;
	struct statx stat;
	int result = host_stat(export->store_fd, &stat);
	ssize_t length;

	if (result)
		return result;
	export->store_keys[export->store_key_count++] = node_key_of(&stat);
	length = host_path_of(&export->scope, export->store_fd, export->store_path, PATH_MAX);
	if (length < 0)
		return (int)length;
	if (strncmp(export->store_path, export->root_path, export->root_length) != 0 ||
	    export->store_path[export->root_length] != '/')
		return 0;
	parent = openat(export->store_fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return -errno;
	result = host_stat(parent, &stat);
	if (!result && stat.stx_ino != export->root->key.ino)
		export->store_keys[export->store_key_count++] = node_key_of(&stat);
	return result;
}

static int open_undo(struct export *export, char error[static EXPORT_ERROR_MAX])
{
	const char *path = export->config->undo_store;
	struct undo_options options = {
		.store_bytes_max = export->server->config->store_bytes_max,
	};
	int result;

	if (!path)
		return 0;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return describe(error, export->config, "cannot make the undo store", path, -errno);
	export->store_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (export->store_fd < 0)
		return describe(error, export->config, "cannot open the undo store", path, -errno);
	result = hide_store(export);
	if (!result)
		result = undo_open(export->store_fd, export->base_fd, &options, &export->undo);
	return result ? describe(error, export->config, "cannot use the undo store", path, result)
		      : 0;
}

int export_open(struct server *server, const struct config_export *config,
		struct export **ret_export, char error[static EXPORT_ERROR_MAX])
{
	struct export *export = calloc(1, sizeof(*export));
	const struct node_table_owner owner = {
		.gone = node_gone,
		.cool = cool_node,
		.context = export,
	};
	int result;

	if (!export)
		return -ENOMEM;
	export->server = server;
	export->config = config;
	export->root_fd = -1;
	export->base_fd = -1;
	export->store_fd = -1;
	export->scope.proc_fd = -1;
	handle_table_init(&export->handles, &server->handles);
	result = node_table_new(&server->nodes, &server->descriptors, &owner, &export->nodes);
	if (!result)
		result = aliases_new(&export->aliases);
	if (!result)
		result = open_root(export, error);
	if (!result)
		result = load_policy(export, error);
	if (!result)
		result = open_undo(export, error);
	if (result) {
		export_close(export);
		return result;
	}
	*ret_export = export;
	return 0;
}

int export_close(struct export *export)
{
	int result = 0;

	if (!export)
		return 0;
	if (export->undo)
		result = undo_close(export->undo);
	node_table_free(export->nodes);
	handle_table_free(&export->handles);
	aliases_free(export->aliases);
	policy_free(export->policy);
	if (export->store_fd >= 0)
		close(export->store_fd);
	if (export->root_fd >= 0)
		close(export->root_fd);
	if (export->base_fd >= 0)
		close(export->base_fd);
	host_scope_close(&export->scope);
	free(export);
	return result;
}

/* ---- where things are ----------------------------------------------------------------------- */

/* The part of `path` below `root`, or NULL. */
static const char *below(const char *path, const char *root, size_t root_length)
{
	if (strncmp(path, root, root_length) != 0)
		return NULL;
	if (path[root_length] == '/')
		return path + root_length + 1;
	return path[root_length] == '\0' ? path + root_length : NULL;
}

/* The kernel marks a name that is gone by a suffix that a living file may have too. */
static bool really_deleted(struct export *export, int fd, const char *path)
{
	cleanup_fd int found = -1;
	struct stat here;
	struct stat there;

	if (host_open_below(&export->scope, export->base_fd, path, &found))
		return true;
	return fstat(fd, &here) < 0 || fstat(found, &there) < 0 || here.st_ino != there.st_ino ||
	       here.st_dev != there.st_dev;
}

int export_path_of(struct export *export, int fd, uint32_t links, char path[static PATH_MAX])
{
	char absolute[PATH_MAX];
	const char *relative;
	ssize_t length;
	size_t suffix = sizeof(deleted_suffix) - 1;

	if (links == 0)
		return -ENOENT;
	length = host_path_of(&export->scope, fd, absolute, sizeof(absolute));
	if (length < 0)
		return (int)length;
	if (export->store_fd >= 0 &&
	    below(absolute, export->store_path, strlen(export->store_path)))
		return -ENOENT;
	relative = below(absolute, export->root_path, export->root_length);
	if (!relative) {
		/* The host may have renamed the root itself, or a directory above it. */
		ssize_t root =
			host_path_of(&export->scope, export->base_fd, export->root_path, PATH_MAX);

		if (root < 0)
			return (int)root;
		export->root_length = root == 1 ? 0 : (size_t)root;
		relative = below(absolute, export->root_path, export->root_length);
		if (!relative)
			return -ESTALE;
	}
	if ((size_t)length > suffix && strcmp(absolute + length - suffix, deleted_suffix) == 0 &&
	    really_deleted(export, fd, relative))
		return -ENOENT;
	memcpy(path, relative, strlen(relative) + 1);
	return 0;
}

bool export_is_store(const struct export *export, const struct statx *stat)
{
	for (unsigned i = 0; i < export->store_key_count; i++) {
		if (export->store_keys[i].ino == stat->stx_ino &&
		    export->store_keys[i].device == host_stat_device(stat))
			return true;
	}
	return false;
}

int export_open_child(struct export *export, int parent_fd, const char *name, int *ret_fd,
		      struct statx *ret_stat)
{
	cleanup_fd int fd = -1;
	int error = host_open_child(&export->scope, parent_fd, name, &fd);

	if (!error)
		error = host_stat(fd, ret_stat);
	if (error)
		return error;
	if (S_ISDIR(ret_stat->stx_mode) && export_is_store(export, ret_stat))
		return -ENOENT;
	*ret_fd = steal_fd(&fd);
	return 0;
}

int export_node(struct export *export, const struct statx *stat, int fd, struct node **ret_node)
{
	struct node_key key = node_key_of(stat);
	struct node *node = node_table_find_inode(export->nodes, stat);
	int error = 0;

	if (!node)
		return node_table_add(export->nodes, &key, stat->stx_mode, fd, ret_node);
	if (node->fd < 0)
		error = node_table_warm(export->nodes, node, fd);
	else
		close(fd);
	if (error)
		return error;
	*ret_node = node;
	return 0;
}

uint32_t export_validity(const struct export *export, const struct node *directory)
{
	if (export->config->immutable)
		return UINT32_MAX;
	if (export->watch && directory && watch_covers(export->watch, directory))
		return UINT32_MAX;
	return EXPORT_SHORT_VALIDITY_MS;
}

#include "fsserver/policy_builtin.h"
#include "base/checked.h"

static const char reason_hook[] = "git on the host runs hooks by itself, outside the VM";
static const char reason_git_config[] =
	"git's configuration names commands that git on the host runs";
static const char reason_git_link[] =
	"it tells git on the host which directory, with its hooks and config, to use";
static const char reason_git_attributes[] =
	"attributes choose the filter and merge commands that git on the host runs";
static const char reason_git_alternates[] = "it makes git on the host read objects from anywhere";
static const char reason_git_modules[] =
	"it names the places that git on the host fetches submodules from";
static const char reason_shell[] = "a shell or tool on the host runs or obeys it when it starts";
static const char reason_tool_start[] = "the program runs it when it starts on the host";
static const char reason_editor[] =
	"an editor on the host takes tasks and settings that run commands from it";
static const char reason_agent[] =
	"an agent on the host takes its permissions, tools or rules from it";
static const char reason_instructions[] = "an agent on the host follows the instructions in it";
static const char reason_commit_hook[] = "a hook manager on the host runs the commands in it";
static const char reason_ci[] = "the build service runs it with the repository's secrets";
static const char reason_toolchain[] =
	"a package manager or toolchain on the host is redirected by it";
static const char reason_ours[] = "it is Matchlock's own policy, which the sandbox may not write";
static const char reason_credentials[] = "it holds credentials of the host's user";
static const char reason_browser[] = "a browser profile holds sessions and passwords";
static const char reason_history[] = "a history holds whatever was typed, secrets among it";
static const char reason_system_secret[] = "it holds secrets of the host";
static const char reason_system_state[] = "it is state of the host, not software";

#define ROW(kind, group, pattern, reason)                                                          \
	{                                                                                          \
		POLICY_BUILTIN_##kind, pattern, group ": " pattern, reason                         \
	}

/* clang-format off */
const struct policy_builtin policy_builtin_workspace[] = {
	ROW(GIT_HOOKS, "git", ".git/hooks/**", reason_hook),
	ROW(GIT_HOOKS, "git", ".git/modules/**/hooks/**", reason_hook),
	ROW(GIT_INSIDE, "git", ".git/config", reason_git_config),
	ROW(GIT_INSIDE, "git", ".git/config.worktree", reason_git_config),
	ROW(GIT_INSIDE, "git", ".git/worktrees/*/config.worktree", reason_git_config),
	ROW(GIT_INSIDE, "git", ".git/modules/**/config", reason_git_config),
	ROW(GIT_INSIDE, "git", ".git/modules/**/config.worktree", reason_git_config),
	ROW(GIT_INSIDE, "git", ".git/worktrees/*/gitdir", reason_git_link),
	ROW(GIT_INSIDE, "git", ".git/worktrees/*/commondir", reason_git_link),
	ROW(GIT_INSIDE, "git", ".git/commondir", reason_git_link),
	ROW(GIT_INSIDE, "git", ".git/modules/**/commondir", reason_git_link),
	ROW(GIT_INSIDE, "git", ".git/info/attributes", reason_git_attributes),
	ROW(GIT_INSIDE, "git", ".git/modules/**/info/attributes", reason_git_attributes),
	ROW(GIT_INSIDE, "git", ".git/objects/info/alternates", reason_git_alternates),
	ROW(GIT_INSIDE, "git", ".git/modules/**/objects/info/alternates", reason_git_alternates),
	ROW(GIT_MODULES, "git", ".gitmodules", reason_git_modules),
	ROW(PLAIN, "git", ".gitconfig", reason_git_config),
	ROW(PLAIN, "shell", ".bashrc", reason_shell),
	ROW(PLAIN, "shell", ".bash_profile", reason_shell),
	ROW(PLAIN, "shell", ".bash_login", reason_shell),
	ROW(PLAIN, "shell", ".profile", reason_shell),
	ROW(PLAIN, "shell", ".zshrc", reason_shell),
	ROW(PLAIN, "shell", ".zprofile", reason_shell),
	ROW(PLAIN, "shell", ".zshenv", reason_shell),
	ROW(PLAIN, "shell", ".zlogin", reason_shell),
	ROW(PLAIN, "shell", ".ripgreprc", reason_shell),
	ROW(PLAIN, "shell", ".envrc", reason_shell),
	ROW(PLAIN, "shell", ".vimrc", reason_tool_start),
	ROW(PLAIN, "shell", ".exrc", reason_tool_start),
	ROW(PLAIN, "shell", ".nvim.lua", reason_tool_start),
	ROW(PLAIN, "shell", ".gdbinit", reason_tool_start),
	ROW(PLAIN, "shell", ".lldbinit", reason_tool_start),
	ROW(PLAIN, "shell", ".tmux.conf", reason_tool_start),
	ROW(PLAIN, "editors", ".vscode/**", reason_editor),
	ROW(PLAIN, "editors", "*.code-workspace", reason_editor),
	ROW(PLAIN, "editors", ".idea/**", reason_editor),
	ROW(PLAIN, "editors", ".zed/**", reason_editor),
	ROW(PLAIN, "editors", ".fleet/**", reason_editor),
	ROW(PLAIN, "editors", ".devcontainer/**", reason_editor),
	ROW(PLAIN, "editors", ".devcontainer.json", reason_editor),
	ROW(PLAIN, "editors", ".dir-locals.el", reason_editor),
	ROW(PLAIN, "agents", ".claude/**", reason_agent),
	ROW(PLAIN, "agents", ".mcp.json", reason_agent),
	ROW(PLAIN, "agents", ".claude.json", reason_agent),
	ROW(PLAIN, "agents", ".cursor/**", reason_agent),
	ROW(PLAIN, "agents", ".cursorrules", reason_agent),
	ROW(PLAIN, "agents", ".cursorignore", reason_agent),
	ROW(PLAIN, "agents", ".codex/**", reason_agent),
	ROW(PLAIN, "agents", ".agents/**", reason_agent),
	ROW(PLAIN, "agents", ".gemini/**", reason_agent),
	ROW(PLAIN, "agents", ".windsurf/**", reason_agent),
	ROW(PLAIN, "agents", ".kiro/**", reason_agent),
	ROW(PLAIN, "agents", ".roo/**", reason_agent),
	ROW(PLAIN, "agents", ".clinerules", reason_agent),
	ROW(PLAIN, "agents", ".continue/**", reason_agent),
	ROW(PLAIN, "agents", ".opencode/**", reason_agent),
	ROW(PLAIN, "agents", "opencode.json", reason_agent),
	ROW(PLAIN, "agents", ".aider*", reason_agent),
	ROW(PLAIN, "agents", ".github/copilot-instructions.md", reason_agent),
	ROW(INSTRUCTIONS, "agents", "AGENTS.md", reason_instructions),
	ROW(INSTRUCTIONS, "agents", "CLAUDE.md", reason_instructions),
	ROW(INSTRUCTIONS, "agents", "GEMINI.md", reason_instructions),
	ROW(PLAIN, "hooks", ".husky/**", reason_commit_hook),
	ROW(PLAIN, "hooks", ".pre-commit-config.yaml", reason_commit_hook),
	ROW(PLAIN, "hooks", "lefthook.y*ml", reason_commit_hook),
	ROW(PLAIN, "hooks", ".lintstagedrc*", reason_commit_hook),
	ROW(PLAIN, "ci", ".github/workflows/**", reason_ci),
	ROW(PLAIN, "ci", ".github/actions/**", reason_ci),
	ROW(PLAIN, "ci", ".gitlab-ci.yml", reason_ci),
	ROW(PLAIN, "ci", ".circleci/**", reason_ci),
	ROW(PLAIN, "ci", ".buildkite/**", reason_ci),
	ROW(PLAIN, "ci", "azure-pipelines.yml", reason_ci),
	ROW(PLAIN, "ci", "Jenkinsfile", reason_ci),
	ROW(PLAIN, "ci", ".travis.yml", reason_ci),
	ROW(PLAIN, "ci", ".drone.yml", reason_ci),
	ROW(PLAIN, "toolchain", ".npmrc", reason_toolchain),
	ROW(PLAIN, "toolchain", ".yarnrc*", reason_toolchain),
	ROW(PLAIN, "toolchain", ".yarn/releases/**", reason_toolchain),
	ROW(PLAIN, "toolchain", ".yarn/plugins/**", reason_toolchain),
	ROW(PLAIN, "toolchain", ".pnpmfile.cjs", reason_toolchain),
	ROW(PLAIN, "toolchain", "bunfig.toml", reason_toolchain),
	ROW(PLAIN, "toolchain", ".cargo/config*", reason_toolchain),
	ROW(PLAIN, "toolchain", "rust-toolchain*", reason_toolchain),
	ROW(PLAIN, "toolchain", ".mvn/**", reason_toolchain),
	ROW(PLAIN, "toolchain", "gradle/wrapper/**", reason_toolchain),
	ROW(PLAIN, "toolchain", ".bazelrc", reason_toolchain),
	ROW(PLAIN, "toolchain", "pip.conf", reason_toolchain),
	ROW(PLAIN, "toolchain", ".pypirc", reason_toolchain),
	ROW(PLAIN, "toolchain", "mise.toml", reason_toolchain),
	ROW(PLAIN, "toolchain", ".mise.toml", reason_toolchain),
	ROW(PLAIN, "toolchain", ".tool-versions", reason_toolchain),
	ROW(PLAIN, "matchlock", ".matchlock.yaml", reason_ours),
	ROW(PLAIN, "matchlock", ".matchlock/**", reason_ours),
};
const size_t policy_builtin_workspace_count = ARRAY_LENGTH(policy_builtin_workspace);

const struct policy_builtin policy_builtin_home[] = {
	ROW(PLAIN, "credentials", ".ssh", reason_credentials),
	ROW(PLAIN, "credentials", ".gnupg", reason_credentials),
	ROW(PLAIN, "credentials", ".aws", reason_credentials),
	ROW(PLAIN, "credentials", ".azure", reason_credentials),
	ROW(PLAIN, "credentials", ".config/gcloud", reason_credentials),
	ROW(PLAIN, "credentials", ".gcloud", reason_credentials),
	ROW(PLAIN, "credentials", ".kube", reason_credentials),
	ROW(PLAIN, "credentials", ".docker", reason_credentials),
	ROW(PLAIN, "credentials", ".git-credentials", reason_credentials),
	ROW(PLAIN, "credentials", ".netrc", reason_credentials),
	ROW(PLAIN, "credentials", ".npmrc", reason_credentials),
	ROW(PLAIN, "credentials", ".vault-token", reason_credentials),
	ROW(PLAIN, "credentials", ".credentials", reason_credentials),
	ROW(PLAIN, "credentials", ".secrets", reason_credentials),
	ROW(PLAIN, "credentials", ".keys", reason_credentials),
	ROW(PLAIN, "credentials", ".pki", reason_credentials),
	ROW(PLAIN, "credentials", ".terraform.d", reason_credentials),
	ROW(PLAIN, "credentials", ".config/op", reason_credentials),
	ROW(PLAIN, "credentials", ".password-store", reason_credentials),
	ROW(PLAIN, "credentials", ".local/share/keyrings", reason_credentials),
	ROW(PLAIN, "credentials", ".config/gh", reason_credentials),
	ROW(PLAIN, "credentials", ".claude", reason_credentials),
	ROW(PLAIN, "credentials", ".codex", reason_credentials),
	ROW(PLAIN, "credentials", ".claude.json", reason_credentials),
	ROW(PLAIN, "credentials", ".pypirc", reason_credentials),
	ROW(PLAIN, "credentials", ".config/git/credentials", reason_credentials),
	ROW(PLAIN, "credentials", ".config/containers/auth.json", reason_credentials),
	ROW(PLAIN, "credentials", ".cargo/credentials", reason_credentials),
	ROW(PLAIN, "credentials", ".cargo/credentials.toml", reason_credentials),
	ROW(PLAIN, "credentials", ".pgpass", reason_credentials),
	ROW(PLAIN, "credentials", ".my.cnf", reason_credentials),
	ROW(PLAIN, "credentials", ".config/rclone", reason_credentials),
	ROW(PLAIN, "credentials", ".config/sops", reason_credentials),
	ROW(PLAIN, "credentials", ".gem/credentials", reason_credentials),
	ROW(PLAIN, "browsers", ".mozilla", reason_browser),
	ROW(PLAIN, "browsers", ".thunderbird", reason_browser),
	ROW(PLAIN, "browsers", ".librewolf", reason_browser),
	ROW(PLAIN, "browsers", ".zen", reason_browser),
	ROW(PLAIN, "browsers", ".config/google-chrome*", reason_browser),
	ROW(PLAIN, "browsers", ".config/chromium*", reason_browser),
	ROW(PLAIN, "browsers", ".config/BraveSoftware", reason_browser),
	ROW(PLAIN, "browsers", ".config/microsoft-edge*", reason_browser),
	ROW(PLAIN, "browsers", ".config/vivaldi*", reason_browser),
	ROW(PLAIN, "browsers", ".config/opera*", reason_browser),
	ROW(PLAIN, "browsers", ".cache/mozilla", reason_browser),
	ROW(PLAIN, "browsers", ".cache/google-chrome*", reason_browser),
	ROW(PLAIN, "browsers", ".cache/chromium*", reason_browser),
	ROW(PLAIN, "browsers", ".cache/BraveSoftware", reason_browser),
	ROW(PLAIN, "browsers", ".cache/microsoft-edge*", reason_browser),
	ROW(PLAIN, "browsers", ".cache/vivaldi*", reason_browser),
	ROW(PLAIN, "browsers", ".var/app", reason_browser),
	ROW(PLAIN, "browsers", "snap/firefox", reason_browser),
	ROW(PLAIN, "browsers", "snap/chromium", reason_browser),
	ROW(PLAIN, "browsers", "snap/brave", reason_browser),
	ROW(PLAIN, "histories", ".*_history", reason_history),
	ROW(PLAIN, "histories", ".*_history-*", reason_history),
	ROW(PLAIN, "histories", ".histfile", reason_history),
	ROW(PLAIN, "histories", ".zhistory", reason_history),
	ROW(PLAIN, "histories", ".history", reason_history),
	ROW(PLAIN, "histories", ".lesshst", reason_history),
	ROW(PLAIN, "histories", ".viminfo", reason_history),
	ROW(PLAIN, "histories", ".local/share/fish", reason_history),
	ROW(PLAIN, "histories", ".local/state/bash", reason_history),
	ROW(PLAIN, "histories", ".local/state/zsh", reason_history),
	ROW(PLAIN, "histories", ".local/state/python_history", reason_history),
	ROW(PLAIN, "histories", ".config/fish/fish_history", reason_history),
	ROW(PLAIN, "histories", ".zsh_sessions", reason_history),
	ROW(PLAIN, "histories", ".bash_sessions", reason_history),
	ROW(PLAIN, "histories", ".wget-hsts", reason_history),
};
const size_t policy_builtin_home_count = ARRAY_LENGTH(policy_builtin_home);

/* What ends in a double star leaves an empty directory, for a guest's mount to stand on. */
const struct policy_builtin policy_builtin_system[] = {
	ROW(PLAIN, "system", "etc/shadow*", reason_system_secret),
	ROW(PLAIN, "system", "etc/gshadow*", reason_system_secret),
	ROW(PLAIN, "system", "etc/sudoers*", reason_system_secret),
	ROW(PLAIN, "system", "etc/ssh/*_key", reason_system_secret),
	ROW(PLAIN, "system", "etc/ssl/private", reason_system_secret),
	ROW(PLAIN, "system", "var/lib/**", reason_system_state),
	ROW(PLAIN, "system", "root/**", reason_system_state),
	ROW(PLAIN, "system", "home/**", reason_system_state),
	ROW(PLAIN, "system", "run/**", reason_system_state),
	ROW(PLAIN, "system", "proc/**", reason_system_state),
	ROW(PLAIN, "system", "sys/**", reason_system_state),
	ROW(PLAIN, "system", "dev/**", reason_system_state),
	ROW(PLAIN, "system", "tmp/**", reason_system_state),
};
const size_t policy_builtin_system_count = ARRAY_LENGTH(policy_builtin_system);

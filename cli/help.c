#include "cli/help.h"

#include "base/checked.h"

#include <string.h>

const char *const command_names[] = { "run",   "rollback",     "diff",	  "ls",	   "rm",
				      "prune", "audit",	       "doctor",  "trust", "config",
				      "allow", "port-forward", "version", "help",  NULL };

size_t command_name_count(void)
{
	return ARRAY_LENGTH(command_names) - 1;
}

static const char general_help[] =
	"Matchlock runs a command you do not trust in a small virtual machine, on your real "
	"files:\n"
	"what it may not touch is denied, what it changed can be seen and undone.\n"
	"\n"
	"  matchlock run --workspace . -- npm test        run it here; keep what it changes\n"
	"  matchlock diff last                            see what it changed\n"
	"  matchlock rollback last                        undo all of it\n"
	"  matchlock audit show last                      see what it did, and what was denied\n"
	"\n"
	"Commands\n"
	"  run       run a command in a fresh virtual machine\n"
	"  rollback  put the workspace back as it was before a session\n"
	"  diff      show what a session changed\n"
	"  ls        list sessions\n"
	"  rm        forget sessions\n"
	"  prune     forget old sessions\n"
	"  audit     show or verify a session's log\n"
	"  allow     let a running session reach another host, or not any more\n"
	"  port-forward  pass connections on to a running session\n"
	"  doctor    check this machine, and say how to fix what is missing\n"
	"  trust     look at a project's .matchlock.yaml, and let it take effect\n"
	"  config    show what config.yaml sets\n"
	"  version   print the version\n"
	"  help      explain a command: matchlock help run\n"
	"\n"
	"A SESSION is its id, the beginning of it, its --name, or `last`.\n";

static const char run_help[] =
	"Usage: matchlock run [FLAG...] [--] COMMAND [ARGUMENT...]\n"
	"\n"
	"Runs COMMAND in a fresh virtual machine. It sees this machine's programs read-only, an\n"
	"empty home directory, and with --workspace one directory of yours that it may change.\n"
	"It has no network but what the flags give. Files that would make your machine run\n"
	"something later (git hooks, editor and agent settings, CI workflows) cannot be written.\n"
	"\n"
	"Files\n"
	"  --workspace DIR        a directory the command may change; `.` is usual\n"
	"  --rollback-on-exit     undo every change when the command ends\n"
	"  --keep-on-success      undo every change unless the command succeeds\n"
	"  --allow-write GLOB     allow writing to protected paths that match (again for more)\n"
	"  --policy FILE          further rules\n"
	"  -v HOST:GUEST[:ro|rw]  another directory or file of the host, writable unless :ro\n"
	"  --image host|DIR       the root file system: this machine's (default), or one in DIR\n"
	"\n"
	"The command\n"
	"  -i, --interactive      pass standard input on; otherwise it is empty\n"
	"  -t, --tty              give it a terminal (-it for a shell)\n"
	"  -e, --env NAME[=VALUE] set a variable, or pass the host's value on\n"
	"  --env-file FILE        the same, one per line\n"
	"  -w, --workdir DIR      where it starts (default: the workspace)\n"
	"  -u, --user USER[:GROUP]  who it runs as in the guest (default: you)\n"
	"  --timeout TIME         end it after 90s, 5m, 2h (exit status 124)\n"
	"\n"
	"The network: none, unless one of the first four is given\n"
	"  --allow-host PATTERN   hosts it may reach: example.com, *.example.com, "
	"example.com:8443,\n"
	"                         tcp://db.example.com:5432 (again, or with commas, for more)\n"
	"  --allow-all-hosts      every host\n"
	"  --passthrough HOST     allow HOST, and do not look into its connections\n"
	"  -p [HOST:]HOSTPORT:GUESTPORT  pass connections to a port of this machine on to the "
	"guest\n"
	"  --secret NAME@HOST     the guest gets a placeholder NAME; HOST gets the value of $NAME\n"
	"                         (or NAME=file:PATH@HOST, NAME=cmd:COMMAND@HOST)\n"
	"  --canary               plant decoy secrets, and deny whatever carries one\n"
	"  --add-host NAME:ADDR   NAME is at ADDR, which may be private\n"
	"  --upstream-proxy URL, --upstream-ca FILE  connect through a proxy; trust these, too\n"
	"  --no-network           none, whatever a policy says\n"
	"\n"
	"The machine\n"
	"  --cpus N, --memory SIZE  such as 2 and 4g\n"
	"  --engine auto|kvm|qemu   what runs it (default: auto)\n"
	"  --huge-pages             with KVM: memory from the host's reserved huge pages\n"
	"  --no-snapshot            boot it, where it would go on from one that has booted\n"
	"\n"
	"The session\n"
	"  --name NAME            a name for `matchlock rollback NAME` and the like\n"
	"  --dry-run              print the plan and do nothing\n"
	"  --json                 plan, or summary at the end (on standard error), as JSON\n"
	"  --config FILE          settings in place of ~/.config/matchlock/config.yaml's\n"
	"  --no-config            none\n"
	"  --no-policy, --no-timeout, --no-quiet, --no-rollback-on-exit, --no-keep-on-success\n"
	"                         what such a file sets, taken back\n"
	"  -q, --quiet            only the command's output and errors\n"
	"  --verbose, --debug     more (`-v` is taken by volumes)\n"
	"\n"
	"Exit status: the command's own; 128 + N when signal N ended it; 124 after --timeout;\n"
	"125 when the sandbox itself failed; 126 not executable; 127 not found; 2 wrong usage.\n"
	"\n"
	"Examples\n"
	"  matchlock run --workspace . --rollback-on-exit -- make test\n"
	"  matchlock run --workspace . -it -- bash\n"
	"  matchlock run --workspace . --allow-host registry.npmjs.org -- npm install\n"
	"  matchlock run --workspace . --keep-on-success --timeout 10m -- ./fix-everything.sh\n"
	"  matchlock run -v ~/data:/data:ro --workspace . -e DEBUG=1 -- python3 report.py\n"
	"  git diff | matchlock run -i -- patch-checker\n";

static const char rollback_help[] =
	"Usage: matchlock rollback [--json] SESSION\n"
	"\n"
	"Puts everything the session changed back as it was: contents, names, modes and times.\n"
	"Works after a crash or kill of any of Matchlock's processes, and again after a roll-back\n"
	"that was interrupted. What you edited on the host meanwhile is kept beside it and named.\n"
	"\n"
	"  matchlock rollback last\n";

static const char diff_help[] =
	"Usage: matchlock diff [--json] [--name-only] SESSION [PATH...]\n"
	"\n"
	"Shows what the session changed, files your machine might run first. Works while the\n"
	"session runs, after a crash, and after a roll-back.\n"
	"\n"
	"  matchlock diff last\n"
	"  matchlock diff last src/ Makefile\n";

static const char ls_help[] =
	"Usage: matchlock ls [--json] [-q]\n"
	"\n"
	"Lists sessions, newest first; -q only ids. STATUS is\n"
	"  running      the command runs\n"
	"  exited       it ended; its changes are in place and can be undone\n"
	"  kept         the same, and --keep-on-success kept them\n"
	"  rolled-back  its changes were undone\n"
	"  crashed      Matchlock was killed; `matchlock rollback SESSION` undoes the changes\n";

static const char rm_help[] =
	"Usage: matchlock rm [--force] SESSION...\n"
	"\n"
	"Forgets sessions: record, log and undo store. Changes that are in place stay, and cannot\n"
	"be undone afterwards; --force says that this is meant. A running session stays.\n";

static const char prune_help[] =
	"Usage: matchlock prune [--older-than TIME] [--force]\n"
	"\n"
	"Forgets finished sessions older than TIME (default 7d; 0 for all), after asking. Without\n"
	"a terminal it needs --force. Crashed sessions that can be rolled back need --force, "
	"too.\n";

static const char audit_help[] =
	"Usage: matchlock audit show [SESSION] [--json] [--denied] [--kind KIND] [--path GLOB]\n"
	"                            [--host GLOB] [--since TIME] [--follow]\n"
	"       matchlock audit verify [SESSION] [--expect HASH]\n"
	"\n"
	"show prints what happened in a session; verify tells whether the log is complete and\n"
	"unchanged, and names the first bad record. Without SESSION the last one is meant.\n"
	"\n"
	"  matchlock audit show last --denied\n";

static const char allow_help[] = "Usage: matchlock allow add SESSION PATTERN...\n"
				 "       matchlock allow rm SESSION PATTERN...\n"
				 "       matchlock allow ls SESSION\n"
				 "\n"
				 "Changes, while a session with a network runs, which hosts it may "
				 "reach. PATTERN is as for\n"
				 "`matchlock run --allow-host`. Connections that are there stay.\n"
				 "\n"
				 "  matchlock allow add last api.example.com\n";

static const char port_forward_help[] =
	"Usage: matchlock port-forward SESSION [HOST:]HOSTPORT:GUESTPORT...\n"
	"\n"
	"Passes connections to ports of this machine on to the loopback of a session that runs "
	"with\n"
	"a network, until one of the two ends. HOST is the address to listen at: 127.0.0.1 unless\n"
	"given.\n"
	"\n"
	"  matchlock port-forward last 8080:80\n";

static const char doctor_help[] =
	"Usage: matchlock doctor [--json]\n"
	"\n"
	"Checks what Matchlock needs of this machine, and says how to fix what is missing. Exit\n"
	"status 0 when `matchlock run` can work, 1 when it cannot.\n";

static const char trust_help[] =
	"Usage: matchlock trust [--show] [--json] [DIR]\n"
	"       matchlock trust --remove [DIR]\n"
	"       matchlock trust --list [--json]\n"
	"\n"
	"A project's .matchlock.yaml can take away from what a session in it may do: deny files,\n"
	"limit memory, ask for a roll-back. It is ignored until you trust it, and again when it\n"
	"changes. This prints what DIR's (default: here) asks for, and trusts it; --show only\n"
	"prints. Nothing in it can open anything.\n";

static const char config_help[] =
	"Usage: matchlock config [--config FILE] [--json]\n"
	"\n"
	"Prints the settings of `matchlock run` as config.yaml leaves them, and where each comes\n"
	"from. The file is $XDG_CONFIG_HOME/matchlock/config.yaml (default ~/.config); flags of\n"
	"`matchlock run` win over it.\n";

static const char version_help[] = "Usage: matchlock version\n";
static const char help_help[] = "Usage: matchlock help [COMMAND]\n";

const char *help_text(const char *command)
{
	static const struct {
		const char *name;
		const char *text;
	} texts[] = {
		{ "run", run_help },	     { "rollback", rollback_help },
		{ "diff", diff_help },	     { "ls", ls_help },
		{ "rm", rm_help },	     { "prune", prune_help },
		{ "audit", audit_help },     { "doctor", doctor_help },
		{ "trust", trust_help },     { "config", config_help },
		{ "allow", allow_help },     { "port-forward", port_forward_help },
		{ "version", version_help }, { "help", help_help },
	};

	if (!command)
		return general_help;
	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		if (strcmp(texts[i].name, command) == 0)
			return texts[i].text;
	}
	return NULL;
}

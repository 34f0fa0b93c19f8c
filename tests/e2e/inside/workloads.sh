#!/usr/bin/env bash
# Real programs at work on a workspace, run inside the VM: inside/workloads.sh GROUP... prints one
# TAP line a check. The working directory is the workspace.
set -u
count=0
t() # NAME COMMAND...: passes when the command does
{
	local name=$1 output
	shift
	count=$((count + 1))
	if output=$("$@" 2>&1); then
		echo "ok $count - $name"
	else
		echo "not ok $count - $name (status $?)"
		printf '%s\n' "$output" | tail -n 15 | sed 's/^/# /'
	fi
}
git() { command git -c user.name=Agent -c user.email=agent@example.invalid -c init.defaultBranch=main "$@"; }

group_git()
{
	# `origin` is a real repository that stood in the workspace before the run.
	t "git status in a repository of the host's" git -C origin status --short
	t "git commit there" sh -c 'cd origin && echo line >> README.md && git -c user.name=A -c user.email=a@example.invalid commit -qam inside'
	t "git gc there" git -C origin gc -q
	t "git worktree add there" git -C origin worktree add -q ../side
	t "commit in the worktree" sh -c 'cd side && echo side > side.txt && git add side.txt && git -c user.name=A -c user.email=a@example.invalid commit -qm side'
	t "git clone" git clone -q origin clone
	t "clone is intact" git -C clone fsck --strict
	clone_work()
	{
		set -e
		cd clone
		git checkout -qb topic HEAD~1
		echo topic >topic.txt
		git add topic.txt
		git commit -qm topic
		git rebase -q main
		git stash list
		git merge-base --is-ancestor main topic
	}
	t "branch, commit, rebase in the clone" clone_work
	t "git gc in the clone" git -C clone gc -q --prune=now
	t "git worktree add in the clone" git -C clone worktree add -q ../worktree topic~1
	t "git submodule add in the clone" git -C clone -c protocol.file.allow=always submodule --quiet add "$PWD/origin" sub
	t "submodule commit" git -C clone commit -qm submodule
	t "init, bare, push" sh -c 'git init -q --bare bare.git && git -C clone push -q "$PWD/bare.git" topic && git -C bare.git rev-parse -q --verify topic'
	t "everything is intact afterwards" sh -c 'git -C clone fsck --strict && git -C origin fsck --strict && git -C clone status --short | (! grep .)'
}

group_python()
{
	t "python3 -m venv" /usr/bin/python3 -m venv --without-pip venv
	t "the environment's python runs" venv/bin/python -c 'import sys, json; assert sys.prefix != sys.base_prefix'
	t "imports are compiled and kept" sh -c 'mkdir -p package && echo "value = 7" > package/__init__.py && venv/bin/python -c "import package; assert package.value == 7" && ls package/__pycache__/*.pyc'
}

group_node()
{
	mkdir -p library application
	echo '{"name":"library","version":"1.0.0","main":"index.js"}' >library/package.json
	echo 'module.exports = (a, b) => a + b;' >library/index.js
	echo '{"name":"application","version":"1.0.0","private":true}' >application/package.json
	t "npm install from a local directory" sh -c 'cd application && npm install --offline --no-audit --no-fund --loglevel=error ../library'
	t "node requires what was installed" sh -c 'cd application && test "$(node -p "require(\"library\")(3, 4)")" = 7'
}

group_tar()
{
	local files=${WORKLOAD_FILES:-10000}
	make_tree()
	{
		/usr/bin/python3 - "$files" <<-'P'
			import os, sys
			for i in range(int(sys.argv[1])):
			    d = f"tree/{i % 100:02d}"
			    os.makedirs(d, exist_ok=True)
			    with open(f"{d}/{i}.txt", "w") as f:
			        f.write(f"file {i}\n" * (i % 40))
		P
	}
	t "make $files files" make_tree
	t "tar them" tar -cf tree.tar tree
	t "untar them elsewhere" sh -c 'mkdir again && tar -xf tree.tar -C again'
	t "the copies are the same" diff -r tree again/tree
	t "rm -rf both" rm -rf tree again
}

group_sqlite()
{
	# sh -c: the database is closed and opened again between the two.
	t "sqlite with a write-ahead log" sh -c 'sqlite3 data.db "PRAGMA journal_mode=WAL; CREATE TABLE t(n INTEGER PRIMARY KEY, s TEXT); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<20000) INSERT INTO t SELECT n, hex(n*n) FROM c;" | grep -qx wal'
	t "the database is intact" sh -c 'test "$(sqlite3 data.db "PRAGMA integrity_check; SELECT count(*) FROM t;" | tr "\n" " ")" = "ok 20000 "'
	two_writers()
	{
		for i in 1 2; do
			sqlite3 -cmd '.timeout 20000' data.db "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<200) INSERT INTO t(s) SELECT 'w$i' FROM c;" &
		done
		wait
		test "$(sqlite3 data.db "SELECT count(*) FROM t WHERE s IN ('w1', 'w2')")" = 400
	}
	t "two writers at once" two_writers
}

group_system()
{
	t "compile and run C" sh -c 'echo "int main(void){return 42;}" > a.c && gcc -o a a.c && ./a; test $? = 42'
	t "ps shows processes" sh -c 'ps -ef | grep -q "[g]uest-init\|[i]nit"'
	t "pipelines" sh -c 'test "$(seq 1000 | sort -n | tail -n 1 | tr -d "\n" | wc -c)" = 4'
	t "the command runs as the caller, by name" sh -c 'test "$(id -un)" = "$USER" && test "$(id -u)" = "$WORKLOAD_UID"'
	t "HOME is writable" sh -c 'cd "$HOME" && touch .probe && rm .probe'
	t "/tmp, /dev/shm and /run are there" sh -c 'touch /tmp/a /dev/shm/a && test -d /run'
	t "loopback works" /usr/bin/python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname(), 5)'
	t "there is no other network, said at once" sh -c '! timeout 5 /usr/bin/python3 -c "import socket; socket.create_connection((\"192.0.2.1\", 80), 4)"; test $? != 124'
	t "fifo between processes" sh -c 'mkfifo pipe && (echo through > pipe &) && test "$(cat pipe)" = through && rm pipe'
	t "unix socket in the workspace" /usr/bin/python3 -c 'import socket, os
s = socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect("sock"); os.unlink("sock")'
	t "flock excludes" sh -c 'exec 9> lock; flock -n 9 || exit 1; ! flock -n lock true'
	t "clock within a minute of the host" sh -c 'd=$(($(date +%s) - WORKLOAD_TIME)); test $d -ge -60 && test $d -le 600'
	t "device nodes are refused" sh -c '! mknod device c 1 3'
}

for group; do
	"group_$group"
done
echo "1..$count"

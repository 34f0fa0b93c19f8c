#!/bin/sh
# What the file benchmark does in a guest, ours or the peer's: busybox's sh, and busybox's programs.
#   files_steps.sh BUSYBOX GUEST_STEPS TREE SCRATCH GIT
# TREE is the mounted directory, mounted just now; SCRATCH is memory of the guest; GIT is a directory
# with git's program and its libraries.
busybox=$1
steps=$2
tree=$3
scratch=$4
git=$5
export busybox tree scratch git

# The programs themselves do not come over the mount, nor does the archive that is unpacked.
"$busybox" mkdir -p "$scratch/bin"
"$busybox" cp "$busybox" "$steps" "$scratch/bin/"
busybox=$scratch/bin/${busybox##*/}
steps=$scratch/bin/${steps##*/}
"$busybox" cp "$tree/tree.tar" "$scratch/tree.tar"
"$busybox" cp -r "$git" "$scratch/git"
git=$scratch/git
"$busybox" mkdir "$scratch/templates"
printf '[safe]\n\tdirectory = *\n' >"$scratch/.gitconfig"

sh_step()
{
	"$steps" time "$1" "$busybox" sh -c "$2"
}

# shellcheck disable=SC2016 # expanded by the inner shell
{
	sh_step find-cold '"$busybox" find "$tree/tree" | "$busybox" wc -l'
	sh_step find-warm '"$busybox" find "$tree/tree" | "$busybox" wc -l'
	sh_step stat-all '"$busybox" find "$tree/tree" | "$busybox" xargs "$busybox" ls -ld'
	sh_step cat-cold '"$busybox" find "$tree/tree" -type f | "$busybox" xargs "$busybox" cat'
	sh_step cat-warm '"$busybox" find "$tree/tree" -type f | "$busybox" xargs "$busybox" cat'
	sh_step untar '"$busybox" mkdir "$tree/out" && "$busybox" tar xf "$scratch/tree.tar" -C "$tree/out"'
	sh_step rm-rf '"$busybox" rm -rf "$tree/out"'
	sh_step read-cold '"$busybox" dd if="$tree/big" of=/dev/null bs=1M'
	sh_step read-warm '"$busybox" dd if="$tree/big" of=/dev/null bs=1M'
	sh_step write-big '"$busybox" dd if=/dev/zero of="$tree/new" bs=1M count=128'
}
"$steps" time random-read "$steps" random-read "$tree/random" 2000
"$steps" time random-write "$steps" random-write "$tree/random" 2000
export LD_LIBRARY_PATH="$git" GIT_EXEC_PATH="$git" GIT_TEMPLATE_DIR="$scratch/templates"
export HOME="$scratch" GIT_CONFIG_NOSYSTEM=1
# Once before the clock starts: it notes in the index what the files look like in here.
"$git/git" -C "$tree/repository" status --porcelain >/dev/null
"$steps" time git-status "$git/git" -C "$tree/repository" status --porcelain
"$steps" time git-clone "$git/git" clone -q --no-hardlinks "$tree/repository" "$tree/clone"

#!/usr/bin/env bash
# Files in a VM: `matchlock run` against virtiofsd (cache=always) under the same QEMU, kernel and
# guest programs, in turn, a fresh machine and a fresh mount for each round.
# Prints name, ours, peer, ratio, target, ok|short.
#
# VM_ROUNDS (default 3) is how often each is timed, VM_CPUS (default 1) the guest's processors.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=bench/lib.sh
. bench/lib.sh

build=$(realpath "${MATCHLOCK_BUILD:-build/release}")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/matchlock-bench.XXXXXX")
# In memory, if it may be mounted: on disk what one side deletes slows down what the other creates
# for a minute (ext4 looks past the inodes that were just freed).
mount -t tmpfs -o size=1g,mode=0700 bench "$scratch" 2>/dev/null
finish()
{
	cd /
	umount -l "$scratch" 2>/dev/null
	rm -rf "$scratch"
}
trap finish EXIT
bench_log=${BENCH_LOG:-$scratch/log}
vm_rounds=${VM_ROUNDS:-3}
vm_cpus=${VM_CPUS:-1}
vm_limit=${VM_LIMIT:-90} # seconds a round may take
virtiofsd=/usr/lib/qemu/virtiofsd

# The peer's module, which the product's guests have no use for: from the package that the
# kernel came from.
virtiofs_module() # KERNEL DIRECTORY
{
	local cache=${XDG_CACHE_HOME:-$HOME/.cache}/matchlock/bench version work package
	version=$(cat "$1/version")
	if [ ! -s "$cache/virtiofs-$version.ko" ]; then
		work=$scratch/package
		mkdir -p "$work" "$cache"
		package=${MATCHLOCK_KERNEL_DEB:-}
		if [ -z "$package" ]; then
			package=$(apt-cache depends --no-recommends --no-suggests linux-image-cloud-amd64 |
				sed -n '0,/^ *Depends: linux-image-[0-9]/s/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p')
			(cd "$work" && apt-get -q download "$package=$version") >>"$bench_log" 2>&1 || return 1
			package=$(find "$work" -name '*.deb' -print -quit)
		fi
		dpkg-deb -x "$package" "$work/tree" || return 1
		cp "$(find "$work/tree" -name virtiofs.ko -print -quit)" "$cache/virtiofs-$version.ko" || return 1
		rm -rf "$work"
	fi
	echo "$cache/virtiofs-$version.ko"
}

# Git and its libraries, for both guests.
git_programs() # DIRECTORY
{
	local library
	mkdir -p "$1"
	cp "$(command -v git)" "$1/git" || return 1
	# By this name it is started to send what is cloned.
	ln -s git "$1/git-upload-pack"
	ldd "$1/git" | awk '$3 ~ /^\// { print $3 }' | while read -r library; do
		cp -L "$library" "$1/"
	done
}

# The peer's initramfs: busybox, git, the steps, the kernel's modules and virtiofs.
peer_initrd() # OUT KERNEL MODULE
{
	local tree=$scratch/initrd name
	mkdir -p "$tree"/{bin,dev,etc,lib64,proc,sys,tmp,mnt,modules}
	# tar looks names up for each file: in ours it finds the host's.
	cp /etc/passwd /etc/group "$tree/etc/"
	cp /bin/busybox "$scratch/programs/guest_steps" "$tree/bin/"
	cp bench/files_steps.sh "$tree/steps.sh"
	cp -a "$scratch/programs/git" "$tree/git"
	# Ours has these from the host's system: git is linked to the one and starts the other.
	cp -L /lib64/ld-linux-x86-64.so.2 "$tree/lib64/"
	ln -s busybox "$tree/bin/sh"
	# Only what it needs: modules are loaded before the clock starts.
	for name in virtio_ring virtio virtio_mmio fuse; do
		cp "$2"/modules/*-"$name.ko" "$tree/modules/" || return 1
	done
	cp "$3" "$tree/modules/99-virtiofs.ko"
	cat >"$tree/init" <<'END'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for module in /modules/*.ko; do $b insmod "$module"; done
$b mount -t tmpfs tmp /tmp
$b mount -t virtiofs bench /mnt && $b sh /steps.sh $b /bin/guest_steps /mnt /tmp /git
echo steps-done
/bin/guest_steps off
END
	chmod +x "$tree/init"
	(cd "$tree" && find . -print0 | cpio --null -o -H newc --quiet) >"$1"
}

vm_round_peer() # OUT
{
	local socket=$scratch/virtiofsd.sock daemon kernel=$vm_kernel khz
	khz=$(awk '/^cpu MHz/ { printf "%d", $4 * 1000; exit }' /proc/cpuinfo)
	rm -f "$socket"
	"$virtiofsd" --socket-path="$socket" -o source="$scratch/vm-peer" -o cache=always \
		-o sandbox=chroot >>"$bench_log" 2>&1 &
	daemon=$!
	for ((i = 0; i < 100; i++)); do
		[ -S "$socket" ] && break
		sleep 0.05
	done
	timeout "$vm_limit" qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
		-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
		-M microvm,pit=on,pic=on,rtc=on,usb=off,memory-backend=memory \
		-accel tcg,thread=multi,tb-size=256 -cpu max,erms=off -smp "$vm_cpus" -m 512M \
		-object memory-backend-memfd,id=memory,size=512M,share=on \
		-global virtio-mmio.force-legacy=false \
		-kernel "$kernel/vmlinux" -initrd "$scratch/peer.cpio" \
		-append "tsc_early_khz=$khz tsc=reliable no_timer_check mitigations=off cryptomgr.notests quiet loglevel=1 panic=-1 reboot=t random.trust_cpu=on console=ttyS0 8250.nr_uarts=1" \
		-chardev stdio,id=console,signal=off -serial chardev:console \
		-chardev "socket,id=fs,path=$socket" \
		-device vhost-user-fs-device,chardev=fs,tag=bench,queue-size=1024 \
		</dev/null 2>>"$bench_log" | tr -d '\r' >"$1"
	kill "$daemon" 2>/dev/null
	wait "$daemon" 2>/dev/null
	rm -rf "$scratch/vm-peer"/{out,new,clone}
}

vm_round_ours() # OUT
{
	timeout "$vm_limit" "$build/matchlock" run -q --workspace "$scratch/vm-ours" --engine qemu \
		--cpus "$vm_cpus" --memory 512m -v "$scratch/programs:/bench:ro" -- \
		/bench/busybox sh /bench/files_steps.sh /bench/busybox /bench/guest_steps \
		"$scratch/vm-ours" /tmp/bench /bench/git >"$1" 2>>"$bench_log" </dev/null
	rm -rf "$scratch/vm-ours"/{out,new,clone}
}

# The median of a step's seconds over the rounds of one side, or 0.
vm_median() # SIDE STEP
{
	awk -v step="$2" '$1 == "step" && $2 == step && $4 == 0 { print $3 }' "$scratch/$1".[0-9]* |
		median
}

# Deterministic: the C sources of this tree, several times over, to 700 files and 12 MB.
vm_tree() # DIRECTORY
{
	local file number=0 copy
	local -a sources
	mapfile -t sources < <(find base wire jail audit cli fsserver vmm guest-init guest-fused tests \
		-name '*.[ch]' ! -name '*table.c' | LC_ALL=C sort)
	for ((copy = 0; number < 700; copy++)); do
		for file in "${sources[@]}"; do
			[ "$number" -lt 700 ] || break
			mkdir -p "$1/tree/copy$copy/${file%/*}"
			# Twice over, so that the mean is what C sources have.
			cat "$file" "$file" >"$1/tree/copy$copy/$file"
			number=$((number + 1))
		done
	done
	tar cf "$1/tree.tar" -C "$1" --sort=name tree
	dd if=/dev/urandom of="$1/big" bs=1M count=128 status=none
	dd if=/dev/urandom of="$1/random" bs=1M count=32 status=none
	cp -r "$1/tree" "$1/repository"
	(cd "$1/repository" && git init -q && git add -A &&
		git -c user.name=b -c user.email=b@b commit -qm tree) >>"$bench_log" 2>&1
}

bench_files_vm()
{
	local module round step target ours peer
	# The peer's virtiofs is a module of Debian's.
	export MATCHLOCK_KERNEL=debian
	vm_kernel=$(scripts/guest-kernel.sh --print) || return 1
	if [ ! -x "$virtiofsd" ] || [ ! -x /bin/busybox ]; then
		echo "bench files vm: needs virtiofsd (qemu-system-common) and busybox-static" >&2
		return 0
	fi
	module=$(virtiofs_module "$vm_kernel") || {
		echo "bench files vm: cannot get virtiofs.ko out of the kernel's package" >&2
		return 0
	}
	mkdir -p "$scratch"/{programs,vm-ours,vm-peer}
	gcc -O2 -Wall -static -o "$scratch/programs/guest_steps" bench/guest_steps.c || return 1
	cp /bin/busybox bench/files_steps.sh "$scratch/programs/"
	git_programs "$scratch/programs/git" || return 1
	peer_initrd "$scratch/peer.cpio" "$vm_kernel" "$module" || return 1
	vm_tree "$scratch/vm-ours"
	cp -r "$scratch/vm-ours/." "$scratch/vm-peer/"
	echo "# VM: load $(cut -d' ' -f1-3 /proc/loadavg); $vm_rounds rounds; $vm_cpus CPUs; seconds" >&2
	for ((round = 1; round <= vm_rounds; round++)); do
		vm_round_ours "$scratch/ours.$round"
		vm_round_peer "$scratch/peer.$round"
	done
	while read -r step target; do
		ours=$(vm_median ours "$step")
		peer=$(vm_median peer "$step")
		if [ "$ours" != 0 ] && [ "$peer" != 0 ]; then
			row "vm $step, virtiofsd" "$ours" "$peer" "$target"
		else
			# A side that never finished the step has no time.
			printf 'vm %s, virtiofsd\t%s\t%s\t-\t%s\tshort\n' "$step" "${ours/#0/failed}" \
				"${peer/#0/failed}" "$target"
		fi
	done <<-END
		find-cold 0.5
		find-warm 0.5
		stat-all 0.5
		cat-cold 0.8
		cat-warm 0.8
		untar 0.8
		rm-rf 0.5
		read-cold 0.8
		read-warm 0.8
		write-big 0.8
		random-read 0.8
		random-write 0.8
		git-status 0.5
		git-clone 0.8
	END
}

bench_files_vm

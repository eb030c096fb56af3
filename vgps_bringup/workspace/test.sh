#!/usr/bin/env bash
# The tests of every package: test.sh [fast|long]. Real nodes with real deadlines run one after the other; what needs no
# ROS runs in one thread a core, and where both are asked for it takes what the nodes leave of the cores.
#   (nothing)   all but those that take minutes each   make test
#   fast        without ROS, without the slow ones     make test-fast
#   long        only those that take minutes each      make test-long
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
packages=(vgps_msgs vgps_critic vgps_policy_bridge vgps_bringup training)
work="$(mktemp -d)"
trap '[ -z "${other:-}" ] || kill -- -"$other" 2>/dev/null; rm -rf "$work"' EXIT
started=$SECONDS
tests() {
    local package=$1 code; shift
    (cd "$package" && python -m pytest -q -p no:cacheprovider "$@"); code=$?
    [ $code -eq 5 ] || [ $code -eq 0 ] || echo "$package: pytest $*" >> "$work/failed"  # 5: none of this kind
}
beside() { for package in "${packages[@]}"; do tests "$package" test -m "$1" -n "${TEST_WORKERS:-auto}" --dist worksteal; done; }
alone() {  # only the files that hold such tests are read: to import all would take half a minute
    local package files
    for package in "${packages[@]}"; do
        files="$(cd "$package" && grep -rlE "mark\.${1##* }\b" --include='test_*.py' test)"
        [ -z "$files" ] || tests "$package" $files -m "$@"
    done
}
case "${1:-}" in
    fast) beside 'not ros and not slow and not long' ;;
    long) alone long ;;
    *)    set -m  # in a process group of its own, which is ended with this one
          (renice -n 19 $BASHPID; beside 'not ros and not long') > "$work/beside" 2>&1 &
          other=$!
          set +m
          # a starved machine may take a live test past a deadline: it gets one more try, and the summary names it (RERUN)
          alone 'not long and ros' --reruns 1 --reruns-delay 5 -rR
          wait "$other"
          cat "$work/beside" ;;
esac
printf 'tests took %s s\n' "$((SECONDS - started))"
[ ! -s "$work/failed" ] || { sed 's/^/FAILED /' "$work/failed"; exit 1; }

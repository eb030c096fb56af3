#!/usr/bin/env bash
# The tests of every package: test.sh [fast|long]. Those that need no ROS run beside each other, one thread each; real
# nodes with real deadlines one after the other.
#   (nothing)   all but those that take minutes each   make test
#   fast        without ROS, without the slow ones     make test-fast
#   long        only those that take minutes each      make test-long
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
packages=(vgps_msgs vgps_critic vgps_policy_bridge vgps_bringup training)
started=$SECONDS
status=0
tests() {
    local package=$1 code; shift
    (cd "$package" && python -m pytest -q -p no:cacheprovider "$@"); code=$?
    [ $code -eq 5 ] || [ $code -eq 0 ] || { status=1; failed+=("$package: pytest $*"); }  # 5: none of this kind
}
failed=()
beside() { for package in "${packages[@]}"; do tests "$package" test -m "$1" -n "${TEST_WORKERS:-auto}" --dist worksteal; done; }
alone() {  # MARK EXPRESSION: only the files that hold the mark are read, to import all would take half a minute
    local package files mark=$1; shift
    for package in "${packages[@]}"; do
        files="$(cd "$package" && grep -rlE "mark\.$mark\b" --include='test_*.py' test)"
        [ -z "$files" ] || tests "$package" $files -m "$@"
    done
}
case "${1:-}" in
    fast) beside 'not ros and not slow and not long' ;;
    long) alone long long ;;
    *)    beside 'not ros and not long'
          # a starved machine may take a live test past a deadline: it gets one more try, and the summary names it (RERUN)
          alone ros 'ros and not long' --reruns 1 --reruns-delay 5 -rR ;;
esac
printf 'tests took %s s\n' "$((SECONDS - started))"
[ ${#failed[@]} -eq 0 ] || printf 'FAILED %s\n' "${failed[@]}"
exit $status

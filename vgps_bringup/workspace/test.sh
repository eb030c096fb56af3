#!/usr/bin/env bash
# The tests of every package. Run by `make test`, and by `make test-fast` with the word "fast": without ROS, without the slow
# ones. Those that need no ROS run beside each other, one thread each; real nodes with real deadlines one after the other.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
packages=(vgps_msgs vgps_critic vgps_policy_bridge vgps_bringup training)
started=$SECONDS
status=0
tests() {
    local package=$1 code; shift
    (cd "$package" && python -m pytest test -q -p no:cacheprovider "$@"); code=$?
    [ $code -eq 5 ] || [ $code -eq 0 ] || { status=1; failed+=("$package: pytest $*"); }  # 5: none of this kind
}
failed=()
only='not ros and not long'; [ "${1:-}" = fast ] && only='not ros and not slow and not long'
for package in "${packages[@]}"; do tests "$package" -m "$only" -n "${TEST_WORKERS:-auto}" --dist worksteal; done
if [ "${1:-}" != fast ]; then
    # a starved machine may take a live test past a deadline: it gets one more try, and the summary names it (RERUN)
    for package in "${packages[@]}"; do tests "$package" -m "ros and not long" --reruns 1 --reruns-delay 5 -rR; done
fi
printf 'tests took %s s\n' "$((SECONDS - started))"
[ ${#failed[@]} -eq 0 ] || printf 'FAILED %s\n' "${failed[@]}"
exit $status

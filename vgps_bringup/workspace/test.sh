#!/usr/bin/env bash
# The tests of every package: test.sh [fast|long].
#   (nothing)   all but those that take minutes each   make test
#   fast        without ROS, without the slow ones     make test-fast
#   long        only those that take minutes each      make test-long
# Real nodes with real deadlines come first on a core: those of the arm alone, of the others two files at a time, each in
# a DDS domain of its own. What needs no ROS fills the time in which they wait, at a lower priority.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset PYTHONDONTWRITEBYTECODE  # else every worker and every node would compile everything again
tests=({vgps_msgs,vgps_critic,vgps_policy_bridge,vgps_bringup,training}/test)
started=$SECONDS
status=0
pytest=(python -m pytest -q -p no:cacheprovider)
without_ros=("${pytest[@]}" "${tests[@]}" -n "${TEST_WORKERS:-auto}" --dist worksteal)
marked() { grep -rlE "mark\.$1\b" --include='test_*.py' "${tests[@]}"; }  # to import the others would take half a minute
case "${1:-all}" in
    fast) "${without_ros[@]}" -m 'not ros and not slow and not long' || status=$? ;;
    long) "${pytest[@]}" $(marked long) -m long || status=$? ;;
    all)  report="$(mktemp)"
          nice -n 10 "${without_ros[@]}" -m 'not ros and not long' > "$report" 2>&1 & beside=$!
          trap 'kill $beside 2> /dev/null; rm -f "$report"' EXIT
          # a starved machine may take a live test past a deadline: it gets one more try, and the summary names it (RERUN)
          live=("${pytest[@]}" -m 'ros and not long' --reruns 1 --reruns-delay 5 -rR)
          "${live[@]}" $(marked ros | grep '/arm/') -n 1 || status=$?
          "${live[@]}" $(marked ros | grep -v '/arm/') -n 2 --dist loadfile || status=$?
          wait $beside || status=$?
          cat "$report" ;;
    *)    echo "test.sh takes fast or long, not '$1'" >&2; exit 2 ;;
esac
printf 'tests took %s s\n' "$((SECONDS - started))"
[ $status -eq 0 ] || echo 'FAILED: see the summaries above'
exit $status

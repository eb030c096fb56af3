#!/usr/bin/env bash
# Every test: the ROS packages through colcon, the training project through pytest. Run by `make test`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# away from whatever robot is running on this network
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_LOCALHOST_ONLY=1 ROS_DOMAIN_ID=$((1 + $$ % 100))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
started=$SECONDS
status=0
# one package after the other: real nodes with real deadlines run in these tests
colcon test --executor sequential --event-handlers console_direct+ --return-code-on-test-failure || status=1
colcon test-result || status=1
python -m pytest training/test -q -p no:cacheprovider || status=1
echo "tests took $((SECONDS - started)) s"
exit $status

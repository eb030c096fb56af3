#!/usr/bin/env bash
# The benchmarks the documentation quotes; each prints ratios against a baseline of the same run. Run by `make bench`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$((1 + $$ % 100))
run() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }
lscpu | grep -E 'Model name|^CPU\(s\)'
run python -m vgps_critic.benchmarks.latency
run python -m vgps_critic.benchmarks.threads --loads 0,8 --rounds 3
run python -m vgps_critic.benchmarks.memory --num-filters 4 --image-size 64
run python -m vgps_bringup.benchmarks.command_latency
run python -m vgps_bringup.benchmarks.command_latency --system
run python -m vgps_bringup.benchmarks.rejudging
run python -m vgps_training.benchmarks.loader --quick
run python -m vgps_training.benchmarks.start
run vgps-evaluate overhead
run vgps-benchmark-policy

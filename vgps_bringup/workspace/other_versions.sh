#!/usr/bin/env bash
# The fast tests, without ROS, in an environment of their own: other_versions.sh lowest|newest. VGPS_PYTHON: see setup.sh.
#   lowest   every package at its lower bound (requirements/base.txt)
#   newest   what a newcomer without our lock would get today
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
here="$root/vgps_bringup/workspace"
venv="$root/.venv-$1"
log="$venv/setup.log"
python="${VGPS_PYTHON:-python3}"
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf '\033[31merror:\033[0m %s\n' "$*" >&2; exit 1; }
. "$here/install.sh"
case "$1" in lowest) how=(--resolution lowest-direct) ;; newest) how=(--upgrade) ;; *) fail "lowest or newest, not $1" ;; esac
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
: > "$log"
prepare_installer
install_cpu_torch "${how[@]}" -c "$here/requirements/base.txt"
kept="$(python_of -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' 2>/dev/null || true)"
install "${how[@]}" -c <(echo "$kept") -r "$here/requirements/base.txt"
install -r "$here/requirements/test.txt" -r "$here/requirements/base.txt"  # the tests' own tools are not what is tested
install --no-deps --no-build-isolation -e "$root/vgps_critic" -e "$root/vgps_policy_bridge" -e "$root/vgps_bringup" \
    -e "$root/training"
"$venv/bin/uv" pip freeze --python "$venv/bin/python" > "$venv/versions.txt"
say "$1:" \
    $(grep -iE '^(torch|numpy|mujoco|opencv-python|scipy)==' "$venv/versions.txt")
. "$venv/bin/activate"
# by path: beside the tests' conftest.py the folders of the packages' names would be taken for the packages
export PYTHONPATH="$root/vgps_msgs:$root/vgps_critic:$root/vgps_policy_bridge:$root/vgps_bringup:$root/training" AMENT_PREFIX_PATH=
"$here/test.sh" fast

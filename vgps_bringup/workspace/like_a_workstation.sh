#!/usr/bin/env bash
# Setup, build and one episode as on a workstation with ROS 2 from apt: ROS and colcon belong to the system's Python, ROS is
# sourced, and .venv sees its packages. The system here is a folder with the ROS wheels; nothing else is touched.
#   vgps_bringup/workspace/like_a_workstation.sh [FOLDER]       FOLDER: kept, and used again (default: a temporary one)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
folder="${1:-$(mktemp -d)}"
mkdir -p "$folder"; folder="$(cd "$folder" && pwd)"
[ $# -gt 0 ] || trap 'rm -rf "$folder"' EXIT
here="$root/vgps_bringup/workspace"
venv="$folder/system"   # what install.sh installs into: the part of /opt/ros and /usr
log="$folder/system.log"
python="${VGPS_PYTHON:-python3}"
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf '\033[31merror:\033[0m %s\n' "$*" >&2; exit 1; }
. "$here/install.sh"

if [ ! -f "$folder/setup.bash" ]; then
    say "the system: ROS 2 Jazzy, colcon and numpy 1 in $venv"
    "$python" -m venv "$venv"
    : > "$log"
    prepare_installer
    install -r "$here/requirements/wheels-jazzy.txt" 'numpy<2' pyyaml colcon-common-extensions colcon-ros 'setuptools<80'
    python_of "$here/relocate_wheels.py"
    packages="$(python_of -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    cat > "$folder/setup.bash" <<SETUP
export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
export PATH="$venv/bin:\$PATH" PYTHONPATH="$packages\${PYTHONPATH:+:\$PYTHONPATH}"
export LD_LIBRARY_PATH="$venv/lib:$(printf '%s:' "$packages"/ros_*.libs)\${LD_LIBRARY_PATH:-}"
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1   # the line above is what it would do
SETUP
fi

say "the workspace: a copy of what git would commit, with the system sourced"
rm -rf "$folder/workspace"; mkdir "$folder/workspace"
git -C "$root" ls-files -z --cached --others --exclude-standard | (cd "$root" && xargs -0 cp --parents -t "$folder/workspace" 2>/dev/null) || true
cd "$folder/workspace"
set +u; . "$folder/setup.bash"; set -u
export VGPS_PYTHON="$python" ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_LOCALHOST_ONLY=1 ROS_PYTHON_CHECK_FIELDS=1
export ROS_DOMAIN_ID="${ROS_DOMAIN_ID:-$((1 + $$ % 100))}"
say "colcon is the system's: $(head -n 1 "$(command -v colcon)")"
vgps_bringup/workspace/setup.sh
for file in install/vgps_*/lib/vgps_*/*_node; do
    [ "$(head -n 1 "$file")" = "#!$PWD/.venv/bin/python" ] || fail "$file begins with $(head -n 1 "$file")"
done
say "every node begins with .venv's interpreter; $(.venv/bin/python -c 'import numpy, cv2; print("numpy", numpy.__version__, "OpenCV", cv2.__version__)')"
set +u; . vgps_bringup/workspace/activate.sh; set -u
say "one scene, with the plain policy and steered"
vgps-demo --output "$folder/runs"

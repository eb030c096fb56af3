# Source this to work in a shell:  . vgps_bringup/workspace/activate.sh
# Uses the ROS you have sourced; without one, the ROS wheels in .venv.
[ -n "${BASH_VERSION:-}${ZSH_VERSION:-}" ] || { echo 'activate.sh is for bash and zsh: start one of them' >&2; return 1; }
case $- in *u*) _strict=1; set +u ;; esac  # what ROS and colcon have written does not bear it
_root="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/../.." && pwd)"
if [ -z "${ROS_DISTRO:-}" ]; then
    export AMENT_PREFIX_PATH="$_root/.venv" CMAKE_PREFIX_PATH="$_root/.venv"
fi
. "$_root/.venv/bin/activate"
_shell="${ZSH_VERSION:+zsh}"
[ -f "$_root/install/setup.bash" ] && . "$_root/install/setup.${_shell:-bash}"
# vgps-demo, vgps-evaluate and the like by name, as `ros2 run PACKAGE NAME` would find them
for _package in vgps_bringup vgps_critic vgps_policy_bridge; do PATH="$_root/install/$_package/lib/$_package:$PATH"; done
export PATH
# Camera images do not fit Fast DDS' default shared-memory segment: half of the VGA frames would be lost.
export FASTDDS_DEFAULT_PROFILES_FILE="$_root/vgps_bringup/config/fastdds_shm.xml"
_distribution="${ROS_DISTRO:-$(cat "$_root/.venv/.ros" 2>/dev/null)}"  # sourced, or of the wheels
case "$_distribution" in humble | jazzy) export FASTRTPS_DEFAULT_PROFILES_FILE="$FASTDDS_DEFAULT_PROFILES_FILE" ;; esac
# Nobody else in the network sees or commands the robot. A robot on several machines: VGPS_MACHINES=all, or the others'
# addresses separated by commas, before this is sourced (doc/security.md).
case "${_distribution}/${VGPS_MACHINES:-this}" in
    humble/this) export ROS_LOCALHOST_ONLY="${ROS_LOCALHOST_ONLY:-1}" ;;
    humble/*) ;;
    */this) export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}" ;;
    */all) export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET ;;
    *) export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_STATIC_PEERS="$(printf %s "$VGPS_MACHINES" | tr , ';')" ;;
esac
unset _root _package _distribution _shell
[ -z "${_strict:-}" ] || { unset _strict; set -u; }

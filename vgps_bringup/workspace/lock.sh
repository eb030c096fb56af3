#!/usr/bin/env bash
# Resolve every supported set anew and write its lock: vgps_bringup/workspace/lock.sh [PACKAGE ...]
# Without names every package takes its newest version; with names only these move. `make lock`.
#   wheels-jazzy, wheels-kilted   no ROS sourced
#   numpy1                        ROS sourced, its Python packages built for numpy 1 (Humble, Jazzy, Kilted from apt)
#   numpy2                        ROS sourced, built for numpy 2 (Lyrical), or no ROS at all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/requirements"
root=../../..
venv="$(cd "$root" && pwd)/.venv" log=/dev/stderr
say() { printf '%s\n' "$*"; }; fail() { say "error: $*" >&2; exit 1; }
. ../install.sh
prepare_installer
unset UV_FIND_LINKS  # a lock names what everybody can get
moves=(--upgrade); [ $# -eq 0 ] || moves=("${@/#/--upgrade-package=}")
# torch alone outweighs all else, and the documented figures are this one's: it moves on purpose only
printf 'torch==2.13.0\n' > "${TMPDIR:-/tmp}/vgps-torch.txt"
for name in wheels-jazzy wheels-kilted numpy1 numpy2; do
    more=(); [ $name = numpy2 ] || more=("$name.txt")
    say "$name"
    "$venv/bin/uv" pip compile -q "${moves[@]}" --universal --python-version 3.10 --no-annotate \
        --custom-compile-command vgps_bringup/workspace/lock.sh -c "${TMPDIR:-/tmp}/vgps-torch.txt" \
        base.txt test.txt "${more[@]}" -o "locked/$name.txt"
done

# Sourced by setup.sh and other_versions.sh: install Python packages into $venv with uv, at the versions of a lock.
python_of() { "$venv/bin/python" "$@"; }

# A slow mirror answers the second time; what it sent before is kept in the cache.
retry() {
    local pause
    for pause in 5 30 0; do
        "$@" && return
        [ $pause = 0 ] || { say "failed; again in $pause s: ${*:1:4} ..."; sleep $pause; }
    done
    return 1
}

pip_setting() { python_of -m pip config get "global.$1" 2>/dev/null || true; }

prepare_installer() {
    # where .venv sees the system's packages, pip would be content with a uv of theirs
    # (wheel: what an older setuptools of the system makes editable installs with)
    retry python_of -m pip install -q --upgrade pip wheel >> "$log" 2>&1 \
        && { [ -x "$venv/bin/uv" ] || retry python_of -m pip install -q --ignore-installed uv >> "$log" 2>&1; } \
        || { tail -n 25 "$log" >&2; fail "pip install uv failed"; }
    # uv does not read pip's configuration: a mirror, folders of wheels, a certificate
    local mirror folders more certificate
    mirror="${PIP_INDEX_URL:-$(pip_setting index-url)}" more="${PIP_EXTRA_INDEX_URL:-$(pip_setting extra-index-url)}"
    folders="${PIP_FIND_LINKS:-$(pip_setting find-links)}" certificate="${PIP_CERT:-$(pip_setting cert)}"
    [ -z "$mirror" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$mirror}"
    [ -z "$more" ] || export UV_INDEX="${UV_INDEX:-$more}" UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
    [ -z "$folders" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-${folders// /,}}"
    [ -z "$certificate" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$certificate}"
    # a network that opens TLS has its certificate in the system's store, where pip looks too
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
    export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}" UV_HTTP_RETRIES="${UV_HTTP_RETRIES:-5}" UV_PYTHON_DOWNLOADS=never
    # uv does not read pip's proxy either
    local proxy; proxy="${PIP_PROXY:-$(pip_setting proxy)}"
    [ -z "$proxy" ] || export HTTPS_PROXY="${HTTPS_PROXY:-$proxy}" HTTP_PROXY="${HTTP_PROXY:-$proxy}"
    # no home, or one that cannot be written (a service, a shared image): what was loaded is kept elsewhere
    local cache="${UV_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}/uv}"
    # nor one in which somebody else wrote (sudo): uv opens files of its own in it to lock them
    { [ "$cache" != /uv ] && mkdir -p "$cache" 2>/dev/null && [ -z "$(find "$cache" -maxdepth 2 ! -writable -print -quit 2>&1)" ]; } \
        || cache="${TMPDIR:-/tmp}/vgps-uv-$(id -u)"
    mkdir -p "$cache"; export UV_CACHE_DIR="$cache"
    # where the cache lies on another disk uv copies and warns; copying is right then
    export UV_LINK_MODE="${UV_LINK_MODE:-$([ "$(stat -c %d "$venv")" = "$(stat -c %d "$cache")" ] && echo hardlink || echo copy)}"
}

uv() { "$venv/bin/uv" pip install --python "$venv/bin/python" "$@" >> "$log" 2>&1; }
install() { retry uv "$@" || { tail -n 25 "$log" >&2; fail "uv pip install $* failed; whole output in $log"; }; }

# PyPI's torch for x86-64 brings 4 GB of CUDA. Without an NVIDIA GPU a CPU build is taken: one that pip's configuration
# offers, or PyTorch's own.
install_cpu_torch() {
    [ -e /proc/driver/nvidia/version ] && return
    [ "$(uname -m)" = x86_64 ] || return 0  # elsewhere PyPI's has no CUDA
    local wanted=torch index=https://download.pytorch.org/whl/cpu
    if [ -n "${UV_FIND_LINKS:-}" ] && uv --no-index --no-deps "$@" "$wanted"; then return; fi
    if UV_HTTP_TIMEOUT=20 UV_HTTP_RETRIES=1 uv --default-index "$index" --no-deps "$@" "$wanted"; then return; fi
    say "no CPU build of torch can be had ($index does not answer): PyPI's, with 4 GB of CUDA that nothing uses here"
}

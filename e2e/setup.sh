#!/usr/bin/env bash
# Brings a bare Debian 12 machine (with Rust) to the point where `pytest e2e` runs: the servers from Debian,
# OpenStack from PyPI into .cache/venv, and cargo-nextest. Safe to run again; when nothing changed it takes no time.
#
# Arguments: `--without-nextest`, and further needs in the form of the list below (the benchmark has some).
#
# To renew constraints.txt: empty it, delete .cache/venv, run this, then `.cache/venv/bin/pip freeze > e2e/constraints.txt`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
venv=$root/.cache/venv

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# program a test needs = package that has it. The packages without a service of their own are preferred
# (apache2-bin, mariadb-server-core): the tests start every server themselves, on ports of their own.
needs=(
  /usr/lib/rabbitmq/bin/rabbitmq-server=rabbitmq-server
  /usr/sbin/nginx=nginx-light
  /usr/sbin/apache2=apache2-bin
  /usr/lib/apache2/modules/mod_dav_fs.so=apache2-bin
  /usr/sbin/mariadbd=mariadb-server-core
  /usr/bin/mariadb-install-db=mariadb-server-core
  /usr/bin/mariadb=mariadb-client-core
  /usr/bin/gcc=gcc
  /usr/bin/g++=g++
  /usr/include/stdio.h=libc6-dev
  /usr/bin/faketime=faketime
  /usr/bin/ceph-mon=ceph-mon
  /usr/bin/ceph-osd=ceph-osd
  /usr/bin/ceph-mgr=ceph-mgr
  /usr/bin/rbd=ceph-common
  /usr/lib/python3/dist-packages/rados-2.0.0.egg-info=python3-rados
  /usr/lib/python3/dist-packages/rbd-2.0.0.egg-info=python3-rbd
  /usr/bin/radosgw=radosgw
  /usr/sbin/sshd=openssh-server
  /usr/bin/ssh=openssh-client
  /usr/bin/rsync=rsync
  /usr/bin/rclone=rclone
  /usr/bin/openssl=openssl
  /usr/bin/promtool=prometheus
  /usr/bin/chromium=chromium
  /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf=fonts-dejavu-core
  /usr/bin/curl=curl
  /usr/bin/dpkg-shlibdeps=dpkg-dev
  /usr/bin/strip=binutils
  /usr/bin/systemd-analyze=systemd
  /usr/bin/ps=procps
)
nextest=yes
for argument; do
  case $argument in
    --without-nextest) nextest=no ;;
    /*=*) needs+=("$argument") ;;
    *) fail "unknown argument: $argument" ;;
  esac
done

missing_packages() {
  local need
  for need in "${needs[@]}"; do
    [ -e "${need%%=*}" ] || echo "${need##*=}"
  done
  # Debian splits the venv module off; a Python from elsewhere has it, and then no package is wanted.
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  python3 -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' 2>/dev/null ||
    echo python3-dev
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a package's service on installation; a policy-rc.d that answers 101 forbids it. A machine's own
# policy is put back afterwards.
forbid_services() {
  policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then as_root mv "$policy" "$policy.mimeo-saved"; fi
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
  as_root chmod 755 "$policy"
}

allow_services() {
  as_root rm -f "$policy"
  if [ -e "$policy.mimeo-saved" ]; then as_root mv "$policy.mimeo-saved" "$policy"; fi
}

install_packages() {
  local wanted
  mapfile -t wanted < <(missing_packages | sort -u)
  [ ${#wanted[@]} -gt 0 ] || return 0
  local by_hand="apt-get install --no-install-recommends ${wanted[*]}"
  command -v apt-get >/dev/null || fail "this machine has no apt-get; the tests need, from Debian 12 or alike: ${wanted[*]}"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then fail "not root and no sudo; as root run: $by_hand"; fi
  say "installing ${wanted[*]}"
  forbid_services
  trap allow_services EXIT
  as_root apt-get update -qq || fail "apt-get update failed; afterwards run: $by_hand"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null ||
    fail "installation failed; try by hand: $by_hand"
  allow_services
  trap - EXIT
  mapfile -t wanted < <(missing_packages | sort -u)
  [ ${#wanted[@]} -eq 0 ] || fail "still missing after installation: ${wanted[*]}"
}

install_venv() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 must be 3.11 or newer: $(python3 --version)"
  local stamp wanted
  stamp=$venv/requirements.sha256
  wanted=$(cat "$here/requirements.txt" "$here/constraints.txt" | sha256sum)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then return 0; fi
  say "installing Glance, Keystone and their clients into ${venv#"$root"/}"
  if ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    mkdir -p "$root/.cache"
    python3 -m venv "$venv"
  fi
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" -c "$here/constraints.txt" ||
    fail "pip could not install e2e/requirements.txt; see its message above (uwsgi needs gcc and Python's headers)"
  echo "$wanted" >"$stamp"
}

# Ceph's Python modules, which Glance's rbd driver needs, are not on PyPI: Debian's are taken.
link_ceph_modules() {
  local packages module
  packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
  for module in /usr/lib/python3/dist-packages/{rados,rbd}.cpython-*.so; do
    ln -sf "$module" "$packages/"
  done
  "$venv/bin/python" -c 'import rados, rbd' || fail "Debian's python3-rbd does not load in $("$venv/bin/python" --version):
    delete .cache/venv and run this with Debian's own python3 first in PATH"
}

install_nextest() {
  cargo nextest --version >/dev/null 2>&1 && return 0
  say "cargo-nextest is missing: building it with \`cargo install cargo-nextest --locked\` (a few minutes, once)"
  cargo install cargo-nextest --locked --quiet || fail "cargo install cargo-nextest --locked failed; see above"
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust first (https://rustup.rs)"
install_packages
install_venv
link_ceph_modules
if [ "$nextest" = yes ]; then install_nextest; fi

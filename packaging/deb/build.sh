#!/usr/bin/env bash
# Builds the Debian package, from a release build or from a binary that is there already:
#
#   packaging/deb/build.sh [--profile dev]
#
# Standard output: the package's path. cargo-deb is installed into the cache folder when it is missing.
CARGO_DEB_VERSION=3.8.0
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=release
[ "${1:-}" = --profile ] && profile=${2:?usage: build.sh [--profile NAME]}
cache=${MENDIX_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mendix-agent}
tool=$cache/tools/bin/cargo-deb
if [ "$("$tool" --version 2>/dev/null)" != "$CARGO_DEB_VERSION" ]; then
  # A debug build: it runs for seconds, and compiles in a third of the time.
  CARGO_TARGET_DIR="$cache/tools/build-deb" cargo install --quiet --debug --locked "cargo-deb@$CARGO_DEB_VERSION" --root "$cache/tools" >&2
  rm -rf "$cache/tools/build-deb"
fi
# The crypto library of the image (ADR 0017). Other profiles use what is compiled for the tests.
[ "$profile" = release ] && export AWS_LC_SYS_SMALL=1
cargo build --quiet --locked --package mendix-agent --bin mendix-agent --profile "$profile" >&2
# What only tests install need not be small.
fast=()
[ "$profile" = release ] || fast=(--fast)
"$tool" --quiet --no-build --package mendix-agent --profile "$profile" --locked "${fast[@]}"

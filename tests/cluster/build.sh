#!/bin/bash
# Builds the Kubernetes programs that tests and demo run, from Debian 12 (bookworm) packages only.
#
#   build.sh FOLDER
#
# FOLDER then holds
#   bin/    kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubectl, etcd
#   node/   containerd, containerd-shim-runc-v2, ctr, runc, busybox, cni/{bridge,host-local,loopback}
#   complete   written last: with it, FOLDER is left as it is
#
# Kubernetes, with its dependencies, is Debian's source package, compiled here by Debian's Go; the
# rest are Debian's binaries, unpacked but not installed. apt verifies every file against Debian's
# archive key. Measured on two idle cores: 4 minutes, 2 GB while building, 400 MB kept.
#
# Only commands that are missing are installed, and only as root. One caller builds, others wait
# for it. After an interruption the next call starts over, with downloads and compiled parts kept.
#
# Environment: DEBIAN_MIRROR  where to fetch from, instead of what apt on this machine uses
#              KEEP_BUILD=1   keep FOLDER.build (sources, compiler, caches)
#
# Standard output: one line a step, "[ 34s] what is done now". Standard error: what went wrong.
RECIPE=1.20.2-r1

set -euo pipefail
export LC_ALL=C

folder=${1:?usage: build.sh FOLDER}
mkdir -p "$(dirname "$folder")"
folder=$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")
work=$folder.build
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

started=$SECONDS
say() { printf '[%3ds] %s\n' $((SECONDS - started)) "$*"; }
fail() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

main() {
  command -v flock >/dev/null || fail "flock is missing (package util-linux)"
  exec 9>"$folder.lock"
  if ! flock --nonblock 9; then
    say "waiting for another process that builds the same"
    flock 9
  fi
  if [ -f "$folder/complete" ]; then
    say "already built"
    return
  fi
  require_debian
  require_commands
  require_space
  prepare
  fetch
  unpack
  repair_reflect2
  generate_openapi
  compile
  collect
  say "finished"
}

require_debian() {
  command -v apt-get >/dev/null || fail "apt-get is missing: this recipe needs Debian"
  [ -r $keyring ] || fail "$keyring is missing (package debian-archive-keyring): this recipe needs Debian"
}

# What the build and, later, the node call. Installing is left to root; nothing is upgraded.
require_commands() {
  local entry missing=() commands=()
  for entry in dpkg-source:dpkg-dev patch:patch xz:xz-utils gzip:gzip find:findutils cmp:diffutils \
    ip:iproute2 unshare:util-linux setpriv:util-linux mount:mount; do
    command -v "${entry%%:*}" >/dev/null || { commands+=("${entry%%:*}") && missing+=("${entry##*:}"); }
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] ||
    fail "missing commands: ${commands[*]}; install as root: apt-get install --no-install-recommends ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get -q update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends --no-upgrade "${missing[@]}" >&2 ||
    fail "could not install ${missing[*]}"
}

require_space() {
  local free
  free=$(df -Pk "$(dirname "$folder")" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge 3000 ] || fail "$(dirname "$folder") has ${free} MB free; building needs 3000 MB"
}

# The mirror that apt uses for bookworm; on another Debian release, the one it uses for that (it has
# bookworm too). Known from the configuration, so that it also works before the first update.
mirror() {
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "main" && $1 == "bookworm" { print $3; found = 1; exit }
         $2 == "main" && $1 !~ /[-\/]/ && !other { other = $3 }
         END { if (!found && other) print other }'
}

apt() { # apt-get with lists, cache and sources of its own: the machine's are neither read nor changed
  apt-get -q \
    -o Dir::State::Lists="$work/apt/lists" -o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt/cache" \
    -o Dir::Etc::SourceList="$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 "$@" >>"$work/apt.log" 2>&1 || {
    tail -n 5 "$work/apt.log" >&2
    fail "apt-get $1 failed; is $(awk '{ print $3; exit }' "$work/apt/sources.list") reachable?"
  }
}

prepare() {
  local from=${DEBIAN_MIRROR:-$(mirror)}
  [ -n "$from" ] || fail "no Debian mirror in this machine's apt configuration; set DEBIAN_MIRROR"
  # What an interrupted build may have left half done goes; downloads and the Go cache stay.
  [ ! -d "$work" ] || say "clearing an interrupted build"
  rm -rf "$folder" "$work/apt" "$work/kubernetes" "$work/root" "$work/gopath"
  mkdir -p "$work"/apt/{lists/partial,cache/archives/partial} "$work"/{packages,root,go-cache,gopath/src/k8s.io}
  : >"$work/apt/status"
  : >"$work/apt.log"
  printf '%s [signed-by=%s] %s bookworm main\n' deb $keyring "$from" deb-src $keyring "$from" >"$work/apt/sources.list"
}

fetch() {
  say "fetching package lists"
  apt update
  say "fetching Debian's Go, etcd, containerd and the Kubernetes source"
  cd "$work/packages"
  apt download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev \
    etcd-server containerd runc containernetworking-plugins busybox-static
  apt source --download-only kubernetes
}

unpack() {
  say "unpacking"
  local package
  for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
  # apt has checked the source against the signed lists; the uploader's own key is not at hand.
  dpkg-source --no-check -x "$work"/packages/kubernetes_*.dsc "$work/kubernetes" >>"$work/apt.log" 2>&1
  ln -sfn "$work/kubernetes" "$work/gopath/src/k8s.io/kubernetes"

  version=$(sed -n 's/^Version: .*really\([0-9.]*\)-.*/\1/p' "$work"/packages/kubernetes_*.dsc | head -n 1)
  [ "$version" = "${RECIPE%-r*}" ] || fail "Debian's Kubernetes is ${version:-unknown}, this recipe is for ${RECIPE%-r*}"
  go_root=$work/root/usr/lib/go-1.19
}

go() {
  GOROOT=$go_root GOPATH=$work/gopath GOCACHE=$work/go-cache GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local \
    CGO_ENABLED=0 GOGC=off "$go_root/bin/go" "$@"
}

# The vendored reflect2 1.0.1 corrupts memory when it is built with Go 1.18 or later. Debian's own
# package of it is 1.0.2, which doesn't.
repair_reflect2() {
  local vendored=$work/kubernetes/vendor/github.com/modern-go/reflect2
  rm -f "$vendored"/*.go "$vendored"/*.s
  cp "$work"/root/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$vendored/"
  rm -f "$vendored"/*_test.go
}

# The source package comes without the generated OpenAPI definitions, which server-side apply needs.
# They are right when the generator complains of exactly what upstream has listed as its exceptions.
generate_openapi() {
  say "generating OpenAPI definitions"
  cd "$work/gopath/src/k8s.io/kubernetes"
  go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  local inputs
  inputs=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin staging/src/k8s.io |
    sed 's#^staging/src/#vendor/#' |
    grep -v -E '_test\.go|/code-generator/|/sample-apiserver/|_examples' |
    xargs -n 1 dirname | sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -s -d ,)
  GOROOT=$go_root GOPATH=$work/gopath GOCACHE=$work/go-cache GO111MODULE=off PATH=$go_root/bin:$PATH \
    "$work/openapi-gen" --logtostderr -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi \
    -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt -r "$work/violations" 2>"$work/openapi.log" || {
    tail -n 5 "$work/openapi.log" >&2
    fail "generating the OpenAPI definitions failed"
  }
  cmp -s "$work/violations" api/api-rules/violation_exceptions.list ||
    fail "the OpenAPI definitions differ from upstream's: compare $work/violations with api/api-rules/violation_exceptions.list"
}

compile() {
  local flags='-s -w' module setting program
  for module in component-base/version client-go/pkg/version; do
    for setting in gitVersion="v$version" gitMajor=1 gitMinor="$(cut -d . -f 2 <<<"$version")" \
      gitTreeState=clean gitCommit=debian buildDate=2021-01-13T13:20:00Z; do
      flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$module.$setting"
    done
  done
  mkdir -p "$folder/bin"
  cd "$work/gopath/src/k8s.io/kubernetes"
  for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
    say "compiling $program"
    go build -tags providerless,dockerless -trimpath -ldflags "$flags" -o "$folder/bin/" "./cmd/$program"
  done
}

collect() {
  local root=$work/root
  mkdir -p "$folder/node/cni"
  cp "$root/usr/bin/etcd" "$folder/bin/"
  cp "$root"/usr/bin/{containerd,containerd-shim-runc-v2,ctr} "$root/usr/sbin/runc" "$root/bin/busybox" "$folder/node/"
  cp "$root"/usr/lib/cni/{bridge,host-local,loopback} "$folder/node/cni/"

  say "trying what was built"
  local answer
  answer=$("$folder/bin/kube-apiserver" --version)
  [ "$answer" = "Kubernetes v$version" ] || fail "kube-apiserver says '$answer' instead of 'Kubernetes v$version'"
  answer=$("$folder/bin/kubectl" version --client --short)
  [ "$answer" = "Client Version: v$version" ] || fail "kubectl says '$answer' instead of 'Client Version: v$version'"
  "$folder/bin/etcd" --version >/dev/null
  "$folder/node/containerd" --version >/dev/null

  printf '%s\n' "$RECIPE" >"$folder/complete"
  if [ "${KEEP_BUILD:-0}" != 1 ]; then
    chmod -R u+w "$work"
    rm -rf "$work"
  fi
}

main </dev/null

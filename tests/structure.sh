#!/usr/bin/env bash
# Rules about the tree that the compiler can't hold. Prints every violation, then fails.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
refuse() { printf 'structure: %s\n' "$1"; [ -z "${2:-}" ] || printf '  %s\n' "$2"; failed=1; }
none() { local rows; rows=$(cat); [ -z "$rows" ] || refuse "$1" "$rows"; }

# One crypto stack. Cargo.lock may list ring as an unused option of a crate; the graph must not.
# Without a match cargo tree prints nothing, and fails when even the lock file lacks the crate.
for crate in ring openssl-sys native-tls; do
  { cargo tree --locked --workspace --edges normal,build,dev --invert "$crate" 2>/dev/null || true; } |
    none "$crate is in the dependency graph; the only crypto stack is aws-lc-rs"
done

# Decisions stay without I/O: proto <- core <- agent.
cargo tree --locked --package mendix-agent-core --edges normal --prefix none --format '{p}' | awk '{print $1}' |
  grep -xE 'tokio|tonic|kube|hyper|mendix-agent' | sort -u | none "mendix-agent-core must not depend on"
cargo tree --locked --package mendix-agent --edges normal --prefix none --format '{p}' | awk '{print $1}' |
  grep -xE 'mendix-(control-plane|test-kit|e2e|it)' | sort -u | none "the product must not depend on its tests"

git ls-files '*.rs' | grep '/mod\.rs$' | none "foo.rs beside foo/, not mod.rs" || true
git ls-files '*.rs' | grep -E '/(utils?|helpers?|common|manager)\.rs$' | none "names that say nothing" || true
git grep -nE '\bunsafe\s*(\{|fn|impl)' -- '*.rs' | none "unsafe code" || true
git grep -nE 'todo!\(|unimplemented!\(|FIXME|XXX' -- '*.rs' '*.sh' '*.yaml' ':!tests/structure.sh' | none "unfinished marks" || true
git grep -nE 'thread::sleep' -- 'agent' 'proto' | none "blocking sleeps in the product" || true

[ "$failed" = 0 ] && echo "structure: ok"
exit "$failed"

#!/usr/bin/env bash
# Rules about the tree that the compiler can't hold. Prints every violation, then fails.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
# none RULE: standard input must be empty; what is there breaks the rule.
none() {
  local rows
  rows=$(cat)
  [ -z "$rows" ] && return
  printf 'structure: %s\n%s\n' "$1" "$rows"
  failed=1
}
tree() { cargo tree --locked --prefix none --format '{p}' "$@" 2>/dev/null | awk '{print $1}' | sort -u; }

tree --package mendix-agent | grep -qx mendix-agent-core || { echo "structure: cargo tree does not work here"; exit 1; }

# One crypto stack. Cargo.lock may list ring as an unused option of a crate; the graph must not.
for crate in ring openssl-sys native-tls; do
  none "$crate is in the dependency graph; the only crypto stack is aws-lc-rs" < <(tree --workspace --invert "$crate")
done
# What ADR 0017 keeps out: a patch and a version in Cargo.lock hold it, both of which an update could lose.
for crate in pest icu_properties; do
  none "$crate is in the dependency graph; ADR 0017 says why it should not be" < <(tree --package mendix-agent --invert "$crate")
done
# Decisions stay without I/O, and dependencies run one way: proto <- core <- agent <- tests.
none "mendix-agent-core must not depend on these" < <(tree --package mendix-agent-core --edges normal | grep -xE 'tokio|tonic|kube|hyper|mendix-agent')
none "the product must not depend on its tests" < <(tree --package mendix-agent --edges normal | grep -xE 'mendix-(control-plane|test-kit|e2e|it)')

none "foo.rs beside foo/, not mod.rs" < <(git ls-files '*.rs' | grep '/mod\.rs$')
none "a file's name must say what is in it" < <(git ls-files '*.rs' | grep -E '/(utils?|helpers?|common|manager)\.rs$')
none "unsafe code" < <(git grep -nE '\bunsafe[[:space:]]*(\{|fn|impl)' -- '*.rs')
none "unfinished marks" < <(git grep -nE 'todo!\(|unimplemented!\(|FIXME|XXX' -- '*.rs' '*.sh' '*.yaml' ':!tests/structure.sh')
none "blocking sleeps in the product" < <(git grep -nE 'thread::sleep' -- agent/src agent/core proto)
# Lock files name the registry they are from; nothing else does.
none "hosts of package registries" < <(git grep -nE 'registry[.]npmjs|pypi[.]org|static[.]crates|index[.]crates' -- ':!*Cargo.lock')
none "machine paths" < <(git grep -nE '/work/|/root/' -- '*.md' '*.rs' '*.toml' '*.yaml')

[ "$failed" = 0 ] && echo "structure: ok"
exit "$failed"

//! Links the program with relative relocations packed: of a position-independent program of this size
//! they are half a megabyte, all of which is read at each start. glibc knows them since 2.36, which is
//! what Debian 12 has.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |key: &str| env::var(key).unwrap_or_default();
    if target("CARGO_CFG_TARGET_OS") == "linux" && target("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

//! How the program is linked.
//!
//! Relative relocations are packed: of a position-independent program of this size they are half a
//! megabyte, all of which is read at each start. glibc knows them since 2.36, which is what Debian 12 has.
//! And in the program that is shipped, what an agent without work does not run stands apart (`rarely.ld`), and
//! functions with the same instructions are there once. Rust promises nobody that two of them have two addresses.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=rarely.ld");
    let of = |key: &str| env::var(key).unwrap_or_default();
    if of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        if of("PROFILE") == "release" {
            let here = of("CARGO_MANIFEST_DIR");
            println!("cargo::rustc-link-arg-bins=-Wl,-T,{here}/rarely.ld");
            // Elsewhere rustc leaves linking to a linker that does not know how.
            if of("CARGO_CFG_TARGET_ARCH") == "x86_64" {
                println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
            }
        }
    }
}

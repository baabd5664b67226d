//! Generates the messages and services from `mendix/agent/v1/*.proto` in pure Rust (protox): no
//! protoc has to be installed where this is built.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let files: Vec<PathBuf> = ["enrollment", "control", "bundle", "snapshot"]
        .iter()
        .map(|name| root.join(format!("mendix/agent/v1/{name}.proto")))
        .collect();
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .codec_path("crate::codec::Frugal")
        .bytes(".mendix.agent.v1.Chunk.data")
        .bytes(".mendix.agent.v1.FetchChunk.data")
        .compile_fds(descriptors)?;
    Ok(())
}

//! The image that customers get, from a stand-in for the binary: what is in it, that the same input
//! gives the same bytes, and that the bill of materials and the licences leave nothing out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
};

use mendix_agent_image::{
    agent::{self, About},
    archive::Archive,
    graph::{self, Graph, GraphError},
    licences, sbom,
};
use mendix_test_kit::{agent_image, progress::Progress, skip};
use serde_json::Value;

use crate::files;

/// What is in the agent; nothing after a SKIP on a machine that is no Debian, where no image is made.
fn graph() -> Option<Graph> {
    let error = match graph::of_the_agent() {
        Ok(graph) => return Some(graph),
        Err(error) => error,
    };
    let (GraphError::Start { program, .. } | GraphError::Failed { program, .. }) = &error else {
        panic!("{error}");
    };
    assert!(["dpkg-query", "gcc"].contains(&&**program), "{error}");
    skip(&error.to_string());
    None
}

/// The licences; those that the toolchain of this machine does not bring are left out after a SKIP.
fn licences_of(mut graph: Graph) -> String {
    for part in &mut graph.parts {
        let (there, missing): (Vec<_>, Vec<_>) =
            part.texts.drain(..).partition(|text| text.exists());
        part.texts = there;
        for text in missing {
            skip(&format!("licence of {}: {} is not here", part.name, text.display()));
        }
    }
    licences::collect(&graph).unwrap()
}

/// Path, mode, kind and content of each entry of a tar file.
fn entries(tar: impl std::io::Read) -> Vec<(String, u32, Vec<u8>)> {
    let mut tar = tar::Archive::new(tar);
    tar.entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header();
            let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap());
            assert_eq!(owner, (0, 0, 0), "not root's, or not since the epoch");
            let mode = header.mode().unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = vec![];
            entry.read_to_end(&mut content).unwrap();
            (path, mode, content)
        })
        .collect()
}

/// Configuration and entries of the layer of an image.
fn open(archive: &Archive) -> (Value, Vec<(String, u32, Vec<u8>)>) {
    let blobs: BTreeMap<String, Vec<u8>> = entries(File::open(&archive.path).unwrap())
        .into_iter()
        .map(|(path, _, content)| (path.replace("blobs/sha256/", "sha256:"), content))
        .collect();
    let json = |digest: &str| serde_json::from_slice::<Value>(&blobs[digest]).unwrap();
    let manifest = json(&archive.digest);
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    assert!(layers[0]["mediaType"].as_str().unwrap().ends_with("tar+gzip"));
    let layer = &blobs[layers[0]["digest"].as_str().unwrap()];
    let config = json(manifest["config"]["digest"].as_str().unwrap());
    (config, entries(flate2::read::GzDecoder::new(&layer[..])))
}

#[test]
fn the_image_holds_one_program_for_one_user_and_says_what_is_in_it() {
    let Some(graph) = graph() else { return };
    let about = About { sbom: sbom::cyclonedx(&graph), licences: licences_of(graph) };
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("mendix-agent");
    std::fs::write(&binary, "the program").unwrap();
    let image = agent::release(&binary, "registry.example/agent", &about);
    let archive = image.write(&folder.path().join("image.tar")).unwrap();
    let (config, layer) = open(&archive);

    assert_eq!(archive.by_tag, concat!("registry.example/agent:", env!("CARGO_PKG_VERSION")));
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/bin/mendix-agent"]));
    let environment = ["MALLOC_ARENA_MAX=1", "MALLOC_MMAP_THRESHOLD_=131072"];
    assert_eq!(config["config"]["Env"], serde_json::json!(environment));
    let listed: Vec<(&str, u32)> = layer.iter().map(|(path, mode, _)| (&**path, *mode)).collect();
    let expected = [
        ("etc/", 0o755),
        ("etc/group", 0o644),
        ("etc/passwd", 0o644),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
        ("usr/bin/mendix-agent", 0o755),
        ("usr/share/", 0o755),
        ("usr/share/doc/", 0o755),
        ("usr/share/doc/mendix-agent/", 0o755),
        ("usr/share/doc/mendix-agent/licences.txt.gz", 0o644),
        ("usr/share/doc/mendix-agent/sbom.cdx.json", 0o644),
    ];
    assert_eq!(listed, expected);
    let content = |path: &str| layer.iter().find(|entry| entry.0 == path).unwrap().2.clone();
    assert_eq!(content("usr/bin/mendix-agent"), b"the program");
    assert_eq!(content("usr/share/doc/mendix-agent/sbom.cdx.json"), about.sbom.as_bytes());

    let mut licences = String::new();
    let zipped = content("usr/share/doc/mendix-agent/licences.txt.gz");
    flate2::read::GzDecoder::new(&zipped[..]).read_to_string(&mut licences).unwrap();
    assert_eq!(licences, about.licences);

    // What the Dockerfile copies is the same.
    let unpacked = folder.path().join("unpacked");
    image.unpack(&unpacked).unwrap();
    let mut found = 0;
    for (path, mode, content) in &layer {
        use std::os::unix::fs::PermissionsExt as _;
        let place = unpacked.join(path);
        let there = std::fs::symlink_metadata(&place).unwrap();
        assert_eq!(there.permissions().mode() & 0o7777, *mode, "{path}");
        if there.is_file() {
            assert_eq!(&std::fs::read(&place).unwrap(), content, "{path}");
        }
        found += 1;
    }
    assert_eq!(found, expected.len());
    assert_eq!(count(&unpacked), expected.len());
}

/// Files and folders below one.
fn count(folder: &Path) -> usize {
    let below = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    below.map(|path| 1 + if path.is_dir() { count(&path) } else { 0 }).sum()
}

#[test]
fn an_image_made_twice_of_the_same_has_the_same_digest() {
    let Some(_) = graph() else { return };
    let make = |folder: &Path| {
        let graph = graph().unwrap();
        let about = About { sbom: sbom::cyclonedx(&graph), licences: licences_of(graph) };
        let binary = folder.join("program");
        // Not a constant: what a compressor makes of much that differs must be the same as well.
        let bytes: Vec<u8> = (0..3_000_000_u64).map(|i| ((i * i) >> 7) as u8).collect();
        std::fs::write(&binary, bytes).unwrap();
        let archive = agent::release(&binary, agent::REPOSITORY, &about)
            .write(&folder.join("image.tar"))
            .unwrap();
        (archive.digest, std::fs::read(&archive.path).unwrap())
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (make(one.path()), make(two.path()));
    assert_eq!(first.0, second.0);
    assert!(first.1 == second.1, "the same digest, and other bytes around it");
}

#[test]
fn the_bill_of_materials_is_whole_and_says_nothing_of_this_machine() {
    let Some(graph) = graph() else { return };
    let text = sbom::cyclonedx(&graph);
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    for local in [crate::files::root().to_str().unwrap(), &*home, "timestamp", "serialNumber"] {
        assert!(!text.contains(local), "{local}");
    }
    let bom: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    let agent = &bom["metadata"]["component"];
    assert_eq!((&agent["name"], &agent["type"]), (&"mendix-agent".into(), &"application".into()));

    let text_of = |value: &Value| value.as_str().unwrap().to_owned();
    let components = bom["components"].as_array().unwrap();
    let mut refs = BTreeSet::from([text_of(&agent["bom-ref"])]);
    let mut own_crates = Vec::new();
    for component in components {
        let reference = text_of(&component["bom-ref"]);
        assert_eq!(component["purl"], component["bom-ref"]);
        let own = reference.starts_with("pkg:generic/mendix/");
        own_crates.extend(own.then(|| text_of(&component["name"])));
        if !own {
            let licence = component["licenses"][0]["expression"].as_str().unwrap();
            assert!(!licence.is_empty() && !licence.contains('/'), "{reference}: {licence}");
        }
        if reference.starts_with("pkg:cargo/") {
            assert_eq!(text_of(&component["hashes"][0]["content"]).len(), 64, "{reference}");
        }
        assert!(refs.insert(reference.clone()), "{reference} is there twice");
    }
    // None of these is what a registry has under its name.
    own_crates.sort();
    assert_eq!(
        own_crates,
        ["jsonpath-rust", "mendix-agent-core", "mendix-agent-proto", "mendix-agent-redact"]
    );
    // Everything is reached from the agent, and nothing else is spoken of.
    let uses: BTreeMap<String, Vec<String>> = bom["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let on = entry["dependsOn"].as_array().unwrap().iter().map(text_of).collect();
            (text_of(&entry["ref"]), on)
        })
        .collect();
    let (mut reached, mut next) = (BTreeSet::new(), vec![text_of(&agent["bom-ref"])]);
    while let Some(reference) = next.pop() {
        if reached.insert(reference.clone()) {
            next.extend(uses[&reference].iter().cloned());
        }
    }
    assert_eq!(reached, refs);
    for expected in ["pkg:generic/rust@", "pkg:deb/debian/libc6-dev@", "pkg:cargo/aws-lc-sys@"] {
        assert!(refs.iter().any(|found| found.starts_with(expected)), "{expected}");
    }
    // What tests alone need is not in the product.
    for test in ["proptest", "insta", "turmoil", "mendix-test-kit"] {
        assert!(
            !refs.iter().any(|found| found.starts_with(&format!("pkg:cargo/{test}@"))),
            "{test}"
        );
    }
}

#[test]
fn no_crate_of_the_program_is_missing_among_materials_and_licences() {
    let Some(graph) = graph() else { return };
    // Places of panics in the program name the sources they are from.
    let program = {
        let _alone = files::program();
        let path = agent_image::build(agent_image::AGENT, &Progress::stderr()).unwrap();
        std::fs::read(path).unwrap()
    };
    let mut inside = BTreeSet::new();
    for at in memchr::memmem::find_iter(&program, b"/registry/src/") {
        let rest = &program[at..program.len().min(at + 200)];
        // /registry/src/INDEX/NAME-VERSION/…
        let parts: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
        let Some(Ok(name)) = parts.get(4).map(|part| std::str::from_utf8(part)) else { continue };
        if parts.len() > 5 {
            inside.insert(name.to_owned());
        }
    }
    assert!(inside.len() > 50, "only {} crates are named in the program", inside.len());
    let known: BTreeSet<String> =
        graph.crates.keys().map(|(name, version)| format!("{name}-{version}")).collect();
    let missing: Vec<_> = inside.difference(&known).collect();
    assert!(missing.is_empty(), "in the program, and not in the bill of materials: {missing:?}");

    let ids: Vec<String> = graph
        .crates
        .values()
        .filter(|found| found.checksum.is_some())
        .map(|found| format!("\n{} {}: ", found.name, found.version))
        .collect();
    let file = licences_of(graph);
    for id in ids {
        assert!(file.contains(&id), "no licence of {id:?}");
    }
    for text in ["Apache License", "Permission is hereby granted", "GNU Lesser General Public"] {
        assert!(file.to_lowercase().contains(&text.to_lowercase()), "no text with {text:?}");
    }
}

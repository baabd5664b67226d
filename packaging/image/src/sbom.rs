//! The bill of materials: CycloneDX 1.6 as JSON.
//!
//! Made from the [`Graph`] in some fifty lines, and not by a tool: none that can be installed for this
//! leaves out the time and the random serial number, without which the same sources give the same
//! file, and none knows of the C library that a static program holds.

use serde_json::{Value, json};

use crate::{
    build::AGENT,
    graph::{Crate, Graph, Id},
};

/// The file's text, ending in a newline.
#[must_use]
pub fn cyclonedx(graph: &Graph) -> String {
    let agent = graph.crates.values().find(|found| found.name == AGENT.package);
    let libraries = graph.crates.values().filter(|found| found.name != AGENT.package);
    let components: Vec<Value> = libraries
        .map(|found| component(graph, found))
        .chain(graph.parts.iter().map(|part| {
            json!({
                "type": "library", "bom-ref": part.purl, "name": part.name,
                "version": part.version, "scope": "required",
                "licenses": [{"expression": part.licence}], "purl": part.purl,
            })
        }))
        .collect();
    let mut dependencies: Vec<Value> = graph
        .crates
        .values()
        .map(|found| {
            let mut uses: Vec<String> = found.uses.iter().map(|id| purl(graph, id)).collect();
            if found.name == AGENT.package {
                uses.extend(graph.parts.iter().map(|part| part.purl.clone()));
            }
            json!({"ref": purl(graph, &found.id()), "dependsOn": uses})
        })
        .collect();
    dependencies.extend(graph.parts.iter().map(|part| json!({"ref": part.purl, "dependsOn": []})));
    let bom = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": agent.map(|agent| json!({
                "type": "application", "bom-ref": purl(graph, &agent.id()), "name": agent.name,
                "version": agent.version, "purl": purl(graph, &agent.id()),
            })),
            "lifecycles": [{"phase": "build"}],
        },
        "components": components,
        "dependencies": dependencies,
    });
    format!("{bom:#}\n")
}

fn component(graph: &Graph, found: &Crate) -> Value {
    let purl = purl(graph, &found.id());
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": found.name, "version": found.version,
        "scope": "required", "purl": purl,
    });
    if let Some(checksum) = &found.checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(licence) = &found.licence {
        component["licenses"] = json!([{"expression": licence}]);
    }
    if let Some(repository) = &found.repository {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

/// A crate's package URL; also how the file refers to it. Those of cargo are of the public registry, where a
/// crate of the workspace is not: another may have its name there (`agent/jsonpath`).
fn purl(graph: &Graph, id: &Id) -> String {
    let own = graph.crates.get(id).is_some_and(|found| found.checksum.is_none());
    let (name, version) = id;
    let kind = if own { "generic/mendix" } else { "cargo" };
    format!("pkg:{kind}/{name}@{}", version.replace('+', "%2B"))
}

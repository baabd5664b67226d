//! What single objects of a release, and their images, are refused for.

use super::*;

#[test]
fn objects_stay_in_the_namespaces_and_kinds_of_their_component() {
    let elsewhere = object("v1", "ConfigMap", Some("other"), "a");
    assert_eq!(
        refusals(one(vec![elsewhere]), &facts()),
        only(Reason::NamespaceOutOfScope, "metadata.namespace")
    );
    let namespace = object("v1", "Namespace", None, "other");
    assert_eq!(
        refusals(one(vec![namespace]), &facts()),
        only(Reason::NamespaceOutOfScope, "metadata.name")
    );
    let draft = one(vec![config_map("a")])
        .change(|index| index.components[0].scope.kinds = vec!["apps/ConfigMap".into()]);
    assert_eq!(refusals(draft, &facts()), only(Reason::KindOutOfScope, "kind"));
}

#[test]
fn namespaces_of_kubernetes_and_of_the_agent_are_denied_also_when_in_scope() {
    for namespace in ["kube-system", "kube-public", "kube-node-lease", "mendix-agent"] {
        for (body, field) in [
            (object("v1", "ConfigMap", Some(namespace), "a"), "metadata.namespace"),
            (object("v1", "Namespace", None, namespace), "metadata.name"),
        ] {
            let draft = one(vec![body]).change(|index| {
                index.components[0].scope.namespaces = vec![namespace.into()];
            });
            assert_eq!(
                refusals(draft, &facts()),
                only(Reason::NamespaceDenied, field),
                "{namespace}"
            );
        }
    }
}

fn agent(bodies: Vec<Value>) -> Draft {
    Draft::new(5).component("mendix-agent", 9, bodies)
}

#[test]
fn the_agents_component_is_its_own_deployment_and_nothing_else() {
    agent(vec![own_deployment()]).admit(&facts()).unwrap();
    let own = Some("mendix-agent");
    for (body, reasons) in [
        (object("v1", "ConfigMap", own, "a"), &[Reason::AgentComponent][..]),
        (object("v1", "Secret", own, "tuf"), &[Reason::AgentState, Reason::AgentComponent]),
        (
            object("agent.mendix.com/v1alpha1", "LogSharingPolicy", own, "default"),
            &[Reason::AgentState, Reason::AgentComponent],
        ),
        (
            object("v1", "ConfigMap", Some("kube-system"), "a"),
            &[Reason::NamespaceDenied, Reason::AgentComponent],
        ),
        (crd("agent.mendix.com", "AgentStatus", "Namespaced"), &[Reason::AgentComponent]),
        (
            object("rbac.authorization.k8s.io/v1", "ClusterRole", None, "mendix-agent"),
            &[Reason::AgentComponent, Reason::FoundationElsewhere],
        ),
        (deployment_called("mendix-agent-guard"), &[Reason::AgentComponent]),
    ] {
        let refused = agent(vec![own_deployment(), body]).admit(&facts()).unwrap_err();
        let found: Vec<Reason> = refused.iter().map(|refusal| refusal.reason).collect();
        assert_eq!(found, reasons, "{refused:?}");
    }
    let alone = agent(vec![deployment_called("mendix-agent-guard")]).admit(&facts()).unwrap_err();
    assert_eq!(alone.len(), 2, "another one is there, and its own is not: {alone:?}");
}

fn deployment_called(name: &str) -> Value {
    with(own_deployment(), "/metadata/name", json!(name))
}

#[test]
fn what_a_trial_could_not_undo_is_no_part_of_the_agents_deployment() {
    let set = |key: &str, value: Value| {
        let mut body = own_deployment();
        let (parent, last) = key.rsplit_once('/').unwrap();
        if body.pointer(parent).is_none() {
            body["spec"]["template"]["metadata"] = json!({"annotations": {}});
        }
        body.pointer_mut(parent).unwrap()[last.replace("~1", "/")] = value;
        body
    };
    for (key, value, field) in [
        ("/metadata/labels", json!({"a": "b"}), "metadata.labels"),
        ("/metadata/annotations", json!({"a": "b"}), "metadata.annotations"),
        ("/spec/strategy", json!({"type": "Recreate"}), "spec.strategy"),
        ("/spec/paused", json!(true), "spec.paused"),
        ("/spec/replicas", json!(0), "spec.replicas"),
        (
            "/spec/template/metadata/annotations/agent.mendix.com~1trial",
            json!("x"),
            "spec.template.metadata.annotations[agent.mendix.com/trial]",
        ),
        (
            "/spec/template/spec/serviceAccountName",
            json!("default"),
            "spec.template.spec.serviceAccountName",
        ),
        ("/spec/template/spec/containers/0/name", json!("other"), "spec.template.spec.containers"),
    ] {
        let draft = agent(vec![set(key, value)]);
        assert_eq!(refusals(draft, &facts()), only(Reason::AgentComponent, field), "{key}");
    }
    for (key, value) in [
        ("/spec/replicas", json!(3)),
        ("/spec/template/spec/serviceAccountName", json!("mendix-agent")),
        ("/spec/template/metadata/annotations/example.com~1owner", json!("platform")),
    ] {
        agent(vec![set(key, value)]).admit(&facts()).unwrap();
    }
}

#[test]
fn an_agent_that_is_no_deployment_is_not_upgraded_by_a_release() {
    let elsewhere = ClusterFacts { agent_is_deployment: false, ..facts() };
    let draft = agent(vec![own_deployment()]);
    assert_eq!(refusals(draft, &elsewhere), only(Reason::AgentElsewhere, "name"));
}

fn crd(group: &str, kind: &str, scope: &str) -> Value {
    let name = format!("{}s.{group}", kind.to_lowercase());
    let mut body = object("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, &name);
    body["spec"] = json!({"group": group, "names": {"kind": kind}, "scope": scope});
    body
}

#[test]
fn no_release_defines_the_agents_kinds() {
    let body = crd("agent.mendix.com", "AgentStatus", "Namespaced");
    assert_eq!(refusals(one(vec![body.clone()]), &facts()), only(Reason::AgentState, "spec.group"));
    // The name alone says it too.
    let renamed = with(body.clone(), "/spec/group", json!("example.com"));
    assert_eq!(refusals(one(vec![renamed]), &facts()), only(Reason::AgentState, "spec.group"));
}

#[test]
fn namespaced_kinds_have_a_namespace_and_others_have_none() {
    let without = object("v1", "ConfigMap", None, "a");
    assert_eq!(
        refusals(one(vec![without]), &facts()),
        only(Reason::NamespaceMissing, "metadata.namespace")
    );
    let role = object("rbac.authorization.k8s.io/v1", "ClusterRole", Some("mendix"), "a");
    assert_eq!(
        refusals(one(vec![role]), &facts()),
        only(Reason::NamespaceUnexpected, "metadata.namespace")
    );
    // A custom kind, by its CRD in the release, by discovery, and unknown.
    let build = object("privatecloud.mendix.com/v1alpha1", "Build", None, "a");
    let definition = crd("privatecloud.mendix.com", "Build", "Namespaced");
    assert_eq!(
        refusals(one(vec![definition, build.clone()]), &facts()),
        only(Reason::NamespaceMissing, "metadata.namespace")
    );
    let discovered = ClusterFacts {
        custom_kinds: BTreeMap::from([(
            "privatecloud.mendix.com/Build".into(),
            KindScope::Namespaced,
        )]),
        ..facts()
    };
    assert_eq!(
        refusals(one(vec![build.clone()]), &discovered),
        only(Reason::NamespaceMissing, "metadata.namespace")
    );
    one(vec![build]).admit(&facts()).unwrap();
}

#[test]
fn fields_of_servers_and_controllers_are_refused() {
    for field in [
        "generateName",
        "ownerReferences",
        "finalizers",
        "managedFields",
        "resourceVersion",
        "uid",
        "selfLink",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        for value in [json!("x"), json!([]), Value::Null] {
            let body = with(config_map("a"), &format!("/metadata/{field}"), value);
            assert_eq!(
                refusals(one(vec![body]), &facts()),
                only(Reason::FieldForbidden, &format!("metadata.{field}"))
            );
        }
    }
    let status = with(config_map("a"), "/status", json!({}));
    assert_eq!(refusals(one(vec![status]), &facts()), only(Reason::FieldForbidden, "status"));
    let namespace = object("v1", "Namespace", None, "mendix");
    let namespace = with(namespace, "/spec", json!({"finalizers": []}));
    assert_eq!(
        refusals(one(vec![namespace]), &facts()),
        only(Reason::FieldForbidden, "spec.finalizers")
    );
}

#[test]
fn lists_are_refused() {
    let list = with(object("v1", "List", Some("mendix"), "a"), "/items", json!([config_map("b")]));
    assert!(refusals(one(vec![list]), &facts()).contains(&(Reason::ListForbidden, "kind".into())));
    let list = with(object("v1", "ConfigMapList", Some("mendix"), "a"), "/items", json!([]));
    assert!(refusals(one(vec![list]), &facts()).contains(&(Reason::ListForbidden, "kind".into())));
}

#[test]
fn every_container_is_pinned_by_digest() {
    let pod_spec = "spec.template.spec";
    for (list, place) in
        [("containers", "containers[0].image"), ("initContainers", "initContainers[0].image")]
    {
        for image in ["operator:latest", "operator", ""] {
            let spec = json!({"template": {"spec": {list: [{"name": "a", "image": image}]}}});
            let body = with(deployment(IMAGE), "/spec", spec);
            let draft = one(vec![body]).change(|index| index.components[0].images.clear());
            assert_eq!(
                refusals(draft, &facts()),
                only(Reason::ImageNotPinned, &format!("{pod_spec}.{place}"))
            );
        }
    }
    let without = with(deployment(IMAGE), "/spec/template/spec/containers", json!([{"name": "a"}]));
    assert_eq!(
        refusals(one(vec![without]), &facts()),
        only(Reason::ImageNotPinned, "spec.template.spec.containers[0].image")
    );
    let volume = json!([{"name": "v", "image": {"reference": "data:latest"}}]);
    let body = with(deployment(IMAGE), "/spec/template/spec/volumes", volume);
    assert_eq!(
        refusals(one(vec![body]), &facts()),
        only(Reason::ImageNotPinned, "spec.template.spec.volumes[0].image.reference")
    );
}

#[test]
fn pod_templates_are_found_wherever_they_are() {
    let tag = json!([{"name": "a", "image": "operator:1"}]);
    let mut cron = object("batch/v1", "CronJob", Some("mendix"), "a");
    cron["spec"] = json!({"jobTemplate": {"spec": {"template": {"spec": {"containers": tag}}}}});
    let mut custom = object("example.com/v1", "Runner", Some("mendix"), "a");
    custom["spec"] = json!({"pods": [{"template": {"spec": {"containers": tag}}}]});
    for body in [cron, custom] {
        let draft = one(vec![body]).change(|index| index.components[0].images.clear());
        assert_eq!(refusals(draft, &facts())[0].0, Reason::ImageNotPinned);
    }
    // In a schema, `containers` is a property and not a container.
    let schema =
        json!([{"schema": {"openAPIV3Schema": {"properties": {"containers": {"type": "array"}}}}}]);
    let definition = with(crd("example.com", "Runner", "Namespaced"), "/spec/versions", schema);
    one(vec![definition]).admit(&facts()).unwrap();
}

#[test]
fn ephemeral_containers_are_refused() {
    let body =
        with(deployment(IMAGE), "/spec/template/spec/ephemeralContainers", json!([{"name": "x"}]));
    assert_eq!(
        refusals(one(vec![body]), &facts()),
        only(Reason::EphemeralContainers, "spec.template.spec.ephemeralContainers")
    );
}

#[test]
fn the_images_are_exactly_those_that_the_index_lists() {
    let unlisted = one(vec![deployment(IMAGE)]).change(|index| index.components[0].images.clear());
    assert_eq!(
        refusals(unlisted, &facts()),
        only(Reason::ImageNotListed, "spec.template.spec.containers[0].image")
    );
    let unused =
        one(vec![config_map("a")]).change(|index| index.components[0].images.push(IMAGE.into()));
    assert_eq!(refusals(unused, &facts()), only(Reason::ImageNotUsed, "images[0]"));
}

#[test]
fn webhooks_are_served_in_the_components_namespaces() {
    let api = "admissionregistration.k8s.io/v1";
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        let configuration = |client: Value| {
            let mut body = object(api, kind, None, "policy");
            body["webhooks"] = json!([{"name": "a.example.com", "clientConfig": client}]);
            body
        };
        let inside = json!({"service": {"namespace": "mendix", "name": "policy"}});
        one(vec![configuration(inside)]).admit(&facts()).unwrap();
        let outside = json!({"url": "https://elsewhere.example.com/"});
        assert_eq!(
            refusals(one(vec![configuration(outside)]), &facts()),
            only(Reason::WebhookOutside, "webhooks[0].clientConfig.url")
        );
        for client in [json!({"service": {"namespace": "apps", "name": "policy"}}), json!({})] {
            assert_eq!(
                refusals(one(vec![configuration(client)]), &facts()),
                only(Reason::WebhookOutside, "webhooks[0].clientConfig.service.namespace")
            );
        }
    }
    let mut definition = crd("example.com", "Thing", "Namespaced");
    definition["spec"]["conversion"] =
        json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://elsewhere/"}}});
    assert_eq!(
        refusals(one(vec![definition]), &facts()),
        only(Reason::WebhookOutside, "spec.conversion.webhook.clientConfig.url")
    );
}

#[test]
fn custom_resources_fit_the_definition_that_comes_with_them() {
    let mut definition = crd("example.com", "Thing", "Namespaced");
    definition["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "required": ["size"],
                "properties": {"size": {"type": "integer"}}}}}}},
        {"name": "v1beta1", "served": false, "storage": false}]);
    let thing = |version: &str, spec: Value| {
        let mut thing = object(&format!("example.com/{version}"), "Thing", Some("mendix"), "a");
        thing["spec"] = spec;
        thing
    };
    let release = |thing: Value| one(vec![definition.clone(), thing]);
    release(thing("v1", json!({"size": 1}))).admit(&facts()).unwrap();
    for (spec, field) in [
        (json!({"size": "large"}), "spec.size"),
        (json!({}), "spec.size"),
        (json!({"size": 1, "sice": 1}), "spec.sice"),
    ] {
        assert_eq!(
            refusals(release(thing("v1", spec)), &facts()),
            only(Reason::DefinitionMismatch, field)
        );
    }
    for version in ["v1beta1", "v2"] {
        assert_eq!(
            refusals(release(thing(version, json!({"size": 1}))), &facts()),
            only(Reason::VersionNotServed, "apiVersion")
        );
    }
    // Without its definition in the release the server is asked.
    one(vec![thing("v2", json!({}))]).admit(&facts()).unwrap();
}

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn role(rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "mendix-agent"}, "rules": rules})
}

fn rule(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> Value {
    let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

/// The field of the only finding, and what was found.
fn only(at: Role, rule: Value) -> (String, String) {
    let found = findings(at, &role(json!([rule])));
    assert_eq!(found.len(), 1, "{rule}: {found:?}");
    found.into_iter().next().unwrap()
}

const EVERY_ROLE: [Role; 4] = [Role::Own, Role::Guard, Role::Managed, Role::Cluster];

#[test]
fn no_role_holds_a_wildcard() {
    for at in EVERY_ROLE {
        for (field, list) in [
            ("apiGroups", json!(["*"])),
            ("resources", json!(["*"])),
            ("resources", json!(["*/scale"])),
            ("resources", json!(["deployments/*"])),
            ("resourceNames", json!(["mendix-*"])),
            ("verbs", json!(["get", "*"])),
        ] {
            let mut rule = rule("apps", "deployments", &["mendix-operator"], &["get"]);
            rule[field] = list;
            let found = findings(at, &role(json!([rule])));
            let field = format!("rules[0].{field}");
            assert!(
                found.iter().any(|(at, what)| *at == field && what.contains("wildcard")),
                "{rule}"
            );
        }
        let urls = json!([{"nonResourceURLs": ["/metrics/*"], "verbs": ["get"]}]);
        assert_eq!(findings(at, &role(urls))[0].0, "rules[0].nonResourceURLs");
        let urls = json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]);
        assert_eq!(findings(at, &role(urls)), []);
    }
}

#[test]
fn no_role_leads_into_pods_or_makes_the_agent_somebody_else() {
    for at in EVERY_ROLE {
        for resource in NEVER_RESOURCES {
            let (group, resource) = resource.split_once('/').unwrap();
            let (field, what) = only(at, rule(group, resource, &["a"], &["create"]));
            assert_eq!(field, "rules[0].resources");
            assert!(what.contains(resource), "{what}");
        }
        for verb in NEVER_VERBS {
            let (field, what) = only(at, rule("", "users", &["a"], &[verb]));
            assert_eq!(field, "rules[0].verbs");
            assert!(what.contains(verb), "{what}");
        }
    }
    // Of another group it is another thing.
    assert_eq!(
        findings(Role::Managed, &role(json!([rule("example.com", "pods/exec", &[], &["get"])]))),
        []
    );
}

#[test]
fn secrets_outside_the_agents_namespace_are_named() {
    for at in [Role::Managed, Role::Cluster] {
        assert_eq!(only(at, rule("", "secrets", &[], &["list"])).0, "rules[0].resourceNames");
        assert_eq!(
            findings(at, &role(json!([rule("", "secrets", &["mendix-operator"], &["get"])]))),
            []
        );
    }
    assert_eq!(
        findings(Role::Own, &role(json!([rule("", "secrets", &[], &["list", "delete"])]))),
        []
    );
    assert!(only(Role::Guard, rule("", "secrets", &["x"], &["get"])).1.contains("guard"));
}

#[test]
fn escalate_and_bind_are_for_named_roles_but_those_of_a_managed_namespace() {
    for verb in ["escalate", "bind", "create", "patch", "delete"] {
        for resource in ["roles", "rolebindings", "clusterroles", "clusterrolebindings"] {
            for at in EVERY_ROLE {
                let found = findings(at, &role(json!([rule(RBAC, resource, &[], &[verb])])));
                let may = at == Role::Managed && !resource.starts_with("cluster");
                assert_eq!(found.is_empty(), may, "{at:?} {verb} {resource}: {found:?}");
                let named = rule(RBAC, resource, &["mendix-operator"], &[verb]);
                assert_eq!(findings(at, &role(json!([named]))), []);
            }
        }
    }
    for name in ["cluster-admin", "admin", "system:node"] {
        let (_, what) = only(Role::Cluster, rule(RBAC, "clusterroles", &["a", name], &["bind"]));
        assert!(what.contains(name), "{what}");
    }
    // To read them by any name is nothing.
    assert_eq!(findings(Role::Cluster, &role(json!([rule(RBAC, "clusterroles", &[], &READ)]))), []);
    assert_eq!(
        only(Role::Managed, rule("apps", "deployments", &["a"], &["bind"])).0,
        "rules[0].apiGroups"
    );
}

#[test]
fn what_is_written_in_the_whole_cluster_is_named() {
    assert_eq!(
        only(Role::Cluster, rule("apps", "deployments", &[], &["patch"])).0,
        "rules[0].resourceNames"
    );
    assert_eq!(
        findings(Role::Managed, &role(json!([rule("apps", "deployments", &[], &["patch"])]))),
        []
    );
    assert_eq!(
        findings(Role::Cluster, &role(json!([rule("", "namespaces", &["mendix-a"], &["create"])]))),
        []
    );
}

#[test]
fn what_the_customer_gives_no_release_takes() {
    for at in EVERY_ROLE {
        for verb in ["create", "patch", "update", "delete", "deletecollection"] {
            let policy = rule("agent.mendix.com", "logsharingpolicies", &["default"], &[verb]);
            assert!(only(at, policy).1.contains("customer"));
        }
    }
    assert_eq!(only(Role::Cluster, rule("", "pods/log", &[], &["get"])).0, "rules[0].resources");
    assert_eq!(findings(Role::Managed, &role(json!([rule("", "pods/log", &[], &["get"])]))), []);
}

#[test]
fn others_neither_add_to_the_rights_nor_share_them() {
    let mut aggregated = role(json!([]));
    aggregated["aggregationRule"] = json!({"clusterRoleSelectors": []});
    assert_eq!(findings(Role::Cluster, &aggregated)[0].0, "aggregationRule");
    let mut shared = role(json!([]));
    shared["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    assert!(findings(Role::Managed, &shared)[0].0.starts_with("metadata.labels["));
}

#[test]
fn what_can_not_be_read_is_refused() {
    for (rules, field) in [
        (json!("all"), "rules"),
        (json!([{"verbs": "get"}]), "rules[0].verbs"),
        (json!([{"verbs": ["get"], "anything": ["*"]}]), "rules[0].anything"),
    ] {
        let found = findings(Role::Own, &role(rules));
        assert!(found[0].0.starts_with(field), "{found:?}");
    }
    let live = role(json!([{"anything": []}]));
    assert!(narrowing(&live, &role(json!([])))[0].1.contains("can't be compared"));
    let many: Vec<String> = (0..400).map(|n| format!("n{n}")).collect();
    let huge = json!([{"apiGroups": many, "resources": many, "verbs": ["get"]}]);
    assert!(findings(Role::Own, &role(huge.clone()))[0].1.contains("more than"));
    assert!(narrowing(&role(huge), &role(json!([])))[0].1.contains("too many"));
}

#[test]
fn a_right_that_goes_is_named() {
    let live = role(json!([
        rule("apps", "deployments", &["a", "b"], &["get", "patch"]),
        rule("", "pods/log", &[], &["get"]),
    ]));
    let new = role(json!([
        rule("apps", "deployments", &["a"], &["get", "patch"]),
        rule("apps", "deployments", &["b"], &["get"])
    ]));
    let said: Vec<String> = narrowing(&live, &new).into_iter().map(|(_, what)| what).collect();
    assert_eq!(said, ["takes away: patch deployments.apps b", "takes away: get pods/log"]);
    // A right over all objects is more than one over any list of them, and a wildcard more than both.
    let all = role(json!([rule("apps", "deployments", &[], &["get"])]));
    assert_eq!(narrowing(&role(json!([rule("apps", "deployments", &["x"], &["get"])])), &all), []);
    assert_eq!(
        narrowing(&all, &role(json!([rule("apps", "deployments", &["x"], &["get"])]))).len(),
        1
    );
    assert_eq!(narrowing(&role(json!([rule("*", "deployments", &[], &["get"])])), &all).len(), 1);
    assert_eq!(narrowing(&role(Value::Null), &all), []);
}

const GROUPS: [&str; 3] = ["", "apps", "unheard.of"];
const RESOURCES: [&str; 4] = ["pods", "pods/log", "deployments", "unheardofs"];
const NAMES: [&str; 3] = ["a", "b", "unheard-of"];
const VERBS: [&str; 3] = ["get", "patch", "unheardof"];
const URLS: [&str; 3] = ["/metrics", "/healthz", "/unheard/of"];

/// The authoriser of the API server in a few lines: whether the rules of a role allow one request.
fn allowed(role: &Value, group: &str, resource: &str, name: &str, verb: &str) -> bool {
    role["rules"].as_array().unwrap().iter().any(|rule| {
        let list = |key: &str| -> Vec<&str> {
            rule[key].as_array().into_iter().flatten().map(|it| it.as_str().unwrap()).collect()
        };
        let (groups, resources, verbs) = (list("apiGroups"), list("resources"), list("verbs"));
        let sub = resource.split_once('/').map(|(_, sub)| format!("*/{sub}")).unwrap_or_default();
        let names = list("resourceNames");
        (verbs.contains(&verb) || verbs.contains(&"*"))
            && (groups.contains(&group) || groups.contains(&"*"))
            && (resources.contains(&resource)
                || resources.contains(&"*")
                || resources.contains(&sub.as_str()))
            && (names.is_empty() || names.contains(&name))
    })
}

fn url_allowed(role: &Value, url: &str, verb: &str) -> bool {
    role["rules"].as_array().unwrap().iter().any(|rule| {
        let has = |key: &str, item: &str| {
            let list = rule[key].as_array();
            list.into_iter().flatten().any(|it| it == "*" || it == item)
        };
        has("nonResourceURLs", url) && has("verbs", verb)
    })
}

fn any_rule() -> impl Strategy<Value = Value> {
    let some = |items: &[&'static str], least| {
        let mut items = items.to_vec();
        // Nobody writes the last: it stands for all that is not listed anywhere.
        items.pop();
        items.push("*");
        prop::sample::subsequence(items.clone(), least..=items.len())
    };
    let resources = some(&["pods", "pods/log", "deployments", "*/log", "x"], 1);
    let names = prop::sample::subsequence(vec!["a", "b"], 0..=2);
    prop_oneof![
        4 => (some(&GROUPS, 1), resources, names, some(&VERBS, 1)).prop_map(|(g, r, n, v)| {
            json!({"apiGroups": g, "resources": r, "resourceNames": n, "verbs": v})
        }),
        1 => (some(&URLS, 1), some(&VERBS, 1))
            .prop_map(|(u, v)| json!({"nonResourceURLs": u, "verbs": v})),
    ]
}

fn any_role() -> impl Strategy<Value = Value> {
    prop::collection::vec(any_rule(), 0..4).prop_map(|rules| role(json!(rules)))
}

proptest! {
    #[test]
    fn what_counts_as_wider_allows_every_request_that_was_allowed(live in any_role(), new in any_role()) {
        let wider = narrowing(&live, &new).is_empty();
        let mut lost = vec![];
        for verb in VERBS {
            for group in GROUPS {
                for resource in RESOURCES {
                    for name in NAMES {
                        if allowed(&live, group, resource, name, verb) && !allowed(&new, group, resource, name, verb) {
                            lost.push(format!("{verb} {group}/{resource} {name}"));
                        }
                    }
                }
            }
            for url in URLS {
                if url_allowed(&live, url, verb) && !url_allowed(&new, url, verb) {
                    lost.push(format!("{verb} {url}"));
                }
            }
        }
        prop_assert!(!wider || lost.is_empty(), "{live} -> {new}: {lost:?}");
    }

    #[test]
    fn rights_in_any_order_with_more_beside_them_are_no_narrowing(
        rules in prop::collection::vec(any_rule(), 0..4).prop_shuffle(),
        more in prop::collection::vec(any_rule(), 0..3),
    ) {
        let live = role(json!(rules));
        let mut wider: Vec<Value> = more;
        // One verb a rule: what is split is the same.
        for rule in rules.iter().rev() {
            for verb in rule["verbs"].as_array().unwrap() {
                let mut single = rule.clone();
                single["verbs"] = json!([verb]);
                wider.push(single);
            }
        }
        prop_assert_eq!(narrowing(&live, &role(json!(wider))), vec![]);
    }

    #[test]
    fn a_rule_that_nothing_else_covers_is_missed(rules in prop::collection::vec(any_rule(), 0..4)) {
        let special = rule("special.example", "things", &[], &["get"]);
        let wild = |rule: &Value| rule.to_string().contains('*');
        let rules: Vec<Value> = rules.into_iter().filter(|rule| !wild(rule)).collect();
        let mut more = rules.clone();
        more.push(special);
        prop_assert_eq!(narrowing(&role(json!(more)), &role(json!(rules))).len(), 1);
    }
}

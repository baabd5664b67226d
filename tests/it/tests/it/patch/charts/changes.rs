//! What a second version of the charts changes, and a bad third one: versions in every label, images,
//! and what upgrades of such software do: fields come and go, lists grow, objects are renamed.

use serde_json::{Value, json};

use super::Rendered;

/// Versions and digests as the charts print them everywhere.
const SECOND: [(&str, &str); 4] = [
    ("v1.15.3", "v1.16.0"),
    ("1.11.2", "1.12.0"),
    ("v0.76.1", "v0.77.0"),
    ("11111111", "22222222"),
];
const THIRD: [(&str, &str); 4] = [
    ("v1.16.0", "v1.16.1"),
    ("1.12.0", "1.12.1"),
    ("v0.77.0", "v0.78.0"),
    ("22222222", "33333333"),
];

fn relabelled(rendered: &Rendered, words: [(&str, &str); 4]) -> Rendered {
    let relabel = |document: &Value| {
        let mut text = document.to_string();
        for (from, to) in words {
            text = text.replace(from, to);
        }
        serde_json::from_str(&text).unwrap()
    };
    rendered.iter().map(|(chart, all)| (*chart, all.iter().map(relabel).collect())).collect()
}

struct Chart<'a>(&'a mut Vec<Value>);

impl Chart<'_> {
    fn find(&mut self, kind: &str, name: &str) -> usize {
        let found = self.0.iter().position(|d| d["kind"] == kind && d["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("the chart has no {kind} {name}"))
    }

    fn get(&mut self, kind: &str, name: &str) -> &mut Value {
        let at = self.find(kind, name);
        &mut self.0[at]
    }

    fn remove(&mut self, kind: &str, name: &str) -> Value {
        let at = self.find(kind, name);
        self.0.remove(at)
    }
}

fn push(document: &mut Value, pointer: &str, item: Value) {
    document.pointer_mut(pointer).and_then(Value::as_array_mut).expect(pointer).push(item);
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).expect(pointer)[key] = value;
}

fn unset(document: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).and_then(Value::as_object_mut).expect(pointer);
    parent.remove(&key.replace("~1", "/")).expect(pointer);
}

/// The second version.
pub(super) fn second(first: &Rendered) -> Rendered {
    let mut all = relabelled(first, SECOND);
    certificates(Chart(all.get_mut("certificates").unwrap()));
    monitoring(Chart(all.get_mut("monitoring").unwrap()));
    ingress(Chart(all.get_mut("ingress").unwrap()));
    all
}

fn certificates(mut chart: Chart<'_>) {
    let definition = chart.get("CustomResourceDefinition", "certificates.cert-manager.io");
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let template = json!({"type": "object", "properties": {"labels": {
        "type": "object", "additionalProperties": {"type": "string"}}}});
    set(definition, &format!("{properties}/secretTemplate"), template);
    let column = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    push(definition, "/spec/versions/0/additionalPrinterColumns", column);
    let role = chart.get("ClusterRole", "mendix-certificates-cainjector");
    let rules = role["rules"].as_array_mut().unwrap();
    rules.retain(|rule| rule["apiGroups"] != json!(["apiregistration.k8s.io"]));
    let webhook = chart.get("Deployment", "mendix-certificates-webhook");
    let container = "/spec/template/spec/containers/0";
    push(webhook, &format!("{container}/args"), json!("--feature-gates=Strict=true"));
    unset(webhook, &format!("{container}/livenessProbe/initialDelaySeconds"));
    let validating = chart.get("ValidatingWebhookConfiguration", "mendix-certificates");
    set(validating, "/webhooks/0/timeoutSeconds", json!(10));
}

fn monitoring(mut chart: Chart<'_>) {
    let mut dashboards = chart.remove("ConfigMap", "grafana-dashboards-nodes");
    dashboards["metadata"]["name"] = json!("grafana-dashboards");
    dashboards["data"]["pods.json"] = json!("{\"title\": \"Pods\", \"uid\": \"pods\"}");
    chart.0.push(dashboards);
    let grafana = chart.get("Deployment", "grafana");
    let pod = "/spec/template/spec";
    set(grafana, &format!("{pod}/volumes/1/configMap/name"), json!("grafana-dashboards"));
    let image = grafana.pointer(&format!("{pod}/containers/0/image")).unwrap().clone();
    let sidecar = json!({"name": "reload", "image": image, "args": ["reload"],
        "env": [{"name": "INTERVAL", "value": "30s"}]});
    push(grafana, &format!("{pod}/containers"), sidecar);
    set(
        grafana,
        &format!("{pod}/initContainers"),
        json!([{"name": "chown", "image": image, "command": ["chown"]}]),
    );
    unset(grafana, &format!("{pod}/containers/0/readinessProbe/initialDelaySeconds"));
    let service = chart.get("Service", "grafana");
    push(service, "/spec/ports", json!({"name": "alerts", "port": 9094, "targetPort": 9094}));
    let prometheus = chart.get("StatefulSet", "prometheus");
    push(
        prometheus,
        &format!("{pod}/containers/0/args"),
        json!("--web.enable-remote-write-receiver"),
    );
    set(prometheus, &format!("{pod}/containers/0/resources/limits/memory"), json!("3Gi"));
    let secret = chart.get("Secret", "mendix-monitoring");
    set(secret, "/data/templates.tmpl", json!("e3sgZGVmaW5lICJ0aXRsZSIgfX17eyBlbmQgfX0K"));
    chart.remove("PodMonitor", "node-exporter");
    let rules = chart.get("PrometheusRule", "nodes");
    push(
        rules,
        "/spec/groups/0/rules",
        json!({"alert": "NodeFull", "expr": "node_filesystem_avail_bytes < 1e9",
        "for": "5m", "labels": {"severity": "warning"}}),
    );
    push(
        rules,
        "/spec/groups",
        json!({"name": "more", "rules": [{"record": "more", "expr": "vector(2)"}]}),
    );
    let job = chart.get("CronJob", "prometheus-compact");
    set(job, "/spec/schedule", json!("47 2 * * *"));
    let ingress = chart.get("Ingress", "grafana");
    push(ingress, "/spec/tls/0/hosts", json!("dashboards.example.com"));
    let policy = chart.get("NetworkPolicy", "prometheus");
    push(policy, "/spec/ingress/0/ports", json!({"port": 9091, "protocol": "TCP"}));
    let ports = chart.get("DaemonSet", "node-exporter");
    set(ports, "/spec/updateStrategy/rollingUpdate/maxUnavailable", json!("10%"));
}

fn ingress(mut chart: Chart<'_>) {
    let config = chart.get("ConfigMap", "mendix-ingress");
    unset(config, "/data/proxy-buffer-size");
    set(config, "/data/annotations-risk-level", json!("High"));
    let role = chart.get("ClusterRole", "mendix-ingress");
    role["rules"].as_array_mut().unwrap().remove(1);
    let scaler = chart.get("HorizontalPodAutoscaler", "mendix-ingress");
    set(scaler, "/spec/maxReplicas", json!(8));
    let service = chart.get("Service", "mendix-ingress");
    push(
        service,
        "/spec/ports",
        json!({"name": "metrics", "port": 10254, "protocol": "TCP", "targetPort": 10254}),
    );
    unset(
        service,
        "/metadata/annotations/service.beta.kubernetes.io~1azure-load-balancer-health-probe-request-path",
    );
    let budget = chart.get("PodDisruptionBudget", "mendix-ingress");
    unset(budget, "/spec/minAvailable");
    set(budget, "/spec/maxUnavailable", json!(1));
    let certificate = chart.get("Certificate", "mendix-ingress-default");
    push(certificate, "/spec/dnsNames", json!("apps.example.org"));
    let webhook = chart.get("ValidatingWebhookConfiguration", "mendix-ingress");
    set(webhook, "/webhooks/0/rules/0/operations", json!(["CREATE", "UPDATE", "DELETE"]));
    let controller = chart.get("Deployment", "mendix-ingress");
    let env = json!({"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
    push(controller, "/spec/template/spec/containers/0/env", env);
    set(controller, "/spec/minReadySeconds", json!(5));
}

/// A third version whose ingress controller does not get ready.
pub(super) fn bad(second: &Rendered) -> Rendered {
    let mut all = relabelled(second, THIRD);
    let mut chart = Chart(all.get_mut("certificates").unwrap());
    let definition = chart.get("CustomResourceDefinition", "issuers.cert-manager.io");
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    set(definition, &format!("{properties}/vault"), json!({"type": "object"}));
    let mut chart = Chart(all.get_mut("monitoring").unwrap());
    chart.remove("PrometheusRule", "nodes");
    chart.remove("CronJob", "prometheus-compact");
    let mut added = chart.get("ConfigMap", "grafana-dashboards").clone();
    added["metadata"]["name"] = json!("grafana-dashboards-new");
    chart.0.push(added);
    unset(chart.get("Secret", "mendix-monitoring"), "/data/templates.tmpl");
    let mut chart = Chart(all.get_mut("ingress").unwrap());
    let controller = chart.get("Deployment", "mendix-ingress");
    let image = controller.pointer_mut("/spec/template/spec/containers/0/image").unwrap();
    *image = json!(image.as_str().unwrap().replace("controller", "bad"));
    all
}

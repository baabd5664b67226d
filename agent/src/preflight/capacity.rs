//! Whether the cluster's nodes can run what releases bring.

use kube::{Api, Client, api::ListParams};

use super::{Check, Verdict};
use crate::{cluster::CALL_DEADLINE, errors::describe, nodes::Node};

pub(super) const NODES: &str = "nodes";

/// Nodes that are read; a cluster has more rarely, and the figures are then lower bounds.
const MAX_NODES: u32 = 500;
/// What the largest managed component and the agent need on one node.
const NEEDED: Room = Room { millicores: 500, mebibytes: 512 };

/// Processor time and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    millicores: u64,
    mebibytes: u64,
}

/// Asks for the nodes.
pub(super) async fn check(client: &Client) -> Check {
    let nodes: Api<Node> = Api::all(client.clone());
    let params = ListParams::default().limit(MAX_NODES);
    let unknown = |detail: String| {
        let (cause, remedy) = ("the agent may not list nodes", "apply the agent's RBAC again");
        Check::new(NODES, Verdict::Fail, detail, cause, remedy)
    };
    match tokio::time::timeout(CALL_DEADLINE, nodes.list(&params)).await {
        Ok(Ok(list)) => judge(&list.items),
        Ok(Err(error)) => unknown(describe(&error)),
        Err(_) => unknown(format!("no answer within {} s", CALL_DEADLINE.as_secs())),
    }
}

fn judge(nodes: &[Node]) -> Check {
    let usable: Vec<&Node> = nodes.iter().filter(|node| is_usable(node)).collect();
    let rooms: Vec<Room> = usable.iter().map(|node| room(node)).collect();
    let millicores: u64 = rooms.iter().map(|room| room.millicores).sum();
    let mebibytes: u64 = rooms.iter().map(|room| room.mebibytes).sum();
    let detail = format!(
        "{} of {} take pods, {}.{} cores and {} GiB allocatable",
        usable.len(),
        nodes.len(),
        millicores / 1000,
        millicores % 1000 / 100,
        mebibytes / 1024,
    );
    let fits =
        |room: &Room| room.millicores >= NEEDED.millicores && room.mebibytes >= NEEDED.mebibytes;
    if !rooms.iter().any(fits) {
        let detail = format!(
            "{detail}; none of them has {} millicores and {} MiB",
            NEEDED.millicores, NEEDED.mebibytes
        );
        let cause = "the node pool is scaled to zero, too small, cordoned or sick";
        let remedy = "scale the node pool, or uncordon and mend its nodes";
        return Check::new(NODES, Verdict::Fail, detail, cause, remedy);
    }
    if usable.len() < nodes.len() {
        let out: Vec<&str> = nodes
            .iter()
            .filter(|node| !is_usable(node))
            .filter_map(|node| node.metadata.name.as_deref())
            .take(5)
            .collect();
        let detail = format!("{detail}; not: {}", out.join(", "));
        let cause = "an upgrade is under way, or nodes are cordoned, not ready or under pressure";
        let remedy = "look at them with kubectl describe node, if no upgrade is under way";
        return Check::new(NODES, Verdict::Warn, detail, cause, remedy);
    }
    Check::pass(NODES, detail)
}

/// Ready, schedulable and without pressure.
fn is_usable(node: &Node) -> bool {
    let is = |wanted: &dyn Fn(&str) -> bool| {
        node.conditions().iter().any(|condition| wanted(&condition.kind) && condition.is_true())
    };
    !node.is_cordoned() && is(&|kind| kind == "Ready") && !is(&|kind| kind.ends_with("Pressure"))
}

fn room(node: &Node) -> Room {
    let quantity = |name: &str| milli(node.allocatable(name)?);
    Room {
        millicores: quantity("cpu").unwrap_or(0),
        mebibytes: quantity("memory").unwrap_or(0) / 1000 / (1024 * 1024),
    }
}

/// A Kubernetes quantity in thousandths, as kubelets write them: whole numbers with one of the
/// suffixes; `None` for anything else.
fn milli(quantity: &str) -> Option<u64> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(digits);
    let factor: u64 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, cpu: &str, memory: &str, conditions: &[(&str, &str)]) -> Node {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status)| json!({ "type": kind, "status": status }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "status": { "conditions": conditions, "allocatable": { "cpu": cpu, "memory": memory } },
        }))
        .unwrap()
    }

    const READY: (&str, &str) = ("Ready", "True");

    #[test]
    fn healthy_nodes_pass_with_their_sum() {
        let nodes = [
            node("a", "3860m", "12880484Ki", &[READY, ("DiskPressure", "False")]),
            node("b", "2", "4Gi", &[READY]),
        ];
        let check = judge(&nodes);
        assert_eq!(check.result, Verdict::Pass, "{check:?}");
        assert_eq!(check.detail, "2 of 2 take pods, 5.8 cores and 16 GiB allocatable");
    }

    #[test]
    fn a_cordoned_or_pressed_node_is_named() {
        let cordoned = node("c", "4", "8Gi", &[READY]).cordoned();
        let pressed = node("d", "4", "8Gi", &[READY, ("MemoryPressure", "True")]);
        let check = judge(&[node("a", "4", "8Gi", &[READY]), cordoned, pressed]);
        assert_eq!(check.result, Verdict::Warn);
        assert!(check.detail.ends_with("not: c, d"), "{}", check.detail);
    }

    #[test]
    fn no_node_with_room_fails() {
        for nodes in [
            vec![],
            vec![node("a", "4", "8Gi", &[("Ready", "False")])],
            vec![node("a", "400m", "8Gi", &[READY])],
            vec![node("a", "4", "400Mi", &[READY])],
            vec![node("a", "a lot", "8Gi", &[READY])],
        ] {
            assert_eq!(judge(&nodes).result, Verdict::Fail, "{nodes:?}");
        }
    }

    #[test]
    fn quantities_are_read_as_kubelets_write_them() {
        for (text, thousandths) in [
            ("100m", Some(100)),
            ("2", Some(2000)),
            ("1k", Some(1_000_000)),
            ("4Ki", Some(4_096_000)),
            ("1.5", None),
            ("", None),
            ("99999999999999Ti", None),
        ] {
            assert_eq!(milli(text), thousandths, "{text}");
        }
    }
}

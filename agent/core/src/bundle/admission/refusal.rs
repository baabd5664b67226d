//! Reasons against a release: what was found where, under a stable code, and what to do about it.

use std::fmt;

use super::super::{index::ComponentEntry, object::ObjectId};

/// One reason why a release is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Component it concerns; none for the release as a whole.
    pub component: Option<String>,
    /// Object it concerns.
    pub object: Option<ObjectId>,
    /// Field it concerns, as a dotted path in the object, or in the index when there is no object.
    pub field: Option<String>,
    /// Stable code.
    pub reason: Reason,
    /// What was found, in one clause.
    pub found: String,
}

impl Refusal {
    pub(super) fn release(reason: Reason, field: &str, found: impl Into<String>) -> Self {
        Self {
            component: None,
            object: None,
            field: Some(field.into()),
            reason,
            found: found.into(),
        }
    }

    pub(super) fn component(
        entry: &ComponentEntry,
        reason: Reason,
        field: &str,
        found: impl Into<String>,
    ) -> Self {
        Self { component: Some(entry.name.clone()), ..Self::release(reason, field, found) }
    }

    pub(super) fn object(
        entry: &ComponentEntry,
        id: &ObjectId,
        reason: Reason,
        field: &str,
        found: impl Into<String>,
    ) -> Self {
        Self { object: Some(id.clone()), ..Self::component(entry, reason, field, found) }
    }

    /// What to do about it, in one sentence.
    pub fn next_step(&self) -> &'static str {
        self.reason.next_step()
    }
}

/// `Reason: component: Kind namespace/name: field: found. Next step.`
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.reason)?;
        if let Some(component) = &self.component {
            write!(f, "{component}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{}. {}", self.found, self.next_step())
    }
}

/// Codes of refusals, each with what to do. Stable: they appear in reports and objects.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $next:literal,)+) => {
        /// Why a release, a component or an object is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// The code as it is reported.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What to do about it.
            pub fn next_step(self) -> &'static str {
                match self { $(Self::$name => $next,)+ }
            }
        }
    };
}

reasons! {
    /// The sequence is below the high-water mark.
    SequenceTooLow => "Publish the content again under a higher sequence.",
    /// The sequence is below the floor that release engineering signed.
    BelowFloor => "Publish the content again under a higher sequence.",
    /// Another release with the sequence of the high-water mark.
    SequenceReused => "Publish it under a sequence that was never used.",
    /// This very release was rolled back here.
    Quarantined => "Repair what made it fail and publish it under a higher sequence.",
    /// The agent's version is outside `agent_versions`.
    AgentVersion => "Bring the agent to a version in the range first, by a release that allows this one.",
    /// The Kubernetes version is outside `kubernetes_versions`.
    KubernetesVersion => "Upgrade the cluster into the range, or publish a release for its version.",
    /// The committed sequence is not in `from`.
    NotReachable => "Go through one of the releases that `from` names.",
    /// The committed sequence is in `blocked_from`.
    BlockedFrom => "Go through a release that is not in `blocked_from`.",
    /// An older version of a component than runs here, and the index doesn't say that it goes back.
    OlderVersion => "Publish the newer version, or say `goesBack: true` for the component if going back is meant.",
    /// The cluster's ring is not in `audience`.
    Audience => "Wait for the release of this cluster's ring.",
    /// Release state would not fit into its budget.
    StateBudget => "Make the release smaller or split it into several releases.",
    /// The record of a component, which names all of its objects, would be more than etcd takes.
    RecordTooLarge => "Split the component into several, or give its objects shorter names.",
    /// No blob with the digest that the index names was given.
    BlobMissing => "Fetch the blob again.",
    /// The agent's component is not the last one.
    AgentNotLast => "Give component mendix-agent a phase above all others.",
    /// A component for the agent where somebody else upgrades it.
    AgentElsewhere => "Upgrade this agent as it was installed, and publish a release without component mendix-agent.",
    /// The agent's component is not what a trial can undo.
    AgentComponent => "Leave only Deployment mendix-agent in the component, with container agent and no other metadata.",
    /// The component with the agent's definitions and rights is not the first one.
    FoundationNotFirst => "Give component mendix-agent-foundation a phase below all others.",
    /// Something in that component that is none of the agent's definitions and rights, or leaves it.
    FoundationObject => "Leave exactly the agent's definitions, roles and bindings in component mendix-agent-foundation, and namespaces that it binds.",
    /// One of the agent's roles or bindings in another component.
    FoundationElsewhere => "Move the object to component mendix-agent-foundation.",
    /// A right that no release may give to the agent, whoever signed it.
    RightForbidden => "Remove it: no release may give it to the agent.",
    /// A definition or a role that takes away what the present one has.
    Narrowed => "Keep what is there, or name the object in `narrows` of a later release, without component mendix-agent.",
    /// `narrows` names something else than an object of the agent's definitions and rights.
    NarrowUnused => "Remove the entry, or name the object as component mendix-agent-foundation does.",
    /// `narrows` in a release that puts a new agent on trial.
    NarrowsOnTrial => "Narrow in a later release, once the new agent has committed itself.",
    /// The namespace is not in the component's scope.
    NamespaceOutOfScope => "Move the object, or add the namespace to the component's scope.",
    /// The kind is not in the component's scope.
    KindOutOfScope => "Remove the object, or add `group/Kind` to the component's scope.",
    /// A namespace of Kubernetes or of the agent.
    NamespaceDenied => "Move the object to a namespace of the component.",
    /// Objects that are the agent's own state or the customer's policy.
    AgentState => "Remove the object: only the agent and the customer write it.",
    /// A namespaced kind without namespace.
    NamespaceMissing => "Set metadata.namespace.",
    /// A cluster-scoped kind with a namespace.
    NamespaceUnexpected => "Remove metadata.namespace.",
    /// A field that servers and controllers set.
    FieldForbidden => "Remove the field from the manifest.",
    /// A webhook that is served elsewhere than in the component's namespaces.
    WebhookOutside => "Serve the webhook by a Service in a namespace of the component.",
    /// A list instead of objects.
    ListForbidden => "Put each item on a line of its own.",
    /// A custom resource that does not fit the definition that comes with it.
    DefinitionMismatch => "Mend the object, or the schema of the definition.",
    /// A custom resource in a version that the definition with it does not serve.
    VersionNotServed => "Name a version that the definition serves.",
    /// An image without digest.
    ImageNotPinned => "Name the image as registry/name@sha256:<digest>, without a tag.",
    /// An image that the index doesn't list.
    ImageNotListed => "Add the image to the component's `images`.",
    /// An image in the index that no object uses.
    ImageNotUsed => "Remove the image from the component's `images`.",
    /// Ephemeral containers.
    EphemeralContainers => "Remove them: they belong to a running pod.",
    /// Two components name one object.
    OwnedTwice => "Leave the object in one component.",
    /// A component outside this release owns the object.
    OwnedByOther => "Release both components together, so that the object can move.",
    /// `replicas` on the target of a HorizontalPodAutoscaler.
    ReplicasUnderAutoscaler => "Remove spec.replicas: the autoscaler owns it.",
    /// `deletes` names a kind that is pruned without it.
    DeleteNotAllowed => "List only PVCs, PVs, CRDs and Namespaces in `deletes`.",
    /// `deletes` names an object of this release.
    DeleteContradicts => "Remove the object from the release or from `deletes`.",
    /// An exception for an object that the component doesn't have.
    ExceptionUnused => "Remove the exception, or name the object as the component does.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

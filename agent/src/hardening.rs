//! What a process does for itself so that logs and keys in its memory stay there.

use rustix::{
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
};

/// Turns core dumps off, and with them reading this process's memory by others of the same user
/// (`/proc/<pid>/mem`, ptrace).
///
/// # Errors
/// When the kernel refuses; neither call needs a privilege.
pub fn keep_memory_private() -> Result<(), Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_core_dump_can_not_be_made() {
        keep_memory_private().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        // Nor by whoever may raise a limit of its own.
        let raised = Rlimit { current: Some(1), maximum: Some(0) };
        assert!(setrlimit(Resource::Core, raised).is_err());
    }
}

//! Figures of the host and of this process, from the operating system.

use mendix_agent_core::health::{HostSeen, OwnSeen};
use sysinfo::{
    DiskRefreshKind, Disks, MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System,
};

/// The host; `None` where it does not tell. In a pod this is the node, as far as it shows.
pub(super) fn figures() -> Option<HostSeen> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let cpus = std::thread::available_parallelism().map_or(0, |count| count.get());
    Some(HostSeen {
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_total: system.total_memory(),
        memory_available: system.available_memory(),
        load: System::load_average().map_or(0.0, |load| load.five),
        disk_available: fullest_disk(),
    })
}

/// What is left on the fullest disk, as a fraction of its size; all of it when none shows.
fn fullest_disk() -> f64 {
    let Ok(disks) =
        Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage())
    else {
        return 1.0;
    };
    let left = |disk: &sysinfo::Disk| match disk.total_space() {
        0 => 1.0,
        total => disk.available_space() as f64 / total as f64,
    };
    disks.iter().map(left).fold(1.0, f64::min)
}

/// This process; zeroes where the host does not tell.
pub(super) fn own() -> OwnSeen {
    let read = || {
        let pid = sysinfo::get_current_pid().ok()?;
        let mut system = System::new().ok()?;
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[pid]),
            true,
            ProcessRefreshKind::nothing().with_memory().with_cpu(),
        );
        let own = system.process(pid)?;
        Some(OwnSeen { resident_bytes: own.memory(), cpu_millis: own.accumulated_cpu_time() })
    };
    read().unwrap_or(OwnSeen { resident_bytes: 0, cpu_millis: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_this_process_show() {
        let host = figures().expect("Linux tells");
        assert!(host.cpus > 0 && host.memory_total > host.memory_available, "{host:?}");
        assert!((0.0..=1.0).contains(&host.disk_available), "{host:?}");
        assert!(own().resident_bytes > 0);
    }
}

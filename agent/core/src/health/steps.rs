//! Figures that always move, told in steps with hysteresis.

use mendix_agent_proto::v1;

/// Memory and disk that are left, percent: a step.
const SHARE: u32 = 10;
/// Load, percent of all CPUs: a step.
const LOAD: u32 = 50;
/// Load that is told at most, percent.
const MOST_LOAD: f64 = 1000.0;
/// Own memory: a step, bytes.
const RESIDENT: u64 = 4 * 1024 * 1024;
/// Own CPU time: a step, milliseconds. At two thousandths of a CPU that is an hour and a half.
const CPU: u64 = 10_000;

/// Figures of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostSeen {
    /// How many CPUs it has.
    pub cpus: u32,
    /// Its memory, bytes.
    pub memory_total: u64,
    /// What is left of it, bytes.
    pub memory_available: u64,
    /// Tasks that ran or waited, averaged over five minutes.
    pub load: f64,
    /// What is left on the fullest disk, as a fraction of its size.
    pub disk_available: f64,
}

/// Figures of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSeen {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// CPU time since the start, milliseconds.
    pub cpu_millis: u64,
}

/// The figures that were told last.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    memory: Option<u32>,
    load: Option<u32>,
    disk: Option<u32>,
    resident: Option<u32>,
}

impl Steps {
    /// Figures of the host as they are told.
    pub(super) fn host(&mut self, seen: HostSeen) -> v1::HostHealth {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
        let memory = share(seen.memory_available as f64, seen.memory_total as f64);
        let load = share(seen.load, f64::from(seen.cpus)).min(MOST_LOAD);
        v1::HostHealth {
            cpus: seen.cpus,
            memory_total_bytes: seen.memory_total,
            memory_available_percent: step(&mut self.memory, memory, SHARE),
            load_percent: step(&mut self.load, load, LOAD),
            disk_available_percent: step(&mut self.disk, seen.disk_available * 100.0, SHARE),
        }
    }

    /// Own memory in bytes and CPU time in milliseconds, as they are told.
    pub(super) fn own(&mut self, seen: OwnSeen) -> (u64, u64) {
        let resident = seen.resident_bytes as f64 / RESIDENT as f64;
        let resident = u64::from(step(&mut self.resident, resident, 1)) * RESIDENT;
        (resident, seen.cpu_millis / CPU * CPU)
    }
}

/// The nearest multiple of `size`; the last one as long as the value is less than a step away from
/// it, so that a value at a boundary does not move to and fro.
fn step(last: &mut Option<u32>, value: f64, size: u32) -> u32 {
    let wide = f64::from(size);
    match *last {
        Some(told) if (value - f64::from(told)).abs() < wide => told,
        _ => {
            // Values are small and positive; a cast saturates.
            let told = (value / wide).round() as u32 * size;
            *last = Some(told);
            told
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_at_a_boundary_does_not_move_to_and_fro() {
        let mut last = None;
        let told: Vec<u32> =
            [44.0, 46.0, 44.9, 45.1].iter().map(|value| step(&mut last, *value, 10)).collect();
        assert_eq!(told, [40, 40, 40, 40]);
        assert_eq!(step(&mut last, 50.0, 10), 50);
    }

    #[test]
    fn no_memory_and_no_cpus_are_no_division_by_zero() {
        let seen = HostSeen {
            cpus: 0,
            memory_total: 0,
            memory_available: 0,
            load: f64::NAN,
            disk_available: f64::NAN,
        };
        assert_eq!(Steps::default().host(seen), v1::HostHealth::default());
    }

    proptest! {
        #[test]
        fn what_is_told_is_never_a_whole_step_off(values in prop::collection::vec(0.0f64..100.0, 1..50)) {
            let mut last = None;
            for value in values {
                let told = step(&mut last, value, 10);
                prop_assert!((f64::from(told) - value).abs() < 10.0, "{told} for {value}");
                prop_assert_eq!(told % 10, 0);
            }
        }
    }
}

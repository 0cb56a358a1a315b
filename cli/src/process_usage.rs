//! What a process has used, as the system counts it. Public for the benches, which measure other brokers by it too.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Memory that it holds now.
    pub resident_bytes: u64,
}

impl Usage {
    /// What this process has used so far.
    ///
    /// # Errors
    /// [`UsageError`] when the process is gone, or the system writes these files in another form.
    pub fn of(process_id: u32) -> Result<Self, UsageError> {
        let read = |part: &str| {
            let path = format!("/proc/{process_id}/{part}");
            fs::read_to_string(&path).map_err(|error| UsageError::Read { path, error })
        };
        let unknown = |part: &'static str| UsageError::Form { part };
        let cpu = cpu_of(&read("stat")?, ticks_per_second()).ok_or_else(|| unknown("stat"))?;
        let resident_bytes = resident_bytes_of(&read("status")?).ok_or_else(|| unknown("status"))?;
        Ok(Self { cpu, resident_bytes })
    }

    /// What was used since an earlier moment, and the memory of this one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), resident_bytes: self.resident_bytes }
    }
}

/// Why nothing is known of a process.
#[derive(Debug)]
pub enum UsageError {
    /// A file of it cannot be read.
    Read {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A file of it has another form.
    Form {
        /// Which.
        part: &'static str,
    },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "{path} cannot be read: {error}"),
            Self::Form { part } => write!(f, "the process's {part} has another form"),
        }
    }
}

impl std::error::Error for UsageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { error, .. } => Some(error),
            Self::Form { .. } => None,
        }
    }
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// The second field is the program's name in brackets, which may hold anything; 14 and 15 are counted after it.
fn cpu_of(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some(Duration::from_secs_f64(user.saturating_add(system) as f64 / ticks_per_second as f64))
}

fn resident_bytes_of(status: &str) -> Option<u64> {
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(resident_kib.saturating_mul(1_024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let stat = "17 (a ) b) S 1 17 17 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 99";
        assert_eq!(cpu_of(stat, 100), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("17 (a) S 1 17", 100), None);
    }

    #[test]
    fn memory_is_what_is_resident() {
        assert_eq!(resident_bytes_of("VmPeak:\t 9 kB\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(resident_bytes_of("VmPeak:\t 9 kB\n"), None);
    }

    #[test]
    fn this_process_holds_memory_and_a_process_that_is_not_there_is_an_error() {
        assert!(Usage::of(std::process::id()).unwrap().resident_bytes > 0);
        assert!(Usage::of(u32::MAX).is_err());
    }
}

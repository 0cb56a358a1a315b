//! The machine that everything ran on.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub processor: String,
    /// Cores that this program may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The kind of file system that the brokers write to.
    pub file_system: String,
    /// TCP's congestion control between two sockets of this machine, as the kernel names it. It is the same for everybody
    /// who is compared, and not without weight: BBR waits for a timer between segments, on loopback too.
    pub congestion_control: String,
}

impl Machine {
    /// This one; brokers write to this folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mounts = read("/proc/self/mountinfo");
        let file_system = folder.canonicalize().ok().and_then(|folder| file_system(&folder, &mounts));
        Self {
            processor: processor(&read("/proc/cpuinfo")).unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
                .filter(|release| !release.is_empty())
                .unwrap_or_else(unknown),
            file_system: file_system.unwrap_or_else(unknown),
            congestion_control: congestion_control().unwrap_or_else(|_| unknown()),
        }
    }

    /// Whether what is written is in memory: there a sync costs nothing and means nothing.
    #[must_use]
    pub fn writes_to_memory(&self) -> bool {
        ["tmpfs", "ramfs"].contains(&self.file_system.as_str())
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// Asked of a connection and not of the system's setting, over which a route may have its own.
fn congestion_control() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let connection = TcpStream::connect(listener.local_addr()?)?;
    Ok(rustix::net::sockopt::tcp_congestion(&connection)?)
}

fn processor(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    let (_, model) = line.split_once(':')?;
    Some(model.trim().to_owned())
}

/// `id parent major:minor root MOUNT options [tags] - TYPE source`; the last of several on one place is the one that is
/// seen.
fn file_system(folder: &Path, mounts: &str) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mount = head.split(' ').nth(4)?;
        folder.starts_with(mount).then_some((mount.len(), tail.split(' ').next()?))
    });
    mounts.max_by_key(|(len, _)| *len).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_is_the_one_that_counts() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/vda rw\n\
                      2 1 0:5 / /tmp rw shared:3 - tmpfs tmpfs rw\n\
                      3 2 8:2 / /tmp/disk rw - xfs /dev/vdb rw\n";
        for (folder, kind) in
            [("/home", "ext4"), ("/tmp/x", "tmpfs"), ("/tmp/disk/y", "xfs"), ("/tmpx", "ext4")]
        {
            assert_eq!(file_system(Path::new(folder), mounts).as_deref(), Some(kind), "{folder}");
        }
    }

    #[test]
    fn the_kernel_names_the_congestion_control_of_a_connection() {
        let allowed = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap();
        let found = congestion_control().unwrap();
        assert!(allowed.split_whitespace().any(|name| name == found), "{found} is one of {allowed}");
    }

    #[test]
    fn a_processor_is_named_by_its_model() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: A: B\n").as_deref(), Some("A: B"));
        assert_eq!(processor("processor\t: 0\n"), None);
    }
}

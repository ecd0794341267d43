//! Which file systems SQLite's write-ahead log is safe on.

use rustix::fs::statfs;

use super::Place;
use crate::journal::Fault;

/// File systems whose files several machines can have open, or whose locks and shared memory are those of another
/// machine, by the number that `statfs` gives them.
///
/// Source: <https://sqlite.org/wal.html> ("all processes using a database must be on the same host computer"); numbers
/// from statfs(2). Virtiofs, by which Docker on macOS and Windows mounts directories of its host, calls itself FUSE.
const UNSAFE: &[(u32, &str)] = &[
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB2"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE (virtiofs, sshfs or the like)"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0BD0_0BD0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x786F_4256, "VirtualBox shared folders"),
];

pub(super) fn check(place: &Place) -> Result<(), Fault> {
    let about = statfs(place.directory())
        .map_err(|error| place.failed("tell the file system", std::io::Error::from(error)))?;
    // The numbers have 32 bits, whatever type a platform gives them.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    match unsafe_name(about.f_type as u32) {
        None => Ok(()),
        Some(filesystem) => Err(Fault::Unsuitable {
            directory: place.directory().into(),
            filesystem,
        }),
    }
}

fn unsafe_name(kind: u32) -> Option<&'static str> {
    let found = UNSAFE.iter().find(|(known, _)| *known == kind);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_and_host_file_systems_are_refused_by_name_and_local_ones_are_not() {
        assert_eq!(unsafe_name(0x6969), Some("NFS"));
        assert_eq!(unsafe_name(0x0102_1997), Some("9P"));
        assert!(unsafe_name(0x6573_5546).is_some_and(|name| name.contains("virtiofs")));
        for (local, kind) in [
            ("ext4", 0xEF53),
            ("xfs", 0x5846_5342),
            ("btrfs", 0x9123_683E),
            ("tmpfs", 0x0102_1994),
            ("overlayfs", 0x794C_7630),
        ] {
            assert_eq!(unsafe_name(kind), None, "{local}");
        }
    }
}

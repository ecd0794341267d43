//! What one fsync costs: the part of a durable server's answer that is the disk's.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How many are measured, for their median.
const SYNCS: u64 = 200;

/// What is written before each.
///
/// Unit: bytes; a page of SQLite.
const BLOCK: [u8; 4096] = [0xC5; 4096];

/// The median time to write 4 KiB and have it safely on the disk under `directory` (`fdatasync`).
///
/// The blocks exist already, as those of SQLite's log do once it has begun anew for the first time: this is the least
/// that a commit costs.
///
/// # Errors
/// The directory cannot be written to.
pub(super) fn fsync(directory: &Path) -> io::Result<Duration> {
    let scratch = Scratch::in_directory(directory)?;
    for block in 0..SYNCS {
        scratch.write(block)?;
    }
    scratch.file.sync_all()?;
    let mut times = Vec::new();
    for block in 0..SYNCS {
        let before = Instant::now();
        scratch.write(block)?;
        scratch.file.sync_data()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// A file that is gone when this is.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn in_directory(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!(".chitchat-bench-{}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self { file, path })
    }

    fn write(&self, block: u64) -> io::Result<()> {
        self.file.write_all_at(&BLOCK, block * BLOCK.len() as u64)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

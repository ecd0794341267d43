//! A disk of its own, in memory, whose size and moods the test decides.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
};

use super::{server_process::serve_by, within};

/// A `tmpfs` in a mount namespace of its own; it goes when this is dropped.
pub struct Disk {
    /// Holds the namespace for as long as it lives.
    holder: Child,
    directory: tempfile::TempDir,
}

impl Disk {
    /// A disk with these options of `mount`; none, with the reason printed, where the system does not let us mount.
    pub async fn new(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory should be made");
        let script = r#"mount -t tmpfs -o "$1" disk "$2" && echo && exec sleep 300"#;
        let holder = Command::new("unshare")
            .args([
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                options,
            ])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut holder = match holder {
            Ok(holder) => holder,
            Err(error) => return skipped(&format!("unshare: {error}")),
        };
        let mut output = holder.stdout.take().expect("standard output is a pipe");
        let mounted = within("the disk to be mounted", output.read_u8()).await;
        if mounted.is_err() {
            let refused = holder.wait_with_output().await;
            let reason = refused.map(|refused| String::from_utf8_lossy(&refused.stderr).into());
            return skipped(&reason.unwrap_or_else(|error: std::io::Error| error.to_string()));
        }
        Some(Self { holder, directory })
    }

    /// Where servers on it see it.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the test sees it.
    pub fn seen_from_here(&self) -> PathBuf {
        let path = self.path().strip_prefix("/").expect("it is absolute");
        Path::new("/proc")
            .join(self.holder())
            .join("root")
            .join(path)
    }

    /// `chitchat serve` on it.
    pub fn serve(&self) -> Command {
        serve_by(&self.inside().each_ref().map(String::as_str), self.path())
    }

    /// Mounts it with other options.
    pub async fn remount(&self, options: &str) {
        let inside = self.inside();
        let mut command = Command::new(&inside[0]);
        command
            .args(&inside[1..])
            .args(["mount", "-o", &format!("remount,{options}")])
            .arg(self.path());
        let ended = within("the disk to be mounted anew", command.status()).await;
        assert!(ended.expect("mount should run").success());
    }

    /// Runs what follows where the disk is.
    fn inside(&self) -> [String; 5] {
        [
            "nsenter".into(),
            "--target".into(),
            self.holder(),
            "--user".into(),
            "--mount".into(),
        ]
    }

    fn holder(&self) -> String {
        self.holder.id().expect("it lives").to_string()
    }
}

fn skipped(reason: &str) -> Option<Disk> {
    println!(
        "skipped: a disk of its own cannot be had: {}",
        reason.trim()
    );
    None
}

//! The containers, and the commands of the machine that they are looked at with.

use std::{
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use tokio::{process::Command, time::timeout};

/// How long one command may take: `deploy/up` from nothing compiles all dependencies.
const COMMAND_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Containers, volumes and networks are this project's, so that a developer's own stay as they are.
const PROJECT: &str = "chitchat-test";

/// The system while it is up; it is taken down when this is dropped.
pub struct System(());

impl System {
    /// `deploy/up`
    pub async fn up() -> Self {
        let running = shell("docker ps --quiet --filter name=^/chitchat-chat$").await;
        assert_eq!(
            running, "",
            "a Chit Chat runs on this machine: deploy/down ends it"
        );
        take_down();
        let system = Self(());
        let took = system.up_again().await;
        println!("deploy/up took {took:.1?}");
        system
    }

    /// `deploy/up` once more, and how long it took.
    pub async fn up_again(&self) -> Duration {
        let start = Instant::now();
        shell("deploy/up").await;
        start.elapsed()
    }

    /// `deploy/down`, after which nothing is left.
    pub async fn down(self) {
        shell("deploy/down --volumes").await;
        for kind in ["container ls --all", "volume ls", "network ls"] {
            let filter = format!("label=com.docker.compose.project={PROJECT}");
            let left = shell(&format!("docker {kind} --quiet --filter {filter}")).await;
            assert_eq!(left, "", "{kind}");
        }
        assert!(!Path::new(".env").exists());
    }

    /// What `docker compose` says, or `docker-compose` where there is no such plug-in.
    pub async fn compose(&self, arguments: &str) -> String {
        let compose = if output("docker compose version").await.status.success() {
            "docker compose"
        } else {
            "docker-compose"
        };
        shell(&format!("{compose} {arguments}")).await
    }

    /// The id of a service's container.
    pub async fn container(&self, service: &str) -> String {
        let label = format!("label=com.docker.compose.service={service}");
        let project = format!("label=com.docker.compose.project={PROJECT}");
        let ids = shell(&format!(
            "docker ps --all --quiet --filter {label} --filter {project}"
        ))
        .await;
        ids.trim().to_owned()
    }

    /// `running 0`, `exited 1` ...
    pub async fn state(&self, service: &str) -> String {
        let id = self.container(service).await;
        let format = "{{.State.Status}} {{.State.ExitCode}}";
        let state = shell(&format!("docker inspect --format '{format}' {id}")).await;
        state.trim().to_owned()
    }

    /// What a service wrote to standard output.
    pub async fn log(&self, service: &str) -> String {
        let id = self.container(service).await;
        shell(&format!("docker logs {id} 2> /dev/null")).await
    }
}

impl Drop for System {
    fn drop(&mut self) {
        take_down();
    }
}

/// Takes away what this test, or one before it that was killed, has left.
fn take_down() {
    let ended = std::process::Command::new("deploy/down")
        .arg("--volumes")
        .env("COMPOSE_PROJECT_NAME", PROJECT)
        .output();
    if !ended.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("deploy/down: {ended:?}");
    }
}

/// Runs a command of the shell, which must succeed, and returns its standard output.
pub async fn shell(command: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = output(command).await;
    assert!(
        status.success(),
        "{command}: {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).expect("output should be UTF-8")
}

/// Runs a command of the shell in the root of the repository.
pub async fn output(command: &str) -> Output {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("COMPOSE_PROJECT_NAME", PROJECT)
        .kill_on_drop(true);
    match timeout(COMMAND_LIMIT, shell.output()).await {
        Ok(output) => output.expect("the shell should start"),
        Err(_) => panic!("{command} has not ended in {COMMAND_LIMIT:?}"),
    }
}

//! The whole system in containers, as `deploy/up` starts it and as a user meets it.
//!
//! One test, because starting takes minutes the first time: it starts everything, holds rule after rule against it, and
//! takes it all away again, whatever happened. It needs Docker, and grpcurl (`CHITCHAT_TEST_GRPCURL`, otherwise
//! `grpcurl`), and that no other Chit Chat runs on this machine's port 50052.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a crate of tests: nothing is reachable from outside, and a test that unwraps fails with a line number"
)]

#[path = "compose/attached.rs"]
mod attached;
#[path = "spec/support/drawn.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod drawn;
#[path = "spec/support/jaeger.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod jaeger;
#[path = "compose/readme.rs"]
mod readme;
#[path = "compose/restarted.rs"]
mod restarted;
#[path = "spec/support/spans.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod spans;
#[path = "compose/system.rs"]
mod system;
#[path = "compose/traces.rs"]
mod traces;
#[path = "compose/transcript.rs"]
mod transcript;

use std::{path::Path, time::Duration};

use chitchat::wire::v1::{
    EventType, GetHistoryRequest, JoinMsgLeave, ListParticipantsRequest, NoticeCode, ServerMessage,
    chat_service_client::ChatServiceClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use crate::{
    attached::Attached,
    system::{System, output, shell},
    transcript::Transcript,
};

/// Where the server can be reached from outside.
const SERVER: &str = "http://127.0.0.1:50052";

/// The longest wait for anything that should happen at once; a busy machine starts containers in seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest that the image may be.
const IMAGE_BYTES_MAX: u64 = 45_000_000;

/// The three who play the report's session.
const PLAYERS: [&str; 3] = ["alex", "aske", "bob"];

#[tokio::test]
#[ignore = "needs Docker: .ci/run runs it"]
async fn deploy_up_brings_up_a_system_that_keeps_its_promises() {
    let system = System::up().await;

    rule("everything is healthy, and the three have come to a good end");
    all_is_well(&system).await;

    rule("the image is small, and its containers have no rights");
    image_is_small_and_containers_have_no_rights(&system).await;

    rule(
        "every participant read the same events at the same logical times, as Lamport's rule has it",
    );
    let history = history().await;
    transcripts_agree(&system, &history).await;

    rule(
        "each event is one trace with the logical time of each step; the audit holds every rule, and the diagram has every event",
    );
    traces::hold(&system, &history).await;

    rule("the README's calls by grpcurl give what the README shows");
    readme::calls_are_as_shown().await;

    rule("the guide answers people");
    guide_answers().await;

    rule(
        "a user attaches to the terminal, talks, detaches, comes back, leaves, and is asked for a name again",
    );
    user_at_the_terminal().await;

    rule(
        "when the server is killed and started again, everybody goes on by themselves, in one unbroken history",
    );
    restarted::everybody_goes_on(&system).await;

    rule("a second deploy/up is quick, and plays the session again");
    second_time_is_quick(&system).await;

    rule("the history lasts as long as its volume, and who is outside is told of a new one");
    restarted::history_lasts_as_long_as_its_volume(&system).await;

    rule("a stopped server tells everybody and exits with 0");
    server_stops_cleanly(&system).await;

    rule("deploy/down leaves nothing behind");
    system.down().await;
}

fn rule(name: &str) {
    println!("--- {name}");
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

async fn all_is_well(system: &System) {
    let listed = system.compose("ps").await;
    assert!(listed.contains("healthy"), "{listed}");
    for resident in ["server", "guide", "chat"] {
        assert_eq!(system.state(resident).await, "running 0", "{resident}");
    }
    for player in PLAYERS {
        assert_eq!(system.state(player).await, "exited 0", "{player}");
    }
    assert_eq!(health().await, Some(0));
}

/// The exit code of `chitchat health`, asked from outside.
async fn health() -> Option<i32> {
    let program = env!("CARGO_BIN_EXE_chitchat");
    let output = output(&format!("{program} health --server {SERVER}")).await;
    output.status.code()
}

async fn image_is_small_and_containers_have_no_rights(system: &System) {
    let size = shell("docker image inspect --format '{{.Size}}' chitchat:local").await;
    let bytes: u64 = size.trim().parse().unwrap();
    assert!(bytes <= IMAGE_BYTES_MAX, "{bytes} bytes");

    for service in ["server", "guide", "chat", "alex"] {
        let id = system.container(service).await;
        let told = shell(&format!(
            "docker inspect --format '{{{{.Config.User}}}} {{{{.HostConfig.ReadonlyRootfs}}}} \
             {{{{.HostConfig.CapDrop}}}} {{{{.HostConfig.SecurityOpt}}}}' {id}"
        ))
        .await;
        assert_eq!(
            told.trim(),
            "65532:65532 true [ALL] [no-new-privileges:true]",
            "{service}"
        );
    }
}

async fn transcripts_agree(system: &System, history: &[ServerMessage]) {
    let mut transcripts = Vec::new();
    for player in PLAYERS {
        let log = system.log(player).await;
        transcripts.push(Transcript::read(player, &log));
    }
    transcript::agree(&transcripts, history);
    transcript::follow_lamports_rule(Path::new("deploy/scripts"), &transcripts, history);
}

async fn client() -> ChatServiceClient<Channel> {
    within("a connection", ChatServiceClient::connect(SERVER))
        .await
        .expect("the server should be reachable")
}

/// All events of the lobby.
async fn history() -> Vec<ServerMessage> {
    let request = GetHistoryRequest {
        limit: 1_000,
        ..GetHistoryRequest::default()
    };
    let page = client().await.get_history(request).await.unwrap();
    page.into_inner().events
}

/// The names of those in the lobby.
async fn names() -> Vec<String> {
    let request = ListParticipantsRequest::default();
    let listed = client().await.list_participants(request).await.unwrap();
    let participants = listed.into_inner().participants;
    participants.into_iter().map(|one| one.name).collect()
}

/// Somebody in the lobby, from outside the containers.
struct Visitor {
    sending: mpsc::UnboundedSender<JoinMsgLeave>,
    receiving: Streaming<ServerMessage>,
}

impl Visitor {
    async fn join(name: &str) -> Self {
        let (sending, outgoing) = mpsc::unbounded_channel();
        let outgoing = UnboundedReceiverStream::new(outgoing);
        let join = JoinMsgLeave {
            client_name: name.into(),
            r#type: EventType::Join.into(),
            ..JoinMsgLeave::default()
        };
        sending.send(join).unwrap();
        let response = client().await.chat(outgoing).await.unwrap();
        let mut visitor = Self {
            sending,
            receiving: response.into_inner(),
        };
        visitor.hears(|own| own.sender_name == name).await;
        visitor
    }

    fn say(&self, text: &str) {
        let message = JoinMsgLeave {
            msg: text.into(),
            r#type: EventType::Message.into(),
            ..JoinMsgLeave::default()
        };
        self.sending.send(message).unwrap();
    }

    /// Reads up to a message that is as `wanted`.
    async fn hears(&mut self, wanted: impl Fn(&ServerMessage) -> bool) -> ServerMessage {
        let mut heard = Vec::new();
        let reading = async {
            loop {
                let message = self.receiving.message().await.unwrap();
                let message = message.expect("the stream should go on");
                if wanted(&message) {
                    return message;
                }
                heard.push(message);
            }
        };
        match timeout(PATIENCE, reading).await {
            Ok(message) => message,
            Err(_) => panic!("what was waited for is not in {heard:#?}"),
        }
    }
}

async fn guide_answers() {
    let mut visitor = Visitor::join("Visitor").await;
    visitor
        .hears(|message| message.bot && message.msg_stream.contains("Visitor"))
        .await;
    for question in ["ping", "what is L?"] {
        visitor.say(question);
        visitor
            .hears(|message| message.msg_stream == question)
            .await;
        let answer = visitor.hears(|message| message.bot).await;
        println!(
            "{question} -> {}: {}",
            answer.sender_name, answer.msg_stream
        );
    }
}

async fn user_at_the_terminal() {
    let mut visitor = Visitor::join("Neighbour").await;

    let mut user = Attached::attach();
    user.sees("Ctrl-P Ctrl-Q").await;
    user.sees("Enter your name: ").await;
    user.types("Ada\r").await;
    visitor
        .hears(|message| message.r#type() == EventType::Join && message.sender_name == "Ada")
        .await;
    user.sees("Participant Ada joined Chit Chat").await;
    user.types("hello from a terminal\r").await;
    visitor
        .hears(|message| message.msg_stream == "hello from a terminal")
        .await;
    visitor.say("good to see you, Ada");
    user.sees("Neighbour: good to see you, Ada").await;

    user.types("\u{10}\u{11}").await;
    user.ends().await;
    assert!(
        names().await.contains(&"Ada".into()),
        "detaching is not leaving"
    );

    let mut user = Attached::attach();
    user.sees("Ada L=").await;
    user.types("exit\r").await;
    visitor
        .hears(|message| message.r#type() == EventType::Leave && message.sender_name == "Ada")
        .await;
    user.ends().await;

    let mut next = Attached::attach_and_see("Enter your name: ").await;
    next.types("\u{10}\u{11}").await;
    next.ends().await;
}

async fn second_time_is_quick(system: &System) {
    let before = history().await.len();
    let took = system.up_again().await;
    println!("deploy/up took {took:.1?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    let after = history().await;
    let joined = |name| {
        let mut new = after[before..].iter();
        new.any(|event| event.sender_name == name && event.r#type() == EventType::Join)
    };
    assert!(
        joined("Alex") && joined("Aske") && joined("Bob"),
        "{after:#?}"
    );
}

async fn server_stops_cleanly(system: &System) {
    let mut visitor = Visitor::join("Last").await;
    let server = system.container("server").await;
    let stopping = tokio::spawn(async move {
        shell(&format!("docker stop {server}")).await;
    });

    visitor
        .hears(|message| {
            let notice = message.notice.as_ref();
            notice.is_some_and(|notice| notice.code() == NoticeCode::Draining)
        })
        .await;
    let ended = within("the end of the stream", visitor.receiving.message()).await;
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    within("the server to stop", stopping).await.unwrap();
    assert_eq!(system.state("server").await, "exited 0");
    assert_eq!(health().await, Some(1));

    system.compose("stop").await;
    for service in ["guide", "chat"] {
        assert_eq!(system.state(service).await, "exited 0", "{service}");
    }
}

//! Clients that are broken, or mean to do harm. What becomes of them is the server's affair; nobody else may notice.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;

use super::{
    super::{
        connection::connect,
        participant::Participant,
        stage::{SETTLE, Stage},
        verdict::{Book, Failure, Stuck},
    },
    all_hear_each,
};
use crate::wire::{
    Frame,
    v1::{EventType, JoinMsgLeave},
};

/// A text so long that no server should take it, and short enough for most to read.
///
/// Unit: bytes. Source: gRPC takes messages of 4 MiB.
const HUGE_BYTES: usize = 1024 * 1024;

/// What opens an HTTP/2 connection; what follows it here is no frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a broken client does.
#[derive(Debug, Clone, Copy)]
enum Attack {
    BadMessage,
    BadText,
    HugeText,
    Reset,
    Junk,
}

impl Attack {
    const ALL: [(&'static str, Self); 5] = [
        ("bad-message-spares-others", Self::BadMessage),
        ("bad-utf8-spares-others", Self::BadText),
        ("huge-message-spares-others", Self::HugeText),
        ("reset-spares-others", Self::Reset),
        ("junk-spares-others", Self::Junk),
    ];

    fn words(self) -> &'static str {
        match self {
            Self::BadMessage => "a participant sends bytes that are no message",
            Self::BadText => "a participant sends a text that is no UTF-8",
            Self::HugeText => "a participant sends a text of 1 MiB",
            Self::Reset => {
                "a participant resets its stream, and another its connection in the middle of a message"
            }
            Self::Junk => "somebody connects and sends what is no HTTP/2",
        }
    }

    async fn carry_out(self, stage: &Stage) -> Result<(), Stuck> {
        match self {
            Self::BadMessage => say(stage, Frame::of_encoded(&[0xff; 20]).bytes()).await,
            Self::BadText => say(stage, bad_text()).await,
            Self::HugeText => say(stage, text(vec![b'x'; HUGE_BYTES])).await,
            Self::Reset => reset(stage).await,
            Self::Junk => junk(stage).await.map_err(Stuck),
        }
    }
}

pub(super) async fn play(stage: &Stage, book: &mut Book) -> Result<(), Stuck> {
    for (rule, attack) in Attack::ALL {
        let mut ada = stage.enter("Ada").await?;
        let mut alex = stage.enter("Alex").await?;
        // Where they did not hear each other before, the attack is not to blame.
        let before = all_hear_each(stage, &mut [&mut ada, &mut alex]).await;
        before.map_err(|failure| {
            Stuck(format!("before anything was broken, {}", failure.happened))
        })?;
        attack.carry_out(stage).await?;
        let outcome = are_spared(stage, &mut ada, &mut alex).await;
        book.judge(
            rule,
            outcome.map_err(|failure| Failure {
                expected: format!("{}; the others notice nothing", attack.words()),
                ..failure
            }),
        );
        stage.bow_out([ada, alex]).await;
    }
    Ok(())
}

/// Those who are there can talk, and others can join.
async fn are_spared(
    stage: &Stage,
    ada: &mut Participant,
    alex: &mut Participant,
) -> Result<(), Failure> {
    ada.read_for(SETTLE).await;
    all_hear_each(stage, &mut [&mut *ada, &mut *alex]).await?;
    let newcomer = stage.enter("Bob").await;
    let newcomer = newcomer.map_err(|Stuck(why)| ada.failure("", why))?;
    stage.bow_out([newcomer]).await;
    Ok(())
}

/// Somebody joins, sends these bytes, and leaves once it has had its answer.
async fn say(stage: &Stage, bytes: Bytes) -> Result<(), Stuck> {
    let mut mallory = stage.enter("Mallory").await?;
    mallory.send_bytes(bytes);
    mallory.read_for(SETTLE).await;
    stage.bow_out([mallory]).await;
    Ok(())
}

/// A MESSAGE with these bytes for a text.
fn text(bytes: Vec<u8>) -> Bytes {
    const MSG: u32 = 5;
    let mut message = JoinMsgLeave {
        r#type: EventType::Message.into(),
        ..JoinMsgLeave::default()
    }
    .encode_to_vec();
    prost::encoding::bytes::encode(MSG, &bytes, &mut message);
    Frame::of_encoded(&message).bytes()
}

fn bad_text() -> Bytes {
    text(vec![b'a', 0xff, 0xfe, b'b'])
}

async fn reset(stage: &Stage) -> Result<(), Stuck> {
    let mut one = stage.enter("Mallory").await?;
    one.reset();
    let mut other = stage.enter("Mallory").await?;
    // Of a hundred bytes ten come.
    let mut half = BytesMut::from([0, 0, 0, 0, 100].as_slice());
    half.put_bytes(0x0a, 10);
    other.send_bytes(half);
    other.read_for(SETTLE).await;
    one.cut().await;
    other.cut().await;
    Ok(())
}

async fn junk(stage: &Stage) -> Result<(), String> {
    for bytes in [
        b"\x16\x03\x01 hello?\r\n\r\n".as_slice(),
        &[PREFACE, &[0xee; 64]].concat(),
    ] {
        let mut tcp = connect(&stage.server).await?;
        tcp.set_zero_linger().map_err(|error| error.to_string())?;
        // The server may have closed it.
        let _ = tcp.write_all(bytes).await;
        tokio::time::sleep(SETTLE).await;
    }
    Ok(())
}

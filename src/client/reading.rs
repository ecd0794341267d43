//! Reading without taking part: a room's history, who is there, whether the server is well.

use std::time::Duration;

use tonic::{Request, Status, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::connection::{AddressError, endpoint, service};
use crate::{
    room::PAGE_EVENTS_MAX,
    wire::v1::{
        GetHistoryRequest, GetHistoryResponse, ListParticipantsRequest, Participant, Resume,
        ServerMessage, WatchRequest, chat_service_client::ChatServiceClient,
    },
};

/// How long one answer may take.
///
/// When it is over the call fails with `DEADLINE_EXCEEDED`. Source: a full page of history takes milliseconds; this is
/// a server that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent while it is read from before the server is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Events in one answer: the most that a server gives.
pub const PAGE: u32 = PAGE_EVENTS_MAX as u32;

/// A sequence after every event's.
pub const END: u64 = i64::MAX.unsigned_abs();

/// A reader of one room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    client: ChatServiceClient<Channel>,
    room: String,
}

impl Reader {
    /// A reader of `room`; connects with its first call, and again when it must.
    ///
    /// # Errors
    /// `server` is not an address.
    pub fn new(server: &str, room: &str) -> Result<Self, AddressError> {
        Ok(Self {
            client: service(server, KEEPALIVE)?,
            room: room.to_owned(),
        })
    }

    /// Who is in the room, by id.
    ///
    /// # Errors
    /// As the service answers, or `DEADLINE_EXCEEDED`.
    pub async fn participants(&mut self) -> Result<Vec<Participant>, Status> {
        let request = ListParticipantsRequest {
            room: self.room.clone(),
        };
        let answer = self.client.list_participants(within_limit(request)).await?;
        Ok(answer.into_inner().participants)
    }

    /// The last `count` events before `sequence` ([`END`]: the newest), in order; at most [`PAGE`].
    ///
    /// # Errors
    /// As the service answers, or `DEADLINE_EXCEEDED`.
    pub async fn before(
        &mut self,
        sequence: u64,
        count: u32,
    ) -> Result<GetHistoryResponse, Status> {
        self.history(GetHistoryRequest {
            before_sequence: sequence,
            limit: count,
            ..GetHistoryRequest::default()
        })
        .await
    }

    /// The events after `sequence`, at most `count` and as many as fit into one answer.
    ///
    /// # Errors
    /// As the service answers, or `DEADLINE_EXCEEDED`.
    pub async fn after(&mut self, sequence: u64, count: u64) -> Result<GetHistoryResponse, Status> {
        self.history(GetHistoryRequest {
            after_sequence: sequence,
            limit: u32::try_from(count).unwrap_or(PAGE).min(PAGE),
            ..GetHistoryRequest::default()
        })
        .await
    }

    /// What follows `after_sequence` in the history `epoch`, and then what happens, as it happens. The first message
    /// is the welcome.
    ///
    /// # Errors
    /// As the service answers, or `DEADLINE_EXCEEDED`.
    pub async fn watch(
        &mut self,
        epoch: String,
        after_sequence: u64,
    ) -> Result<Streaming<ServerMessage>, Status> {
        let request = WatchRequest {
            room: self.room.clone(),
            resume: Some(Resume {
                epoch,
                after_sequence,
            }),
            backlog: 0,
        };
        // Not a deadline of the call: that would end the stream.
        match tokio::time::timeout(ANSWER_TIMEOUT, self.client.watch(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("the server does not answer")),
        }
    }

    async fn history(&mut self, request: GetHistoryRequest) -> Result<GetHistoryResponse, Status> {
        let request = GetHistoryRequest {
            room: self.room.clone(),
            ..request
        };
        let answer = self.client.get_history(within_limit(request)).await?;
        Ok(answer.into_inner())
    }
}

/// Asks the server at `server` whether it serves, as `grpc.health.v1` has it for the server as a whole.
///
/// # Errors
/// [`AddressError`], or why there was no answer within `limit`.
pub async fn health(server: &str, limit: Duration) -> anyhow::Result<ServingStatus> {
    let probe = async {
        let channel = endpoint(server, KEEPALIVE)?.connect().await?;
        let request = HealthCheckRequest {
            service: String::new(),
        };
        let answer = HealthClient::new(channel).check(request).await?;
        anyhow::Ok(answer.into_inner().status())
    };
    match tokio::time::timeout(limit, probe).await {
        Ok(answer) => answer,
        Err(_) => anyhow::bail!("no answer within {} s", limit.as_secs()),
    }
}

fn within_limit<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}

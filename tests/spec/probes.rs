//! What operators and tools ask a server: is it well, and what does it speak?

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{server::start, within};

async fn health(channel: Channel, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    answer
        .map(|response| response.into_inner().status())
        .map_err(|status| status.code())
}

#[tokio::test]
async fn a_server_that_is_ready_is_serving_as_a_whole_and_as_a_chat() {
    let server = start().await;
    let channel = server.connect().await;

    for service in ["", "chitchat.v1.ChatService"] {
        let told = health(channel.clone(), service).await;
        assert_eq!(told, Ok(ServingStatus::Serving), "{service:?}");
    }
    let told = health(channel, "chitchat.v1.Other").await;
    assert_eq!(told, Err(Code::NotFound));
}

/// What reflection lists beside itself.
const SERVICES: [&str; 2] = ["chitchat.v1.ChatService", "grpc.health.v1.Health"];

/// Asks reflection, in either version: they differ in their package alone.
macro_rules! reflect {
    ($version:ident, $channel:expr, $request:expr) => {{
        use $version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some($request),
        };
        let mut answers = ServerReflectionClient::new($channel)
            .server_reflection_info(tokio_stream::once(request))
            .await
            .expect("reflection should answer")
            .into_inner();
        let answer = within("an answer of reflection", answers.next()).await;
        let answer = answer.expect("an answer").expect("no error");
        answer.message_response.expect("an answer says something") as MessageResponse
    }};
}

macro_rules! services {
    ($version:ident, $channel:expr) => {{
        use $version::{
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let listed = reflect!(
            $version,
            $channel,
            MessageRequest::ListServices(String::new())
        );
        let MessageResponse::ListServicesResponse(listed) = listed else {
            panic!("not a list: {listed:?}");
        };
        let mut names: Vec<_> = listed.service.into_iter().map(|one| one.name).collect();
        names.sort();
        names
    }};
}

/// The files that define `symbol`, with all that they import.
macro_rules! files {
    ($version:ident, $channel:expr, $symbol:expr) => {{
        use $version::{
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let symbol = MessageRequest::FileContainingSymbol($symbol.to_owned());
        let MessageResponse::FileDescriptorResponse(files) = reflect!($version, $channel, symbol)
        else {
            panic!("no files for {}", $symbol);
        };
        let decode = |file: Vec<u8>| FileDescriptorProto::decode(&*file).expect("a descriptor");
        files
            .file_descriptor_proto
            .into_iter()
            .map(decode)
            .collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn both_versions_of_reflection_list_the_chat_and_not_the_original_s_path() {
    let server = start().await;
    let channel = server.connect().await;

    let new = services!(v1, channel.clone());
    let old = services!(v1alpha, channel);

    for (names, own) in [
        (new, "grpc.reflection.v1.ServerReflection"),
        (old, "grpc.reflection.v1alpha.ServerReflection"),
    ] {
        let mut expected = SERVICES.to_vec();
        expected.push(own);
        assert_eq!(names, expected);
    }
}

#[tokio::test]
async fn reflection_knows_every_method_and_the_details_of_errors() {
    let server = start().await;
    let channel = server.connect().await;

    let chat = files!(v1, channel.clone(), "chitchat.v1.ChatService");
    let methods: Vec<_> = chat
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .map(|method| method.name().to_owned())
        .collect();
    let expected = [
        "Chat",
        "Watch",
        "SendMessage",
        "GetHistory",
        "ListParticipants",
        "ListRooms",
    ];
    assert_eq!(methods, expected);
    let details = files!(v1alpha, channel, "google.rpc.ErrorInfo");
    assert!(!details.is_empty());
}

//! What operators and tools ask a server: is it well, and what does it speak?

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto};
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

/// The file that reflection gives for `request`.
macro_rules! file {
    ($version:ident, $channel:expr, $kind:ident($what:expr)) => {{
        use $version::{
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = MessageRequest::$kind($what.to_owned());
        let MessageResponse::FileDescriptorResponse(files) = reflect!($version, $channel, request)
        else {
            panic!("no file for {}", $what);
        };
        let [file] = &files.file_descriptor_proto[..] else {
            panic!("one file for {}", $what);
        };
        FileDescriptorProto::decode(&**file).expect("a descriptor")
    }};
}

/// Every file that a client needs to know `symbol` whole.
macro_rules! files {
    ($version:ident, $channel:expr, $symbol:expr) => {{
        let first = file!($version, $channel, FileContainingSymbol($symbol));
        let mut files = vec![first];
        let mut at = 0;
        while at < files.len() {
            for import in files[at].dependency.clone() {
                if !files.iter().any(|file| file.name() == import) {
                    files.push(file!($version, $channel, FileByFilename(import.as_str())));
                }
            }
            at += 1;
        }
        files
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
async fn reflection_knows_every_method_of_the_chat() {
    let server = start().await;

    let chat = file!(
        v1,
        server.connect().await,
        FileContainingSymbol("chitchat.v1.ChatService")
    );

    let methods: Vec<_> = chat
        .service
        .iter()
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
}

#[tokio::test]
async fn whatever_a_client_may_meet_can_be_resolved_to_the_last_import() {
    let server = start().await;
    let channel = server.connect().await;

    for symbol in [
        "chitchat.v1.ChatService",
        "grpc.health.v1.Health",
        // The details of a status.
        "google.rpc.Status",
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
    ] {
        let new = files!(v1, channel.clone(), symbol);
        let old = files!(v1alpha, channel.clone(), symbol);
        assert_eq!(new, old, "{symbol}");
        let defined = defined(&new);
        for used in used(&new) {
            assert!(defined.contains(&used), "{symbol} needs {used}");
        }
    }
}

/// The full names of the messages and enums in `files`.
fn defined(files: &[FileDescriptorProto]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files {
        let package = format!(".{}", file.package());
        let enums = file.enum_type.iter();
        names.extend(enums.map(|one| format!("{package}.{}", one.name())));
        for message in &file.message_type {
            define(&package, message, &mut names);
        }
    }
    names
}

fn define(scope: &str, message: &DescriptorProto, names: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    let enums = message.enum_type.iter();
    names.extend(enums.map(|one| format!("{name}.{}", one.name())));
    for nested in &message.nested_type {
        define(&name, nested, names);
    }
    names.insert(name);
}

/// The full names of the types of all fields of top-level messages and of all methods in `files`.
fn used(files: &[FileDescriptorProto]) -> BTreeSet<String> {
    let messages = files.iter().flat_map(|file| &file.message_type);
    let fields = messages.flat_map(|message| &message.field);
    let services = files.iter().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| &service.method);
    fields
        .map(|field| field.type_name())
        .chain(methods.flat_map(|method| [method.input_type(), method.output_type()]))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

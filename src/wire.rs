//! The protocol as Rust types: code generated from `proto/chitchat/v1/chat.proto`, and the few conversions around it.
//!
//! The proto file is the dictionary; its comments are the documentation of the types in [`v1`].

/// Generated from `proto/chitchat/v1/chat.proto`.
#[allow(clippy::all, clippy::unwrap_used, unreachable_pub, missing_docs)]
pub mod v1 {
    tonic::include_proto!("chitchat.v1");
}

/// The descriptor set of `proto/`, as server reflection serves it.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("chitchat_descriptor");

/// The path of the original's bidirectional stream, which the server answers with the same handler as its own `Chat`.
pub const ORIGINAL_CHAT_PATH: &str = "/itu.chitchat.ChatService/Chat";

/// The room of a message that names none.
pub const DEFAULT_ROOM: &str = "lobby";

//! Chit Chat

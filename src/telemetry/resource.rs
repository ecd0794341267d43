//! Who says it: the attributes that all spans of a process share.

use std::fs;

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector};
use sha2::{Digest as _, Sha256};

use super::{Environment, attribute};

/// The resource of a process; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` win over what we know ourselves.
pub(super) fn resource(service: &str, environment: &Environment) -> Resource {
    let ours = [
        (attribute::SERVICE_NAME, Some(service.to_lowercase())),
        (attribute::SERVICE_NAMESPACE, Some("chitchat".to_owned())),
        (
            attribute::SERVICE_VERSION,
            Some(env!("CARGO_PKG_VERSION").to_owned()),
        ),
        (attribute::SERVICE_INSTANCE_ID, Some(uuid())),
        (attribute::HOST_ID, host_id()),
    ];
    let ours = ours
        .into_iter()
        .filter_map(|(key, value)| Some(KeyValue::new(key, value?)));
    let theirs = environment
        .resource_attributes()
        .map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
    let name = environment
        .get("OTEL_SERVICE_NAME")
        .map(|name| KeyValue::new(attribute::SERVICE_NAME, name.to_owned()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(ours)
        .with_attributes(theirs)
        .with_attributes(name)
        .build()
}

/// A random (version 4) UUID.
fn uuid() -> String {
    let bits = rand::random::<u128>();
    let hex = format!(
        "{:032x}",
        bits & !(0xf << 76 | 0b11 << 62) | 0x4 << 76 | 0b10 << 62
    );
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// The machine's identity, hashed as its manual page asks; else its name; else nothing.
///
/// A container has neither or one of its own: there `OTEL_RESOURCE_ATTRIBUTES=host.id=...` says which machine it is on.
fn host_id() -> Option<String> {
    let read = |path| {
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    match read("/etc/machine-id") {
        Some(id) => {
            let hash = Sha256::new_with_prefix("chitchat")
                .chain_update(id)
                .finalize();
            Some(
                hash.iter()
                    .take(16)
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            )
        }
        None => read("/proc/sys/kernel/hostname"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_a_random_uuid() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4', "{one}");
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }
}

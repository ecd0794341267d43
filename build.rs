//! Generates the Rust code and the descriptor set of `proto/`, without needing `protoc` on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["chitchat/v1/chat.proto"], ["proto"])?;

    // What server reflection serves, comments included.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("chitchat_descriptor.bin"),
        descriptors.encode_to_vec(),
    )?;

    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

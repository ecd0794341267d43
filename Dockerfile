# One image for the server and all clients: the program alone, without a shell, run by a user without rights.
# Nothing here asks for BuildKit. `deploy/up` puts base images of its own in place of these two where no registry is near.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# To find it by when it has no name any more (deploy/down).
LABEL org.opencontainers.image.title=chitchat
WORKDIR /build

# The dependencies first, under an empty program: this layer is made anew only when they change.
# Tests and benches are no part of the image, and cargo would miss their files. `cargo clean` then forgets the empty
# program, whatever the times of the files that come to replace it.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[\(test\|bench\)\]\]/,/^$/d' Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' | tee build.rs > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked \
    && cargo clean --release --package chitchat \
    && rm -r build.rs src

COPY build.rs ./
COPY proto proto
COPY src src
COPY deploy/scripts deploy/scripts
RUN cargo build --release --locked --bin chitchat

# What the run stage takes over. Volumes take their owner from the directories they are first mounted on:
# data for the history, traces for spans in files.
RUN mkdir -p /image/data /image/traces \
    && cp target/release/chitchat /image/chitchat \
    && cp -R deploy/scripts /image/scripts \
    && chmod -R a+rX /image

FROM ${RUN_IMAGE}
LABEL org.opencontainers.image.title=chitchat
COPY --from=build /image/chitchat /chitchat
COPY --from=build /image/scripts /scripts
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build --chown=65532:65532 /image/traces /traces
ENV CHITCHAT_SERVER__DATA=/data
# Also for `docker run` without a word about it: a container's own layers may lie on FUSE, where the history cannot live.
VOLUME /data
USER 65532:65532
EXPOSE 50052
ENTRYPOINT ["/chitchat"]
CMD ["serve"]

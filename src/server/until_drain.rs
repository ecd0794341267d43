//! Services of others whose streams must not outlive the server.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

use super::drain::{self, Drain};

/// A service whose requests end, as if the client had half-closed, once the server drains.
///
/// Reflection answers for as long as its client asks; a client that keeps the stream open would keep its connection
/// open too, and a server that drains waiting.
#[derive(Debug, Clone)]
pub(super) struct UntilDrain<S> {
    service: S,
    draining: Drain,
}

impl<S> UntilDrain<S> {
    pub(super) fn new(service: S, draining: Drain) -> Self {
        Self { service, draining }
    }
}

impl<S: NamedService> NamedService for UntilDrain<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for UntilDrain<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let draining = self.draining.waiting();
        let until_drain = |body| Body::new(RequestBody { body, draining });
        self.service.call(request.map(until_drain))
    }
}

struct RequestBody {
    body: Body,
    draining: drain::Waiting,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.draining.poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

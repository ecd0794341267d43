//! The way of the spans to one destination: a bounded queue, a thread that empties it, and a word in the log whenever
//! the destination's state changes. Chat never waits for any of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use tracing::{info, warn};

use super::Environment;

/// Spans that may wait for one destination, those of the batch under way included.
///
/// Unit: spans; about 400 bytes each without their texts, allocated up front, so 6.5 MB. When full: further spans are
/// lost and counted.
/// Source: the SDK's own default, 2,048, loses 15 % at 20,000 spans a second, this one nothing (measured through
/// OTLP/gRPC into the same process, two cores). `OTEL_BSP_MAX_QUEUE_SIZE` changes it.
const QUEUE_SPANS: usize = 16_384;

/// Spans of one export.
///
/// OTLP receivers take 4 MiB at a time by default: that is 2 KiB a span, three times what ours have with their text.
/// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` changes it.
const BATCH_SPANS: usize = 2_048;
const _: () = assert!(BATCH_SPANS <= QUEUE_SPANS);

/// How long a span waits for others to share its export. `OTEL_BSP_SCHEDULE_DELAY` changes it.
const DELAY: Duration = Duration::from_secs(1);

/// The name that marks a span to be thrown away; spans of ours all have one.
pub(super) const DISCARDED: &str = "";

/// What became of the spans meant for one destination.
#[derive(Debug)]
pub(super) struct Delivery {
    /// As log lines name it: `127.0.0.1:4317`, a file's path.
    destination: String,
    capacity: usize,
    /// In the queue or in the batch under way.
    waiting: AtomicUsize,
    /// Not delivered, and not yet told.
    lost: AtomicU64,
    /// The last export failed.
    down: AtomicBool,
    /// The queue was full once; told once.
    overflowed: AtomicBool,
    /// The final word is spoken.
    closed: AtomicBool,
}

/// How spans wait for their export.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    capacity: usize,
    batch: usize,
    delay: Duration,
}

impl Waiting {
    /// Ours, or what the `OTEL_BSP_*` variables say.
    pub(super) fn new(environment: &Environment) -> Self {
        let capacity = environment.number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS);
        let batch = environment.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS);
        Self {
            capacity,
            batch: batch.min(capacity),
            delay: environment.milliseconds("OTEL_BSP_SCHEDULE_DELAY", DELAY),
        }
    }
}

impl Delivery {
    /// Puts a queue and its thread before `exporter`. The delivery is for [`Delivery::close`].
    pub(super) fn start<E>(
        destination: String,
        exporter: E,
        waiting: Waiting,
    ) -> (impl SpanProcessor + 'static, Arc<Self>)
    where
        E: SpanExporter + 'static,
    {
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(waiting.capacity)
            .with_max_export_batch_size(waiting.batch)
            .with_scheduled_delay(waiting.delay)
            .build();
        let delivery = Arc::new(Self {
            destination,
            capacity: waiting.capacity,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            down: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let watched = Watched {
            exporter,
            delivery: Arc::clone(&delivery),
        };
        let queue = BatchSpanProcessor::builder(watched)
            .with_batch_config(config)
            .build();
        let bounded = Bounded {
            queue,
            delivery: Arc::clone(&delivery),
        };
        (bounded, delivery)
    }

    /// The final word, once nothing will be exported any more: what still waits is lost too.
    pub(super) fn close(&self) {
        let waiting = u64::try_from(self.waiting.load(Relaxed)).unwrap_or(u64::MAX);
        let lost = self.lost.swap(0, Relaxed).saturating_add(waiting);
        self.closed.store(true, Relaxed);
        if lost > 0 {
            warn!("traces: {lost} spans did not reach {}", self.destination);
        }
    }

    /// Whether there is room for one more. Counted here, because the SDK's queue tells only at the end what it lost.
    fn admit(&self) -> bool {
        if self.waiting.fetch_add(1, Relaxed) < self.capacity {
            return true;
        }
        self.waiting.fetch_sub(1, Relaxed);
        self.lost.fetch_add(1, Relaxed);
        if !self.down.load(Relaxed) && !self.overflowed.swap(true, Relaxed) {
            warn!(
                "traces: more spans than {} takes; those beyond {} are lost, the count follows at the end",
                self.destination, self.capacity
            );
        }
        false
    }

    fn delivered(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Relaxed);
        if self.down.swap(false, Relaxed) && !self.closed.load(Relaxed) {
            let lost = self.lost.swap(0, Relaxed);
            info!(
                "traces: {} takes spans again; {lost} were lost meanwhile",
                self.destination
            );
        }
    }

    fn failed(&self, spans: usize, reason: &dyn fmt::Display) {
        self.lost
            .fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Relaxed);
        self.waiting.fetch_sub(spans, Relaxed);
        if !self.down.swap(true, Relaxed) && !self.closed.load(Relaxed) {
            warn!(
                "traces: {} takes no spans ({reason}); chat goes on, spans are lost until it does",
                self.destination
            );
        }
    }
}

/// The SDK's queue, kept from overflowing.
#[derive(Debug)]
struct Bounded {
    queue: BatchSpanProcessor,
    delivery: Arc<Delivery>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.name != DISCARDED && self.delivery.admit() {
            self.queue.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// An exporter whose results are noted.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    delivery: Arc<Delivery>,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => self.delivery.delivered(spans),
            Err(error) => self.delivery.failed(spans, error),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

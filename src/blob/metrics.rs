//! Counts what is asked of object storage and what fails, by operation. Every request costs money in the cloud, so these
//! counters are also how the bench knows the PUTs per million messages. Attempts repeated inside a request count once.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Error;

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A whole object written in one request.
    Put,
    /// The beginning and the end of an object written in parts: two requests beside its parts.
    Upload,
    /// One part of a larger object.
    UploadPart,
    /// A range or stream read.
    Get,
    /// A batch of keys deleted.
    Delete,
    /// A listing, sweep or health check.
    List,
}

impl Op {
    const ALL: [Self; 6] = [
        Self::Put,
        Self::Upload,
        Self::UploadPart,
        Self::Get,
        Self::Delete,
        Self::List,
    ];

    fn label(self) -> OpLabel {
        let op = match self {
            Self::Put => "put",
            Self::Upload => "upload",
            Self::UploadPart => "upload_part",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::List => "list",
        };
        OpLabel { op }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OpLabel {
    op: &'static str,
}

/// The counters of one [`super::Blob`]; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<OpLabel, Counter>,
    failures: Family<OpLabel, Counter>,
}

impl Default for Metrics {
    /// Every operation is there from the start, at zero: a rate over a missing series is no rate.
    fn default() -> Self {
        let (requests, failures) = (Family::default(), Family::default());
        for op in Op::ALL {
            drop(requests.get_or_create(&op.label()));
            drop(failures.get_or_create(&op.label()));
        }
        Self { requests, failures }
    }
}

impl Metrics {
    /// Adds `object_requests_total{op}` and `object_failures_total{op}` to a registry that prefixes `cursus`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "object_requests",
            "Requests to object storage, repeated attempts counted once",
            self.requests.clone(),
        );
        registry.register(
            "object_failures",
            "Requests to object storage that failed after their last attempt",
            self.failures.clone(),
        );
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self, op: Op) -> u64 {
        self.requests.get_or_create(&op.label()).get()
    }

    /// Failures so far.
    #[must_use]
    pub fn failures(&self, op: Op) -> u64 {
        self.failures.get_or_create(&op.label()).get()
    }

    /// Runs one request and counts it. On the heap, because the SDK's futures are tens of KiB.
    pub(super) fn count<T>(
        &self,
        op: Op,
        request: impl Future<Output = Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let request = Box::pin(request);
        async move {
            self.requests.get_or_create(&op.label()).inc();
            let answer = request.await;
            if answer.is_err() {
                self.failed(op);
            }
            answer
        }
    }

    /// Counts the failure of a request that was counted before.
    pub(super) fn failed(&self, op: Op) {
        self.failures.get_or_create(&op.label()).inc();
    }
}

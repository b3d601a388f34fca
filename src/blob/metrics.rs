//! Counts the requests to object storage and their failures, by operation. Every request costs money in the cloud; the
//! bench reads the PUTs per million messages from these counters. Retries within a request count once.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Error;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write of a whole object in one request.
    Put,
    /// Begin or end of an object written in parts: two requests per object, in addition to its parts.
    Upload,
    /// Write of one part of a larger object.
    UploadPart,
    /// Read of a range or stream.
    Get,
    /// Delete of a batch of keys.
    Delete,
    /// Listing, sweep or health check.
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

/// Counters of one [`super::Blob`]; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<OpLabel, Counter>,
    failures: Family<OpLabel, Counter>,
}

impl Default for Metrics {
    /// Every operation has a series from the start, at zero: the rate of a missing series is undefined.
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

    /// Runs one request and counts it. The future is boxed, because the SDK's futures are tens of KiB.
    pub(super) fn count<T>(
        &self,
        op: Op,
        request: impl Future<Output = Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let request = Box::pin(request);
        async move {
            self.requests.get_or_create(&op.label()).inc();
            let result = request.await;
            if result.is_err() {
                self.failed(op);
            }
            result
        }
    }

    /// Counts the failure of a request that `count` has already counted.
    pub(super) fn failed(&self, op: Op) {
        self.failures.get_or_create(&op.label()).inc();
    }
}

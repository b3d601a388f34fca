//! Settings of a bucket, and the client made from them. Called once at start with what `config` resolved. Never prints
//! the keys.

use std::fmt;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, StalledStreamProtectionConfig,
};

/// Region for storage that has none; a signature always needs one.
const REGION_DEFAULT: &str = "us-east-1";
/// Attempts of a request that can be repeated.
pub(super) const ATTEMPTS_MAX: u32 = 3;
/// Maximum pause before the second attempt; doubles with each attempt, with jitter.
pub(super) const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Location and credentials of a bucket.
#[derive(Clone)]
pub struct S3Settings {
    /// URL of the storage; `None` is AWS.
    pub endpoint: Option<String>,
    /// The bucket; it must exist.
    pub bucket: String,
    /// Prefix of every key, so that several fleets can share a bucket; empty for none.
    pub prefix: String,
    /// Region; `None` takes that of the environment or the profile, or `us-east-1`.
    pub region: Option<String>,
    /// Access key; `None` takes the credentials of the cloud (environment, profile, role, metadata service).
    pub access_key: Option<String>,
    /// Secret of the access key.
    pub secret: Option<String>,
    /// `host/bucket/key` instead of `bucket.host/key`; most storage other than AWS requires it.
    pub force_path_style: bool,
    /// Send a CRC of every body; some storage other than AWS refuses its headers.
    pub checksums: bool,
    /// Deadlines.
    pub timeouts: Timeouts,
}

/// Deadlines of one request (I9).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Time to connect.
    pub connect: Duration,
    /// Time of one attempt, in addition to the time that the bytes of its body need.
    pub attempt: Duration,
    /// Time of all attempts together, in addition to the time for bytes; also the longest wait for a slot.
    pub overall: Duration,
    /// Longest pause of a client that uploads or downloads.
    pub pause: Duration,
}

/// Minimum rate at which storage is expected to transfer a body, in bytes per second.
const RATE: u64 = 1024 * 1024;

impl Timeouts {
    /// Deadlines of a request with a body of `bytes`: a large body on a slow connection is not a failure. The body of
    /// [`super::super::Blob::stream`] has no such deadline; each of its pieces has one.
    pub(super) fn with_bytes(self, bytes: u64) -> Self {
        let extra = Duration::from_millis(bytes.saturating_mul(1_000) / RATE);
        Self {
            attempt: self.attempt + extra,
            overall: self.overall + extra * ATTEMPTS_MAX,
            ..self
        }
    }

    /// The same deadlines, as an override for one request.
    pub(super) fn overriding(self, bytes: usize) -> Builder {
        let Self {
            attempt, overall, ..
        } = self.with_bytes(bytes as u64);
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(attempt)
            .operation_timeout(overall);
        Builder::new().timeout_config(timeouts.build())
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            attempt: Duration::from_secs(15),
            overall: Duration::from_secs(40),
            pause: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("region", &self.region)
            .field("has_keys", &self.access_key.is_some())
            .field("force_path_style", &self.force_path_style)
            .field("checksums", &self.checksums)
            .finish_non_exhaustive()
    }
}

impl S3Settings {
    pub(super) async fn client(&self) -> Client {
        let mut builder = match (&self.access_key, &self.secret) {
            (Some(access_key), Some(secret)) => self.with_keys(access_key, secret).await,
            _ => self.with_chain().await,
        };
        builder.set_endpoint_url(self.endpoint.clone());
        let config = builder
            .behavior_version(BehaviorVersion::v2026_01_12())
            .force_path_style(self.force_path_style)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS_MAX)
                    .with_initial_backoff(BACKOFF)
                    .with_max_backoff(BACKOFF_MAX),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(self.timeouts.connect)
                    .operation_attempt_timeout(self.timeouts.attempt)
                    .operation_timeout(self.timeouts.overall)
                    .build(),
            )
            .request_checksum_calculation(if self.checksums {
                // A CRC of every body, which storage verifies before it responds.
                RequestChecksumCalculation::WhenSupported
            } else {
                RequestChecksumCalculation::WhenRequired
            })
            // All reads are ranges, and S3 has no checksum of a range.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // The deadlines above and in `exact` replace it; it would treat a slow client as a failure.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Client::from_conf(config)
    }

    async fn with_keys(&self, access_key: &str, secret: &str) -> Builder {
        // Leaves out the metadata service, the last provider of the default chain: outside of AWS it costs seconds.
        let region = RegionProviderChain::first_try(self.region.clone().map(Region::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(REGION_DEFAULT);
        Builder::new()
            .region(region.region().await)
            .credentials_provider(Credentials::new(access_key, secret, None, None, "settings"))
    }

    async fn with_chain(&self) -> Builder {
        let region = RegionProviderChain::first_try(self.region.clone().map(Region::new))
            .or_default_provider()
            .or_else(REGION_DEFAULT);
        let shared = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(region)
            .load()
            .await;
        Builder::from(&shared)
    }
}

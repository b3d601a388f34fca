//! What is needed to reach a bucket, and the client made of it. Called once at start; `config` fills the settings in.
//! Never prints the keys.

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

/// The region of storage that has none, and of the signature in any case.
const REGION_DEFAULT: &str = "us-east-1";
/// Attempts of a request that can be repeated.
pub(super) const ATTEMPTS_MAX: u32 = 3;
/// Pause before the second attempt at most; doubles, with jitter.
pub(super) const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where the bucket is and how to get in.
#[derive(Clone)]
pub struct S3Settings {
    /// URL of a storage other than AWS.
    pub endpoint: Option<String>,
    /// The bucket; it must exist.
    pub bucket: String,
    /// Put before every key, so that several fleets can share a bucket; empty for none.
    pub prefix: String,
    /// Region; without one that of the environment or the profile, or `us-east-1`.
    pub region: Option<String>,
    /// Access key; without one the cloud's own chain (environment, profile, role, metadata service).
    pub access_key: Option<String>,
    /// Secret of the access key.
    pub secret: Option<String>,
    /// `host/bucket/key` instead of `bucket.host/key`: what most storage other than AWS wants.
    pub force_path_style: bool,
    /// Deadlines.
    pub timeouts: Timeouts,
}

/// The deadlines of one request (I9).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For one attempt, beside the time that the bytes of its body need.
    pub attempt: Duration,
    /// For all attempts together, beside the time for bytes, and for waiting until a slot is free.
    pub overall: Duration,
    /// For a client that uploads or downloads to go on.
    pub pause: Duration,
}

/// The least rate at which storage is expected to take or give a body, in bytes a second.
const RATE: u64 = 1024 * 1024;

impl Timeouts {
    /// The deadlines of a request with so many bytes of body: a large one on a slow line is no failure. The body of
    /// [`super::super::Blob::stream`] has no such deadline, but one for each piece.
    pub(super) fn with_bytes(self, bytes: u64) -> Self {
        let extra = Duration::from_millis(bytes.saturating_mul(1_000) / RATE);
        Self {
            attempt: self.attempt + extra,
            overall: self.overall + extra * ATTEMPTS_MAX,
            ..self
        }
    }

    /// The same, as an override of one request.
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
            // A CRC of every body, which storage verifies before it answers.
            .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
            // Everything is read by range, and S3 has no checksum of a range.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // The deadlines above and those of `exact` do it, and a client that downloads slowly is no fault.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Client::from_conf(config)
    }

    async fn with_keys(&self, access_key: &str, secret: &str) -> Builder {
        // Without the last link of the default chain, the metadata service of the cloud: elsewhere it costs seconds.
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

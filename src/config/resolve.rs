//! Decides what the settings mean together: the mode, the kind of object storage, TLS or not. Called once by `parse`. A
//! contradiction is an error that names the settings to change; it never contains a secret.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::args::{Places, Serving, Settings, Toggle};
use super::{Config, Mode, Secret, TlsFiles};
use crate::blob::{S3Settings, Storage, Timeouts};

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// clap could not read them; its message names the flag, the value and what is allowed.
    #[error(transparent)]
    Args(#[from] clap::Error),
    /// Each setting can be read, but not together with the others.
    #[error("{0}")]
    Conflict(String),
}

fn conflict(text: impl Into<String>) -> Error {
    Error::Conflict(text.into())
}

pub(super) fn resolve(settings: Settings) -> Result<Config, Error> {
    let tls = tls_of(&settings.serving)?;
    let mut warnings = Vec::new();
    let mode = mode_of(settings.places, &mut warnings)?;
    let listens = [
        ("--listen", Some(settings.serving.listen)),
        ("--service-listen", settings.serving.service_listen),
    ];
    let open = |address: &SocketAddr| !address.ip().is_loopback();
    let mut open = listens
        .into_iter()
        .filter_map(|(name, at)| Some((name, at.filter(open)?)));
    if matches!(mode, Mode::Embedded { .. })
        && let Some((name, listen)) = open.next()
    {
        return Err(conflict(format!(
            "{name} {listen}: the embedded mode needs no key, so it listens on loopback only (127.0.0.1 or [::1]). \
             Set DATABASE_URL and S3_BUCKET to serve others."
        )));
    }
    Ok(Config {
        serving: settings.serving,
        tls,
        outbound: settings.outbound,
        mode,
        tuning: settings.tuning,
        logging: settings.logging,
        warnings,
    })
}

fn tls_of(serving: &Serving) -> Result<Option<TlsFiles>, Error> {
    match (set_path(&serving.tls_cert), set_path(&serving.tls_key)) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (Some(_), None) => Err(conflict(
            "--tls-cert needs --tls-key (CURSUS_TLS_KEY) as well",
        )),
        (None, Some(_)) => Err(conflict(
            "--tls-key needs --tls-cert (CURSUS_TLS_CERT) as well",
        )),
    }
}

fn mode_of(places: Places, warnings: &mut Vec<String>) -> Result<Mode, Error> {
    for (name, value) in [
        ("S3_ENDPOINT", &places.s3_endpoint),
        ("OBJECT_STORE", &places.object_store),
    ] {
        // These values are not treated as secrets: they are shown by `cursus config` and logged with the endpoint.
        if value.as_ref().is_some_and(|value| value.contains('@')) {
            return Err(conflict(format!(
                "{name} has an `@`: give credentials in S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, not in the URL"
            )));
        }
    }
    let database_url = secret_of(
        "DATABASE_URL",
        &places.database_url,
        &places.database_url_file,
    )?;
    let Some(database_url) = database_url else {
        if set(&places.object_store)
            .or(set(&places.s3_bucket))
            .is_some()
        {
            warnings.push(format!(
                "S3_BUCKET or OBJECT_STORE has no effect without DATABASE_URL: objects are kept in {}",
                places.data_dir.display()
            ));
        }
        return Ok(Mode::Embedded {
            postgres_bin: set_path(&places.postgres_bin),
            data_dir: places.data_dir,
        });
    };
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| database_url.expose().starts_with(scheme))
    {
        return Err(conflict(
            "DATABASE_URL must look like postgres://user:password@host:5432/database",
        ));
    }
    Ok(Mode::Fleet {
        database_url,
        objects: objects_of(places)?,
    })
}

fn objects_of(places: Places) -> Result<Storage, Error> {
    let (bucket, prefix) = match (set(&places.object_store), set(&places.s3_bucket)) {
        (Some(_), Some(_)) => {
            return Err(conflict(
                "OBJECT_STORE and S3_BUCKET both name a bucket: set one of them",
            ));
        }
        (Some(url), None) => bucket_and_prefix(&url)?,
        (None, Some(bucket)) => (bucket, String::new()),
        (None, None) => {
            return Err(conflict(
                "DATABASE_URL is set, but no object storage: set S3_BUCKET (with S3_ENDPOINT, S3_REGION, \
                 S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY as your provider needs) or OBJECT_STORE=s3://bucket/prefix",
            ));
        }
    };
    let access_key = secret_of(
        "S3_ACCESS_KEY_ID",
        &places.s3_access_key_id,
        &places.s3_access_key_id_file,
    )?;
    let secret_key = secret_of(
        "S3_SECRET_ACCESS_KEY",
        &places.s3_secret_access_key,
        &places.s3_secret_access_key_file,
    )?;
    let credentials = match (access_key, secret_key) {
        (None, None) => None,
        (Some(id), Some(secret)) => Some((id, secret)),
        (Some(_), None) => {
            return Err(conflict(
                "S3_ACCESS_KEY_ID needs S3_SECRET_ACCESS_KEY as well",
            ));
        }
        (None, Some(_)) => {
            return Err(conflict(
                "S3_SECRET_ACCESS_KEY needs S3_ACCESS_KEY_ID as well",
            ));
        }
    };
    let endpoint = set(&places.s3_endpoint);
    let endpoint = endpoint.map(|text| endpoint_of(&text)).transpose()?;
    let checksums = places.s3_checksums.and_then(|Toggle(value)| value);
    let path_style = places.s3_force_path_style.and_then(|Toggle(value)| value);
    let (access_key, secret) = credentials.unzip();
    Ok(Storage::S3(S3Settings {
        bucket,
        prefix,
        force_path_style: path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        region: set(&places.s3_region),
        access_key: access_key.map(|key: Secret| key.expose().to_owned()),
        secret: secret.map(|key: Secret| key.expose().to_owned()),
        checksums: checksums.unwrap_or(true),
        timeouts: Timeouts::default(),
    }))
}

/// A valid endpoint. Its path ends with a slash: the SDK appends the bucket to it as it is.
fn endpoint_of(text: &str) -> Result<String, Error> {
    let wrong = |why: &str| {
        conflict(format!(
            "S3_ENDPOINT {text}: {why}; expected http://host:port or https://host/path"
        ))
    };
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or_else(|| wrong("it begins with neither http:// nor https://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err(conflict(
            "S3_ENDPOINT has a user or a password: set S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY",
        ));
    }
    if host.is_empty() || rest.contains(['?', '#', ' ']) {
        return Err(wrong("it has no host, or more than a host and a path"));
    }
    let bare = text.trim_end_matches('/');
    let has_path = rest.trim_end_matches('/').contains('/');
    Ok(if has_path {
        format!("{bare}/")
    } else {
        bare.to_owned()
    })
}

fn bucket_and_prefix(url: &str) -> Result<(String, String), Error> {
    let wrong = || {
        conflict(format!(
            "OBJECT_STORE {url}: expected s3://bucket or s3://bucket/prefix"
        ))
    };
    let rest = url.strip_prefix("s3://").ok_or_else(wrong)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong());
    }
    let prefix = prefix.trim_matches('/');
    let prefix = if prefix.is_empty() {
        String::new()
    } else {
        format!("{prefix}/")
    };
    Ok((bucket.to_owned(), prefix))
}

// An empty environment variable means unset: compose files and charts pass empty ones on.
fn set(value: &Option<String>) -> Option<String> {
    value.clone().filter(|value| !value.is_empty())
}

/// A secret, given as a value or as the file that holds it. A file that cannot be used is an error: a node must not start
/// in another mode because a secret was not mounted.
fn secret_of(
    name: &str,
    value: &Option<Secret>,
    file: &Option<PathBuf>,
) -> Result<Option<Secret>, Error> {
    let value = value.clone().filter(|value| !value.expose().is_empty());
    let Some(path) = set_path(file) else {
        return Ok(value);
    };
    if value.is_some() {
        return Err(conflict(format!(
            "{name} and {name}_FILE are both set: set one of them"
        )));
    }
    let wrong = |why: &str| conflict(format!("{name}_FILE {}: {why}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| wrong(&error.to_string()))?;
    // Editors and `echo` end a file with a line break.
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(wrong("the file is empty")),
        text => Ok(text.parse().ok()),
    }
}

fn set_path(value: &Option<PathBuf>) -> Option<PathBuf> {
    value.clone().filter(|value| !value.as_os_str().is_empty())
}

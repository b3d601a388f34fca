//! How settings combine. The tests pass arguments instead of environment variables, because tests share one environment
//! and may not change it.

use super::*;

fn serve(args: &[&str]) -> Result<Config, String> {
    let args = ["cursus", "serve"].iter().chain(args);
    let Task::Serve(config) = parse_from(args).map_err(|err| err.to_string())? else {
        return Err("not to be served".to_owned());
    };
    Ok(config)
}

const URL: &str = "--database-url=postgres://u:hunter2@db/cursus";

#[test]
fn without_settings_it_is_embedded_on_loopback() {
    let config = serve(&[]).unwrap();
    assert_eq!(config.serving.listen.to_string(), "127.0.0.1:8080");
    assert!(
        matches!(config.mode, Mode::Embedded { ref data_dir, .. } if data_dir.ends_with("cursus-data"))
    );
    assert_eq!(config.tuning.hot_limit, ByteSize::kib(256));
    assert!(config.tuning.turn_loops >= 1);
}

#[test]
fn a_database_without_object_storage_is_refused_with_what_to_set() {
    let message = serve(&[URL]).unwrap_err();
    assert!(
        message.contains("S3_BUCKET") && message.contains("OBJECT_STORE=s3://"),
        "{message}"
    );
    assert!(!message.contains("hunter2"));
}

#[test]
fn an_object_store_url_gives_bucket_and_prefix() {
    let config = serve(&[
        URL,
        "--object-store=s3://mail/a/b",
        "--s3-endpoint=http://127.0.0.1:1",
    ])
    .unwrap();
    let Mode::Fleet {
        objects: Storage::S3(objects),
        ..
    } = config.mode
    else {
        panic!("not a fleet with a bucket");
    };
    assert_eq!(
        (objects.bucket.as_str(), objects.prefix.as_str()),
        ("mail", "a/b/")
    );
    assert!(objects.force_path_style);
}

#[test]
fn networks_are_listed_and_checked() {
    let config = serve(&[
        "--outbound-allow=10.0.0.0/8,fd00::/8",
        "--trusted-proxies=192.0.2.1",
    ])
    .unwrap();
    assert_eq!(config.outbound.outbound_allow.len(), 2);
    assert!(config.serving.trusted_proxies[0].contains("192.0.2.1".parse().unwrap()));
    let on = |args: &[&str]| {
        let outbound = serve(args).unwrap().outbound;
        outbound.outbound_http.is_some_and(Toggle::is_on)
    };
    assert!(on(&["--outbound-http"]) && on(&["--outbound-http=true"]));
    assert!(!on(&[]) && !on(&["--outbound-http=false"]) && !on(&["--outbound-http="]));
    let message = serve(&["--outbound-allow=10.0.0.1/8"]).unwrap_err();
    assert!(message.contains("10.0.0.0/8"), "{message}");
}

#[test]
fn an_empty_value_means_unset() {
    let config = serve(&[
        "--database-url=",
        "--s3-bucket=",
        "--s3-force-path-style=",
        "--tls-cert=",
    ])
    .unwrap();
    assert!(matches!(config.mode, Mode::Embedded { .. }));
    assert!(config.warnings.is_empty() && config.tls.is_none());
}

#[test]
fn credentials_in_a_url_are_refused_and_not_repeated() {
    for url in [
        "--object-store=s3://AKIA:wJa/lr@mail/a",
        "--s3-endpoint=https://AKIA:wJa/lr@s3.example.com",
        "--s3-endpoint=AKIA:wJa/lr@s3.example.com",
    ] {
        for others in [&[URL, "--s3-bucket=b"][..], &[]] {
            let args = [&["cursus", "config", url], others].concat();
            let message = parse_from(args).unwrap_err().to_string();
            assert!(message.contains("S3_SECRET_ACCESS_KEY"), "{message}");
            assert!(!message.contains("lr@"), "{message}");
        }
    }
}

/// A file with this text, removed at the end.
struct File(PathBuf);

impl File {
    fn with(text: &str) -> Self {
        let name = format!("cursus-config-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn as_flag(&self, name: &str) -> String {
        format!("--{name}-file={}", self.0.display())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_secret_can_be_in_a_file_whose_name_is_shown_but_not_its_text() {
    let (url, id, key) = (
        File::with("postgres://u:hunter2@db/cursus\n"),
        File::with("AKIA"),
        File::with("wJalr\r\n"),
    );
    let flags = [
        url.as_flag("database-url"),
        id.as_flag("s3-access-key-id"),
        key.as_flag("s3-secret-access-key"),
    ];
    let args = [
        &["--s3-bucket=b"][..],
        &flags.each_ref().map(String::as_str),
    ]
    .concat();
    let Mode::Fleet {
        database_url,
        objects: Storage::S3(objects),
    } = serve(&args).unwrap().mode
    else {
        panic!("not a fleet with a bucket");
    };
    assert_eq!(database_url.expose(), "postgres://u:hunter2@db/cursus");
    assert_eq!(objects.access_key.as_deref(), Some("AKIA"));
    assert_eq!(objects.secret.as_deref(), Some("wJalr"));

    let args = ["cursus", "config"].iter().chain(&args);
    let Task::ShowConfig(table) = parse_from(args).unwrap() else {
        panic!("not a table");
    };
    assert!(table.contains(&url.0.display().to_string()), "{table}");
    for secret in ["hunter2", "AKIA", "wJalr"] {
        assert!(!table.contains(secret), "{table}");
    }
}

#[test]
fn a_file_of_a_secret_that_cannot_be_used_is_refused_by_name() {
    let (empty, good) = (File::with("\n"), File::with("postgres://u:hunter2@db/c"));
    let missing = "--database-url-file=/no/such/file";
    let (empty, good) = (empty.as_flag("database-url"), good.as_flag("database-url"));
    for (args, says) in [
        (&[missing, "--s3-bucket=b"][..], "/no/such/file"),
        (&[&empty, "--s3-bucket=b"], "is empty"),
        (&[&good, URL, "--s3-bucket=b"], "set one of them"),
    ] {
        let message = serve(args).unwrap_err();
        assert!(message.contains("DATABASE_URL_FILE"), "{message}");
        assert!(message.contains(says), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let config = serve(&["--database-url-file="]).unwrap();
    assert!(matches!(config.mode, Mode::Embedded { .. }));
}

#[test]
fn half_of_a_pair_is_refused() {
    assert!(
        serve(&["--tls-cert=a.pem"])
            .unwrap_err()
            .contains("--tls-key")
    );
    assert!(
        serve(&["--tls-key=a.pem"])
            .unwrap_err()
            .contains("--tls-cert")
    );
    let message = serve(&[URL, "--s3-bucket=b", "--s3-access-key-id=AK"]).unwrap_err();
    assert!(message.contains("S3_SECRET_ACCESS_KEY"), "{message}");
}

#[test]
fn the_embedded_mode_stays_on_loopback() {
    assert!(
        serve(&["--listen=0.0.0.0:80"])
            .unwrap_err()
            .contains("loopback")
    );
    assert!(serve(&["--listen=0.0.0.0:80", URL, "--s3-bucket=b"]).is_ok());
    assert!(serve(&["--listen=localhost:0"]).is_ok());
}

#[test]
fn a_bad_value_names_flag_value_and_range() {
    let message = serve(&["--cache-bytes=1TiB"]).unwrap_err();
    for part in ["--cache-bytes", "1TiB", "1MiB to 64GiB"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let args = [
        URL,
        "--s3-bucket=b",
        "--s3-access-key-id=AKIA",
        "--s3-secret-access-key=wJalr",
    ];
    let shown = format!("{:?}", serve(&args).unwrap());
    let args = ["cursus", "config"].iter().chain(&args);
    let Task::ShowConfig(table) = parse_from(args).unwrap() else {
        panic!("not a table");
    };
    for secret in ["hunter2", "AKIA", "wJalr"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!table.contains(secret), "{table}");
    }
    assert!(
        table.contains("database-url")
            && table.contains("***")
            && table.contains("flag --s3-bucket")
    );
    assert!(table.contains("256KiB") && table.contains("default"));
}

#[test]
fn a_word_that_is_no_level_of_the_log_is_refused() {
    for level in ["verbose", "", "info,loud", "cursus=much", "hyper"] {
        let refused = serve(&["--log-level", level]).unwrap_err();
        assert!(refused.contains("error, warn, info"), "{level}: {refused}");
    }
    for level in ["warn", "OFF", "info,cursus=debug", "cursus[turn]=trace"] {
        assert_eq!(
            serve(&["--log-level", level]).unwrap().logging.log_level,
            level
        );
    }
}

/// The endpoint that a setting leads to.
fn endpoint(text: &str) -> Result<String, String> {
    let config = serve(&[URL, "--s3-bucket=b", "--s3-endpoint", text])?;
    let Mode::Fleet {
        objects: Storage::S3(objects),
        ..
    } = config.mode
    else {
        panic!("not a fleet with a bucket");
    };
    assert!(objects.checksums);
    Ok(objects.endpoint.unwrap())
}

#[test]
fn an_endpoint_keeps_its_path_apart_from_the_bucket() {
    for (given, kept) in [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        (
            "https://s.example/storage/v1/s3",
            "https://s.example/storage/v1/s3/",
        ),
        (
            "https://s.example/storage/v1/s3/",
            "https://s.example/storage/v1/s3/",
        ),
    ] {
        assert_eq!(endpoint(given).unwrap(), kept);
    }
    for wrong in [
        "s.example",
        "http://",
        "http:///path",
        "http://s.example?a=b",
        "http://s.example/#x",
    ] {
        assert!(
            endpoint(wrong).unwrap_err().contains("S3_ENDPOINT"),
            "{wrong}"
        );
    }
    let refused = endpoint("https://key:hunter2@s.example").unwrap_err();
    assert!(!refused.contains("hunter2"), "{refused}");
}

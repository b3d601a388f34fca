//! The text formats of `/metrics`: OpenMetrics, which the metrics are written in, and the classic text format of
//! Prometheus, for everything that does not ask for OpenMetrics.

use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics, given as OpenMetrics, in the format that the client prefers.
pub(in crate::http) fn metrics(asked: &HeaderMap, text: String) -> Response {
    let (kind, text) = if prefers_open_metrics(asked) {
        (OPEN_METRICS, text)
    } else {
        (CLASSIC, classic(&text))
    };
    let headers = [(CONTENT_TYPE, kind), (VARY, ACCEPT.as_str())];
    (
        headers.map(|(name, value)| (name, HeaderValue::from_static(value))),
        text,
    )
        .into_response()
}

/// Whether the client accepts OpenMetrics and does not prefer plain text. Without `Accept`, and for `*/*`, the format is
/// the one that everything reads.
fn prefers_open_metrics(asked: &HeaderMap) -> bool {
    let (mut open, mut plain) = (0, 0);
    for line in asked.get_all(ACCEPT) {
        for range in line.to_str().unwrap_or("").split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or("");
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = thousandths(quality.unwrap_or("1"));
            if media.eq_ignore_ascii_case("application/openmetrics-text") {
                open = open.max(quality);
            } else if media.eq_ignore_ascii_case("text/plain") {
                plain = plain.max(quality);
            }
        }
    }
    open > 0 && open >= plain
}

/// A quality (RFC 9110, section 12.4.2) in thousandths; 0 when it is malformed.
fn thousandths(quality: &str) -> u32 {
    let (whole, places) = quality.split_once('.').unwrap_or((quality, ""));
    let number = format!("{whole}{places:0<3}");
    let is_number = whole.len() == 1 && places.len() <= 3;
    number.parse().ok().filter(|_| is_number).unwrap_or(0)
}

/// OpenMetrics as classic text. There a family of counters is named like its samples, units and the end have no lines,
/// and there are fewer types.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // Written with the type, which decides the name.
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|typed| typed.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take() {
                out.push_str(&format!("# HELP {name}{suffix} {text}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with("# ") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::{Registry, Unit};

    use super::*;

    #[test]
    fn the_client_chooses_the_format() {
        for (accept, is_open) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;q=0", false),
            ("text/plain, application/openmetrics-text;q=0.9", false),
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
        ] {
            let mut asked = HeaderMap::new();
            asked.insert(ACCEPT, HeaderValue::from_static(accept));
            let response = metrics(&asked, String::new());
            let kind = if is_open { OPEN_METRICS } else { CLASSIC };
            assert_eq!(response.headers()[CONTENT_TYPE], kind, "{accept}");
        }
        assert!(!prefers_open_metrics(&HeaderMap::new()));
    }

    #[test]
    fn classic_text_names_a_family_like_its_samples() {
        let mut registry = Registry::with_prefix("x");
        let counter: Counter = Counter::default();
        counter.inc();
        registry.register("done", "Things done", counter);
        registry.register_with_unit(
            "age",
            "Age",
            Unit::Seconds,
            Gauge::<i64, std::sync::atomic::AtomicI64>::default(),
        );
        registry.register("took", "Time", Histogram::new([1.0]));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert_eq!(
            classic(&text),
            "# HELP x_done_total Things done.\n\
             # TYPE x_done_total counter\n\
             x_done_total 1\n\
             # HELP x_age_seconds Age.\n\
             # TYPE x_age_seconds gauge\n\
             x_age_seconds 0\n\
             # HELP x_took Time.\n\
             # TYPE x_took histogram\n\
             x_took_sum 0.0\n\
             x_took_count 0\n\
             x_took_bucket{le=\"1.0\"} 0\n\
             x_took_bucket{le=\"+Inf\"} 0\n"
        );
    }
}

//! Metrics and documentation on an address of their own, for operators who keep them off the address of their clients.
//! Called by `app` when that is configured; otherwise one address serves everything and nothing here runs.

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use super::answer::problem;
use crate::listen::Routers;

/// What both addresses serve: probes ask either.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// Splits the routers in two: what clients call, and metrics and documentation.
pub fn apart(routers: Routers) -> (Routers, Routers) {
    let of_operators = Routers {
        all: routers.all.clone().layer(from_fn(operators)),
        spare: routers.spare.clone().layer(from_fn(operators)),
    };
    let of_clients = Routers {
        all: routers.all.layer(from_fn(clients)),
        spare: routers.spare.layer(from_fn(clients)),
    };
    (of_clients, of_operators)
}

async fn clients(request: Request, next: Next) -> Response {
    let is_served = !is_apart(request.uri().path());
    pass(request, next, is_served).await
}

async fn operators(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_served = is_apart(path) || HEALTH.contains(&path);
    pass(request, next, is_served).await
}

async fn pass(request: Request, next: Next, is_served: bool) -> Response {
    if is_served {
        return next.run(request).await;
    }
    problem::no_route(request.uri().clone())
        .await
        .into_response()
}

fn is_apart(path: &str) -> bool {
    let first = path.split('/').nth(1);
    matches!(first, Some("metrics" | "docs" | "openapi.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_documentation_are_apart() {
        for path in [
            "/metrics",
            "/docs",
            "/docs/",
            "/docs/index.html",
            "/openapi.json",
        ] {
            assert!(is_apart(path), "{path}");
        }
        for path in [
            "/",
            "/healthz",
            "/v1/topics",
            "/v1/topics/docs",
            "/metricsx",
        ] {
            assert!(!is_apart(path), "{path}");
        }
    }
}

//! The shared parts of the OpenAPI document: head, security scheme, one response per error status with an example per
//! code, the header of the request id, and the link to the next page. The routes are collected from their handlers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::LazyLock;

use api::{ErrorCode, FieldError, Problem};
use bytes::Bytes;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{ArrayItems, KnownFormat, Schema, SchemaFormat};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ContactBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder,
    OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder, Server, ServerBuilder,
    ServerVariableBuilder, Type,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::samples;

mod clients;

const REQUEST_ID: &str = "X-Request-Id";
const SECURITY: &str = "api_key";

/// What a reader of the document sees first.
const INTRODUCTION: &str = "\
Publish, receive and settle messages with any HTTP client.

**Concepts.** Messages are published to a *topic*. A *subscription* is a named, durable reader of one topic; each \
subscription gets every message. A receive hands messages out for a *visibility timeout* and gives each a *receipt*. \
*Settle* it in time: `ack` when the message is processed, `nack` to get it again later, `extend` to keep it longer. A \
message that is not settled is handed out again; after too many attempts it moves to the dead-letter topic.

**Guarantees.** A publish is answered after its messages are stored durably. Delivery is at-least-once: a consumer may \
get a message again and must cope with it. A repeated publish with the same `Idempotency-Key` or `dedup_id` stores \
nothing. Only the current lease can settle a message: an older receipt gets `lease_lost`. A repeated `ack` with the same \
receipt succeeds again.

**First steps.** `PUT /v1/topics/orders`, `PUT /v1/subscriptions/billing` with `{\"topic\": \"orders\"}`, `POST \
/v1/topics/orders/messages` with any body, `POST /v1/subscriptions/billing/receive`, and `POST \
/v1/subscriptions/billing/ack` with the receipts.

**Errors** are problem documents (RFC 9457) with a stable `code`, and `retryable` says whether the same request can \
succeed later. `errors` names the invalid fields. Every request may fail with 400, 401, 403, 408, 415, 429, 431, 500, 503 \
or 504; routes list only what they add to these. Wait for the seconds of `Retry-After` after a 429 or 503. \
`/problems/{code}` describes a code.

**Lists** return `items`, and `next` if there are more: pass it as `after`.";

/// The document without routes.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Cursus: messaging over HTTP")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(INTRODUCTION))
        .contact(Some(
            ContactBuilder::new()
                .name(Some("The operator of this service"))
                .build(),
        ))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache-2.0")
                .identifier(Some("Apache-2.0"))
                .build(),
        ));
    let tags = [
        ("Topics", "Named streams that messages are published to"),
        (
            "Subscriptions",
            "Named, durable readers of a topic, independent of each other",
        ),
        (
            "Messages",
            "Publish, receive and settle messages, and read them without consuming them",
        ),
        (
            "Push",
            "Delivery of messages to HTTP endpoints by the service",
        ),
        ("Usage", "The usage of the tenant and its cost"),
        ("Budgets", "Limits and alerts on the cost of a month"),
        ("Events", "Receivers of the events of the service"),
        ("Quota", "The limits of the tenant"),
        (
            "Admin",
            "Tenants, keys, issuers, quotas and price plans; for the operator of the service",
        ),
        (
            "Service",
            "Health, metrics and documentation of the service",
        ),
    ];
    let tag = |(name, text)| TagBuilder::new().name(name).description(Some(text)).build();
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some(servers()))
        .tags(Some(tags.map(tag)))
        .security(Some([SecurityRequirement::new(
            SECURITY,
            Vec::<String>::new(),
        )]))
        .components(Some(components()))
        .build()
}

/// The service that serves the document, for pages that show it, and any other, for generated clients.
fn servers() -> [Server; 2] {
    let this = ServerBuilder::new()
        .url("/")
        .description(Some("This service"));
    let origin = ServerVariableBuilder::new()
        .default_value("http://127.0.0.1:8080")
        .description(Some("Scheme, host and port of a node or of its proxy"));
    let any = ServerBuilder::new()
        .url("{origin}")
        .description(Some(
            "A service elsewhere; the default is a node on this machine",
        ))
        .parameter("origin", origin);
    [this.build(), any.build()]
}

fn components() -> Components {
    let mut components = Components::new();
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An API key (`cursus_<id>_<secret>`), or a token (JWT) of a trusted issuer. The embedded mode needs \
             no key",
        ))
        .build();
    components
        .security_schemes
        .insert(SECURITY.to_owned(), RefOr::T(SecurityScheme::Http(key)));
    let mut schemas = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let mut codes = BTreeMap::<u16, Vec<ErrorCode>>::new();
    let is_general = |code| GENERAL.iter().any(|(_, codes)| codes.contains(&code));
    for code in ErrorCode::ALL {
        if !is_general(code) {
            codes.entry(code.status()).or_default().push(code);
        }
    }
    let mut responses: BTreeMap<_, _> = codes
        .into_iter()
        .map(|(status, codes)| (error_name(status), error_response(&codes)))
        .collect();
    for (range, codes) in GENERAL {
        let mut general = error_response(codes);
        general.description = "Any other error; `code` says which".to_owned();
        put_general_headers(&mut general);
        responses.insert(error_name(range), general);
    }
    let responses = responses.into_iter();
    components.responses = responses
        .map(|(name, response)| (name, RefOr::T(response)))
        .collect();
    components
}

/// The codes that every route may return, by the range of their status.
const GENERAL: [(&str, &[ErrorCode]); 2] = [
    (
        "4XX",
        &[
            ErrorCode::InvalidRequest,
            ErrorCode::ReceiptInvalid,
            ErrorCode::Unauthenticated,
            ErrorCode::Forbidden,
            ErrorCode::MethodNotAllowed,
            ErrorCode::RequestTimeout,
            ErrorCode::UnsupportedMediaType,
            ErrorCode::QuotaExceeded,
            ErrorCode::HeadersTooLarge,
        ],
    ),
    (
        "5XX",
        &[
            ErrorCode::Internal,
            ErrorCode::NotImplemented,
            ErrorCode::ReducedCapacity,
            ErrorCode::Unavailable,
            ErrorCode::Timeout,
        ],
    ),
];

fn error_name(status: impl Display) -> String {
    format!("Problem{status}")
}

fn error_response(codes: &[ErrorCode]) -> Response {
    let example = |code: &ErrorCode| {
        let mut problem = Problem::new(*code, "What happened in this request");
        if *code == ErrorCode::InvalidRequest {
            problem.errors = vec![FieldError::new(
                "/messages/0/tag",
                "must have 1 to 128 characters, has 0",
            )];
        }
        let value = serde_json::to_value(&problem).ok();
        (
            code.as_str(),
            ExampleBuilder::new()
                .summary(code.title())
                .value(value)
                .build(),
        )
    };
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .examples_from_iter(codes.iter().map(example))
        .build();
    let titles: Vec<_> = codes.iter().map(|code| code.title()).collect();
    let mut response = ResponseBuilder::new()
        .description(titles.join(", or "))
        .content("application/problem+json", content)
        .build();
    let text = "Id of this request in the logs of the service";
    put_header(&mut response, REQUEST_ID, text);
    response
}

/// Adds the headers of 401, 429 and 503.
fn put_general_headers(response: &mut Response) {
    let seconds = HeaderBuilder::new()
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(0)),
        ))
        .description(Some(
            "With 429 and 503: seconds to wait before the next attempt",
        ))
        .build();
    let headers = &mut response.headers;
    headers.insert("Retry-After".to_owned(), RefOr::T(seconds));
    for (name, text) in [
        ("WWW-Authenticate", "With 401: Bearer"),
        (
            "RateLimit-Policy",
            "With 429 and 503: the limit that was reached",
        ),
        ("RateLimit", "With 429 and 503: what is left of the limit"),
    ] {
        put_header(response, name, text);
    }
}

/// Adds the headers that every response has, and corrects what the derive macros cannot express.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        let methods = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ];
        for operation in methods.into_iter().flatten() {
            add_request_id(operation);
            add_link(operation);
            describe_scopes(operation);
            operation.request_body.iter_mut().for_each(mend_body);
            add_sample(operation);
        }
    }
    for (name, schema) in document.components.iter_mut().flat_map(|c| &mut c.schemas) {
        if let Some(item) = name.strip_prefix("Page_") {
            refer_to_item(schema, item);
        }
    }
    document
}

/// Leaves out and renames what is in the way of generated clients.
pub(super) fn for_clients(mut document: OpenApi) -> OpenApi {
    for (name, schema) in document.components.iter_mut().flat_map(|c| &mut c.schemas) {
        clients::mend(name, schema);
    }
    document
}

/// The derive macros make an optional body nullable, which is wrong: it may be absent, but not `null`. The body of a
/// raw publish may be empty, so it is not required.
fn mend_body(body: &mut RefOr<RequestBody>) {
    let RefOr::T(body) = body else { return };
    if body.content.contains_key("application/octet-stream") {
        body.required = None;
    }
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &content.schema
        {
            content.schema = either.items.first().cloned();
        }
    }
}

/// Adds the sample of the request body. Without one, a reader makes up values from the bounds of the schema.
fn add_sample(operation: &mut Operation) {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    for (media, content) in &mut body.content {
        let RefOr::T(content) = content else { continue };
        content.example = match media.as_str() {
            "application/json" => samples::json_body(id),
            "text/plain" => Some(samples::TEXT_BODY.into()),
            _ => None,
        };
    }
}

/// The derive macros write the items of a page inline. A reference gives generated clients the named type.
fn refer_to_item(page: &mut RefOr<Schema>, item: &str) {
    if let RefOr::T(Schema::Object(page)) = page
        && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
    {
        items.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(item).into()));
    }
}

/// Moves the scopes of an operation into its description and `x-scopes`; any one of them is sufficient. Linters and
/// generators accept scopes for OAuth 2 only.
fn describe_scopes(operation: &mut Operation) {
    let scope = |requirement: &SecurityRequirement| {
        let requirement = serde_json::to_value(requirement).ok()?;
        Some(requirement[SECURITY][0].as_str()?.to_owned())
    };
    let requirements = operation.security.iter().flatten();
    let scopes: Vec<String> = requirements.filter_map(scope).collect();
    if scopes.is_empty() {
        return;
    }
    operation.security = None;
    let quoted: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
    let text = format!("\n\nNeeds the scope {}.", quoted.join(" or "));
    operation
        .description
        .get_or_insert_default()
        .push_str(&text);
    let extensions = operation.extensions.get_or_insert_default();
    extensions.insert("x-scopes".to_owned(), scopes.into());
}

/// Adds the `Link` header to operations with the parameter `after`: those return a list page by page.
fn add_link(operation: &mut Operation) {
    let is_after = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => parameter.name == "after",
        RefOr::Ref(_) => false,
    };
    let is_list = operation.parameters.iter().flatten().any(is_after);
    if let Some(RefOr::T(response)) = operation.responses.responses.get_mut("200")
        && is_list
    {
        let text = "Link to the next page, if there is one: `<…>; rel=\"next\"` (RFC 8288)";
        put_header(response, "Link", text);
    }
}

/// Adds a header with a text value to a response.
fn put_header(response: &mut Response, name: &str, text: &str) {
    let header = HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some(text))
        .build();
    response.headers.insert(name.to_owned(), RefOr::T(header));
}

fn add_request_id(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let text = "The `X-Request-Id` of the request, or a generated id";
            put_header(response, REQUEST_ID, text);
        }
    }
}

/// The document as served. It is generated once per process.
pub(super) fn text() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        let text = super::openapi().to_pretty_json().unwrap_or_default();
        Bytes::from(clients::mend_text(&text))
    });
    TEXT.clone()
}

/// The methods of a route, as a list for people.
pub(super) fn methods(route: &str) -> Option<&'static str> {
    static METHODS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
        let methods = |item: &PathItem| {
            let get = item.get.iter().flat_map(|_| ["GET", "HEAD"]);
            let put = item.put.iter().map(|_| "PUT");
            let post = item.post.iter().map(|_| "POST");
            let delete = item.delete.iter().map(|_| "DELETE");
            let all: Vec<_> = get.chain(put).chain(post).chain(delete).collect();
            all.join(", ")
        };
        let paths = super::openapi().paths.paths;
        paths
            .iter()
            .map(|(path, item)| (path.clone(), methods(item)))
            .collect()
    });
    METHODS.get(route).map(String::as_str)
}

/// Bytes of any type, in the document.
pub(super) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .into()
    }
}

impl ToSchema for Binary {}

macro_rules! errors {
    ($(#[$doc:meta])* $name:ident$(: $($status:literal)+)?) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                let statuses: &[u16] = &[$($($status),+)?];
                let reference = |status: &u16| {
                    (status.to_string(), Ref::from_response_name(error_name(*status)).into())
                };
                let general = |(range, _): (&str, _)| {
                    (range.to_owned(), Ref::from_response_name(error_name(range)).into())
                };
                let own = statuses.iter().map(reference);
                own.chain(GENERAL.map(general)).collect()
            }
        }
    };
}

errors! {
    /// What every route may return, and nothing else.
    GeneralErrors
}
errors! {
    /// Exports of the tenant's data, which may conflict with its state.
    ExportErrors: 409
}
errors! {
    /// Reads of what is named in the path.
    ReadErrors: 404
}
errors! {
    /// Downloads of a body.
    BodyErrors: 404 412 416
}
errors! {
    /// JSON requests that change a resource that is named in the path.
    WriteErrors: 404 413
}
errors! {
    /// JSON requests that create a resource that is named in the path, which may conflict with its state.
    PutErrors: 404 409 413
}
errors! {
    /// Publishes, with or without an idempotency key.
    PublishErrors: 404 409 413 422 507
}
errors! {
    /// Deletes, which may conflict with other resources.
    DeleteErrors: 404 409
}

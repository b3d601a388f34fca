//! The shared parts of the OpenAPI document: head, security scheme, one response per error status with an example per
//! code, the header of the request id, and the link to the next page. The routes are collected from their handlers.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::{ErrorCode, FieldError, Problem};
use bytes::Bytes;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{ArrayItems, KnownFormat, Schema, SchemaFormat};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ContactBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder,
    OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder, ServerBuilder, Type,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

const REQUEST_ID: &str = "X-Request-Id";
const SECURITY: &str = "api_key";

/// The document without routes.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Cursus")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")))
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
        ("Publish", "Publish messages to topics"),
        ("Receive", "Receive messages from subscriptions"),
        ("Settle", "End or change the lease of a message"),
        ("Messages", "Read messages without consuming them"),
        ("Usage", "The usage of the tenant and its cost"),
        ("Budgets", "Limits and alerts on the cost of a month"),
        ("Events", "Receivers of the events of the service"),
        ("Quota", "The limits of the tenant"),
        (
            "Operation",
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
        .servers(Some([ServerBuilder::new()
            .url("/")
            .description(Some("This service"))
            .build()]))
        .tags(Some(tags.map(tag)))
        .security(Some([SecurityRequirement::new(
            SECURITY,
            Vec::<String>::new(),
        )]))
        .components(Some(components()))
        .build()
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
    for code in ErrorCode::ALL {
        codes.entry(code.status()).or_default().push(code);
    }
    // No route in the document returns it: 405 is for methods that the document does not have.
    codes.remove(&405);
    for (status, codes) in codes {
        components
            .responses
            .insert(error_name(status), RefOr::T(error_response(&codes)));
    }
    components
}

fn error_name(status: u16) -> String {
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
    let mut header = |name, text| put_header(&mut response, name, text);
    header(REQUEST_ID, "Id of this request in the logs of the service");
    match codes.first().map(|code| code.status()) {
        Some(401) => header("WWW-Authenticate", "Bearer"),
        Some(429 | 503) => {
            header("Retry-After", "Seconds to wait before the next attempt");
            header("RateLimit-Policy", "The limit that was reached");
            header("RateLimit", "What is left of the limit");
        }
        _ => {}
    }
    response
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
        }
    }
    for (name, schema) in document.components.iter_mut().flat_map(|c| &mut c.schemas) {
        if let Some(item) = name.strip_prefix("Page_") {
            refer_to_item(schema, item);
        }
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
        Bytes::from(text)
    });
    TEXT.clone()
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
    ($(#[$doc:meta])* $name:ident: $($status:literal)+) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                let reference = |status: u16| {
                    (status.to_string(), Ref::from_response_name(error_name(status)).into())
                };
                [$($status),+].map(reference).into()
            }
        }
    };
}

errors! {
    /// Lists of resources of the tenant.
    ListErrors: 400 401 403 408 415 429 431 500 503 504
}
errors! {
    /// Exports of the tenant's data, which may conflict with its state.
    ExportErrors: 400 401 403 408 409 415 429 431 500 503 504
}
errors! {
    /// Lists of what belongs to a named resource.
    ListOfErrors: 400 401 403 404 408 415 429 431 500 503 504
}
errors! {
    /// Reads of a resource that is named in the path.
    ReadErrors: 400 401 403 404 408 415 429 431 500 503 504
}
errors! {
    /// Downloads of a body.
    BodyErrors: 400 401 403 404 408 415 416 429 431 500 503 504
}
errors! {
    /// JSON requests that change a resource that is named in the path.
    WriteErrors: 400 401 403 404 408 413 415 429 431 500 503 504
}
errors! {
    /// JSON requests that create a resource that is named in the path, which may conflict with its state.
    PutErrors: 400 401 403 404 408 409 413 415 429 431 500 503 504
}
errors! {
    /// Publishes, with or without an idempotency key.
    PublishErrors: 400 401 403 404 408 409 413 415 422 429 431 500 503 504 507
}
errors! {
    /// Deletes, which may conflict with other resources.
    DeleteErrors: 400 401 403 404 408 409 415 429 431 500 503 504
}
errors! {
    /// What every route may return: a head that cannot be served, and in embedded mode a request of another site's
    /// page.
    ServiceErrors: 403 408 415 431 500 504
}
errors! {
    /// Look-ups that need no tenant.
    NotFoundError: 403 404 408 415 431 500 504
}

//! Pages of lists: `{"items":[…],"next":"cursor"}`, sought by key and never by number.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which page of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the page before; absent for the first.
    #[param(
        min_length = 1,
        max_length = 256,
        nullable = false,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$"
    )]
    pub after: Option<String>,
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    pub limit: Option<u32>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items in the order of their key.
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

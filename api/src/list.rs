//! Pages of lists: `{"items":[…],"next":"cursor"}`. A page begins after a key; there are no page numbers.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Query parameters that select a page of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the previous page. Absent for the first page.
    #[param(
        min_length = 1,
        max_length = 256,
        nullable = false,
        pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$"
    )]
    pub after: Option<String>,
    /// Maximum number of items to return.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    pub limit: Option<u32>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// Items, in the order of their key.
    pub items: Vec<T>,
    /// Cursor of the next page, to be passed as `after`. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

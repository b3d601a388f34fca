//! Pages of lists.

use api::list::Page;

/// A page of at most `limit` items, from one item more than fits on it; `key` makes the `next` of the page from its last item.
#[must_use]
pub fn page<T>(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(key);
    Page { items, next }
}

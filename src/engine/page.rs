//! Cuts the rows of a list statement into a page with its `next` position.

use api::list::Page;

/// A page of at most `limit` items. The caller reads one item more than fits, which shows whether there is a next page;
/// `key` then makes `next` from the last item of this page.
#[must_use]
pub fn page<T>(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(key);
    Page { items, next }
}

//! An endpoint.

use cursus::outbound::{Guard, Options, Outbound};

pub(crate) fn outbound() -> Outbound {
    let guard = Guard::default().with_loopback();
    Outbound::new(Options {
        guard,
        ..Options::default()
    })
    .unwrap()
}

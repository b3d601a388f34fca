//! Push: endpoints that the service delivers to, over real connections.

mod connections;
mod outbound;

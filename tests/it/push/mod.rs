//! Push: endpoints that the service delivers to, over real connections.

mod connections;
mod operator;
mod outbound;

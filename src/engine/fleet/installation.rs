//! The values that all nodes of an installation share. The first node that starts creates them.

use crate::clock::Clock;
use crate::engine::access::Tenant;
use crate::engine::error::Error;
use crate::store::installation::Installation;
use crate::store::{self, Store};

/// The installation and its default tenant, made if they are missing.
pub(in crate::engine) async fn ensure(
    store: &Store,
    clock: &Clock,
) -> Result<(Installation, Tenant), Error> {
    let mut session = store.session().await?;
    let key: [u8; 32] = rand::random();
    store::installation::ensure(&mut session, &key, clock.now()).await?;
    store.learn_history().await?;
    let installation = store::installation::get(&mut session)
        .await?
        .ok_or(Error::Internal)?;
    let tenant = store::tenant::default(&mut session).await?;
    Ok((installation, Tenant(tenant)))
}

//! The values that all nodes of an installation share. The first node that starts creates them.

use crate::engine::error::Error;
use crate::engine::{Parts, Tenant};
use crate::store;
use crate::store::installation::Installation;

/// Reads or creates the installation, and returns it with its default tenant.
pub(in crate::engine) async fn installation(
    parts: &Parts,
) -> Result<(Installation, Tenant), Error> {
    let mut session = parts.store.session().await?;
    let key: [u8; 32] = rand::random();
    store::installation::ensure(&mut session, &key, parts.clock.now()).await?;
    let installation = store::installation::get(&mut session)
        .await?
        .ok_or(Error::Internal)?;
    let tenant = store::tenant::default(&mut session).await?;
    Ok((installation, Tenant(tenant)))
}

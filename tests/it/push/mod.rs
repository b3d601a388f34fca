//! Push: settings of endpoints, deliveries to real ones, and signatures in the eyes of the libraries that receivers use.

mod connections;
mod consent;
mod deliver;
mod drivers;
mod operator;
mod outbound;
mod settings;
mod sign;

use cursus::engine::push::Endpoint;
use cursus::store::push_endpoint;

use crate::harness::Fleet;

const SUBSCRIPTION: &str = "/v1/subscriptions/s";
const URL: &str = "https://app.example/hooks/billing";

/// The endpoint of subscription `s`, as the node that drives it reads it.
async fn endpoint(fleet: &Fleet) -> Endpoint {
    let store = fleet.database.store();
    let mut session = store.session().await.unwrap();
    let tenant = cursus::store::tenant::by_name(&mut session, "default").await;
    let tenant = tenant.unwrap().unwrap().tenant_id;
    let row = cursus::store::subscription::by_name(&mut session, tenant, "s").await;
    let id = row.unwrap().unwrap().subscription_id;
    let rows = push_endpoint::of_subscriptions(&mut session, &[id]).await;
    drop(session);
    store.close().await;
    Endpoint::of(rows.unwrap().pop().unwrap()).unwrap()
}

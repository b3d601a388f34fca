//! A pooler between node and database: in session mode it serves, in any other it is refused by name.

use cursus::store::{Hosts, Store, Trouble};
use serde_json::json;

use crate::harness::pooler::{Mode, Pooler};
use crate::harness::postgres::Postgres;
use crate::harness::{Fleet, all};

fn hosts(pooler: &Pooler, database: &str) -> Hosts {
    let port = pooler.port;
    format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_pooler_in_session_mode_serves_though_it_takes_no_parameters() {
    let mut fleet = Fleet::new().await;
    let folder = fleet.database.folder().to_owned();
    let pooler = Pooler::before(folder, Mode::Session).await;
    let name = fleet.database.name().to_owned();
    fleet.database.set_hosts(hosts(&pooler, &name));
    let store = fleet.database.store();
    store.check_sessions().await.unwrap();
    let mut session = store.turn_session().await.unwrap();
    for (setting, value) in [
        ("lock_timeout", "200ms"),
        ("enable_seqscan", "off"),
        ("plan_cache_mode", "force_generic_plan"),
    ] {
        let found: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(session.run("session.test"))
            .await
            .unwrap();
        assert_eq!(found, value, "{setting}");
    }
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.publish("a").await;
    let received = node.receive(1).await;
    assert_eq!(node.ack(&all(&received, "receipt")).await, [json!({})]);
    fleet.finish([node]).await;
}

#[tokio::test]
async fn a_pooler_that_drops_settings_is_refused_by_name() {
    let server = Postgres::own(&[]).await;
    let pooler = Pooler::before(server.folder().to_owned(), Mode::Transaction).await;
    let store = Store::new(hosts(&pooler, "test_first"), 2);
    let refused = store.check_sessions().await.unwrap_err();
    assert_eq!(refused.trouble(), Trouble::Pooler);
    let said = refused.to_string();
    assert!(
        said.contains("a pooler") && said.contains("session mode"),
        "{said}"
    );
    store.close().await;
}

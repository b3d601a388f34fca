//! What a node says when it cannot use its database: which host, why, and what to do. And which rights it needs.

use cursus::store::{Hosts, Store, Trouble, migrate};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

use crate::harness::postgres::{Database, Postgres};
use crate::harness::{Fleet, all};

/// The refusal of a connection to these hosts.
async fn refusal(hosts: impl Into<Hosts>) -> (Trouble, String) {
    let store = Store::new(hosts, 1);
    // The pool would wait for the database to start.
    let refused = store.turn_session().await.unwrap_err();
    (refused.trouble(), refused.to_string())
}

#[tokio::test]
async fn a_refusal_names_the_host_the_cause_and_what_to_do() {
    let database = Database::new().await;
    let mut sql = database.connect().await;
    let role = format!("{}_full", database.name());
    let weak = format!("{}_weak", database.name());
    let roles = format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0; CREATE ROLE {weak} LOGIN");
    sql.execute(AssertSqlSafe(roles)).await.unwrap();
    let options = &database.options;
    let nowhere: Hosts = "postgres://me@127.0.0.1:1,127.0.0.1:2/x".parse().unwrap();
    let require = sqlx::postgres::PgSslMode::Require;
    let cases = [
        (
            refusal(nowhere).await,
            Trouble::Connection,
            ["127.0.0.1:1: ", "127.0.0.1:2: ", "refused"],
        ),
        (
            refusal(options.clone().database("nothing")).await,
            Trouble::NoDatabase,
            ["\"nothing\"", "DATABASE_URL", "create it"],
        ),
        (
            refusal(options.clone().username("nobody")).await,
            Trouble::Login,
            ["\"nobody\"", "pg_hba.conf", "password"],
        ),
        (
            refusal(options.clone().username(&role)).await,
            Trouble::NoConnectionLeft,
            [
                "too many connections",
                "CONNECTION LIMIT",
                "--database-connections",
            ],
        ),
        (
            refusal(options.clone().username(&weak)).await,
            Trouble::NoRight,
            ["lacks a right", "permission denied for table", "GRANT"],
        ),
        (
            refusal(options.clone().ssl_mode(require)).await,
            Trouble::NoTls,
            ["does not support TLS", "ssl = on", "sslmode=disable"],
        ),
    ];
    for ((trouble, said), expected, parts) in cases {
        assert_eq!(trouble, expected, "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} in: {said}");
        }
    }
    let drop = format!("DROP ROLE {role}, {weak}");
    sql.execute(AssertSqlSafe(drop)).await.unwrap();
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_refused() {
    let server = Postgres::own(&["default_transaction_read_only=on"]).await;
    let (trouble, said) = refusal(server.options("test_first")).await;
    assert_eq!(trouble, Trouble::ReadOnly);
    assert!(said.contains("name the primary"), "{said}");
}

#[tokio::test]
async fn a_role_that_may_only_read_and_write_rows_serves() {
    let mut fleet = Fleet::new().await;
    let mut sql = fleet.database.connect().await;
    let role = format!("{}_rows", fleet.database.name());
    let rights = format!(
        "CREATE ROLE {role} LOGIN;
         REVOKE CREATE ON SCHEMA public FROM PUBLIC;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    sql.execute(AssertSqlSafe(rights)).await.unwrap();
    let options = fleet.database.options.clone().username(&role);
    fleet.database.set_hosts(options.into());
    let store = fleet.database.store();
    migrate::migrate(&store).await.unwrap();
    store.close().await;
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.publish("a").await;
    let received = node.receive(1).await;
    assert_eq!(node.ack(&all(&received, "receipt")).await, [json!({})]);
    fleet.finish([node]).await;
}

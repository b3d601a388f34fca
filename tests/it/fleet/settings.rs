//! The defaults of a database or a role do not reach the sessions of a node.

use serde_json::json;
use sqlx::{AssertSqlSafe, Row};

use crate::harness::{Fleet, all};

const DEFAULTS: [(&str, &str); 6] = [
    ("default_transaction_isolation", "serializable"),
    ("lock_timeout", "1ms"),
    ("statement_timeout", "1ms"),
    ("synchronous_commit", "off"),
    ("timezone", "Asia/Tokyo"),
    ("bytea_output", "escape"),
];

#[tokio::test]
async fn a_database_with_other_defaults_serves_like_any_other() {
    let fleet = Fleet::new().await;
    let mut sql = fleet.database.connect().await;
    let name = sqlx::query("SELECT current_database()")
        .fetch_one(&mut sql)
        .await;
    let name: String = name.unwrap().get(0);
    for (setting, value) in DEFAULTS {
        let default = format!("ALTER DATABASE \"{name}\" SET {setting} TO '{value}'");
        sqlx::query(AssertSqlSafe(default))
            .execute(&mut sql)
            .await
            .unwrap();
    }
    let store = fleet.database.store();
    let sessions = [
        (store.session().await.unwrap(), "5s"),
        (store.turn_session().await.unwrap(), "200ms"),
    ];
    for (mut session, lock_timeout) in sessions {
        let found = sqlx::query(
            "SELECT current_setting('transaction_isolation'), current_setting('lock_timeout'), current_setting('statement_timeout'),
                    current_setting('synchronous_commit'), current_setting('timezone'), current_setting('bytea_output')",
        );
        let found = found.fetch_one(session.run("session.test")).await.unwrap();
        let found: Vec<String> = (0..DEFAULTS.len()).map(|at| found.get(at)).collect();
        let expected = ["read committed", lock_timeout, "30s", "on", "UTC", "hex"];
        assert_eq!(found, expected);
    }
    let node = fleet.node().await;
    node.topic_and_subscription(json!({})).await;
    node.publish("a").await;
    let received = node.receive(1).await;
    assert_eq!(node.ack(&all(&received, "receipt")).await, [json!({})]);
    let reset = format!("ALTER DATABASE \"{name}\" RESET ALL");
    sqlx::query(AssertSqlSafe(reset))
        .execute(&mut sql)
        .await
        .unwrap();
    fleet.finish([node]).await;
}

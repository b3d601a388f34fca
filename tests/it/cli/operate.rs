//! What operators do over HTTP: tenants, keys and quotas.

use super::{Program, closed_fleet};

#[tokio::test]
async fn an_operator_makes_a_tenant_with_a_key_and_limits() {
    let fleet = closed_fleet().await;
    let node = fleet.node().await;
    let admin = fleet.key_for("default", &["admin"]).await;
    let operator = Program::with_key(&node, &admin);

    operator.says(&["tenant", "create", "shop"]).await;
    let create = [
        "key", "create", "--tenant", "shop", "--name", "web", "--scope", "manage",
    ];
    let made = operator.run(&create).await;
    let set = [
        "quota",
        "set",
        "shop",
        "--messages-per-second",
        "1000:5000",
        "--topics",
        "3",
    ];
    operator.says(&set).await;

    assert!(
        made.err.contains("over HTTP") && made.err.contains("CURSUS_URL"),
        "{}",
        made.err
    );
    let key = made.done();
    let shop = Program::with_key(&node, key.trim());
    shop.says(&["topic", "create", "orders"]).await;
    let quota = shop.says(&["quota"]).await;
    let row = |limit: &str| {
        let row = quota.lines().find(|line| line.starts_with(limit)).unwrap();
        row.split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(row("topics"), ["-", "3", "1"]);
    assert_eq!(row("messages_per_second")[..2], ["1000", "5000"]);
    let keys = operator.says(&["key", "list", "--tenant", "shop"]).await;
    let id = key.split('_').nth(1).unwrap();
    assert!(keys.contains(id) && keys.contains("web"), "{keys}");
    operator
        .says(&["tenant", "suspend", "shop", "--reason", "unpaid"])
        .await;
    assert_eq!(
        operator.json(&["tenant", "show", "shop"]).await[0]["suspended"],
        true
    );
    operator.says(&["tenant", "resume", "shop"]).await;
    let revoked = operator
        .says(&["key", "revoke", "--tenant", "shop", id])
        .await;
    assert_eq!(revoked, format!("key {id} is revoked\n"));
    let usage = operator.run(&["usage"]).await;
    usage.fails(4, &["forbidden"]);
    fleet.finish([node]).await;
}

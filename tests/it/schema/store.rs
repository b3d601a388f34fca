//! The store below everything: connections that come back to the pool, and transactions that get in each other's way.

use std::time::Duration;

use cursus::store::{Error, Store};
use futures_util::poll;
use sqlx::{Connection, Executor, Row};

use crate::harness::log::Log;

#[tokio::test]
async fn a_transaction_given_up_while_it_begins_is_not_left_open() {
    let log = Log::new().await;
    let store = Store::new(log.database.options.clone(), 1);
    let mut other = log.database.connect().await;
    for polls in 1..8 {
        drop(store.session().await.unwrap());
        let mut begin = Box::pin(store.tx("given up"));
        for _ in 0..polls {
            if poll!(begin.as_mut()).is_ready() {
                break;
            }
            // The answer to what was asked is there when it is polled next.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        drop(begin);
        // Its connection goes back to the pool in the background, and is asked on the way.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let mut session = store.session().await.unwrap();
        // Asked in one message, because only then both are the time of that message.
        let asked = sqlx::raw_sql("SELECT now() = statement_timestamp()");
        let answer = session.run("test.is_clean").fetch_one(asked).await.unwrap();
        let is_clean: bool = answer.get(0);
        assert!(is_clean, "given up after {polls} polls");
        drop(session);
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&mut other)
        .await
        .unwrap();
        assert_eq!(open, 0, "given up after {polls} polls");
    }
    store.close().await;
}

#[tokio::test]
async fn a_commit_given_up_on_is_not_followed_by_a_rollback() {
    let log = Log::new().await;
    let store = Store::new(log.database.options.clone(), 1);
    for polls in 1..4 {
        let mut tx = store.tx("given up").await.unwrap();
        let one = sqlx::query("SELECT 1").execute(tx.run("test.one"));
        one.await.unwrap();
        let mut commit = Box::pin(tx.commit());
        for _ in 0..polls {
            if poll!(commit.as_mut()).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        drop(commit);
        // The only connection: what is done with it is done before it is used again.
        drop(store.session().await.unwrap());
    }
    store.close().await;
    log.database.check_log();
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let log = Log::new().await;
    let store = Store::new(log.database.options.clone(), 1);
    let mut servers = Vec::new();
    for _ in 0..3 {
        let mut tx = store.tx("again").await.unwrap();
        let server: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(tx.run("test.server"))
            .await
            .unwrap();
        servers.push(server);
    }
    assert!(
        servers.iter().all(|server| *server == servers[0]),
        "{servers:?}"
    );
    store.close().await;
}

#[tokio::test]
async fn a_transaction_whose_node_falls_silent_is_ended_by_the_server() {
    let log = Log::new().await;
    let mut session = log.store.session().await.unwrap();
    for (setting, value) in [
        ("idle_in_transaction_session_timeout", "10s"),
        ("statement_timeout", "30s"),
    ] {
        let set: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(session.run("test.setting"))
            .await
            .unwrap();
        assert_eq!(set, value, "{setting}");
    }
    let mut tx = log.store.tx("silent").await.unwrap();
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 50")
        .execute(tx.run("test.silent"))
        .await
        .unwrap();
    let mut other = log.database.connect().await;
    crate::harness::until("the server ends it", async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&mut other)
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
    let refused = sqlx::query("SELECT 1")
        .execute(tx.run("test.silent"))
        .await
        .unwrap_err();
    assert!(matches!(refused.into(), Error::Unavailable(_)));
}

#[tokio::test]
async fn the_loser_of_a_deadlock_learns_that_nothing_was_done() {
    let mut log = Log::new().await;
    let (_, one) = log.topic("one", false, 3_600).await;
    let (_, two) = log.topic("two", false, 3_600).await;
    let lock = "SELECT FROM lane WHERE lane_id = $1 FOR UPDATE";
    let mut other = log.database.connect().await;
    let mut theirs = other.begin().await.unwrap();
    sqlx::query(lock)
        .bind(two)
        .execute(&mut *theirs)
        .await
        .unwrap();
    let mut tx = log.store.tx("deadlock").await.unwrap();
    // The one that looks for a deadlock first is the one that loses.
    for sql in ["SET LOCAL deadlock_timeout = 100", "SELECT 1"] {
        sqlx::query(sql)
            .execute(tx.run("test.timeout"))
            .await
            .unwrap();
    }
    sqlx::query(lock)
        .bind(one)
        .execute(tx.run("test.lock"))
        .await
        .unwrap();
    let (ours, rest) = tokio::join!(
        sqlx::query(lock).bind(two).execute(tx.run("test.lock")),
        sqlx::query(lock).bind(one).execute(&mut *theirs),
    );
    let lost = ours.err().or(rest.err()).expect("one of them loses");
    assert!(matches!(lost.into(), Error::Raced(_)));
}

//! Table `subscription`. Every look-up starts from the tenant (I7).

use time::OffsetDateTime;

use super::{Error, Session};

/// A row, with the names that go with its numbers.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SubscriptionRow {
    /// Internal number.
    pub subscription_id: i64,
    /// Owner.
    pub tenant_id: i64,
    /// The topic it reads.
    pub topic_id: i64,
    /// That topic's name.
    pub topic_name: String,
    /// Name within the tenant.
    pub name: String,
    /// Seconds a lease hides its messages.
    pub visibility_seconds: i32,
    /// Attempts before a message is dead-lettered.
    pub max_attempts: i16,
    /// The topic that takes dead letters.
    pub dead_letter_topic_id: Option<i64>,
    /// That topic's name.
    pub dead_letter_topic_name: Option<String>,
    /// Messages that may be leased at once.
    pub max_in_flight: i32,
    /// Fairness keys with a weight; `None`: customers do not take turns.
    pub fairness_names: Option<Vec<String>>,
    /// Their weights, in the same order.
    pub fairness_weights: Option<Vec<i16>>,
    /// Time of creation.
    pub created_at: OffsetDateTime,
    /// Time of the last change.
    pub updated_at: OffsetDateTime,
}

/// Settings to write; `None` keeps what is there, or takes the default given beside it.
#[derive(Debug, Clone)]
pub struct NewSubscription<'a> {
    /// Owner.
    pub tenant: i64,
    /// Name.
    pub name: &'a str,
    /// Visibility timeout, and its default.
    pub visibility_seconds: (Option<i32>, i32),
    /// Attempts, and their default.
    pub max_attempts: (Option<i16>, i16),
    /// Dead-letter topic: kept, taken away, or set.
    pub dead_letter_topic: Option<Option<i64>>,
    /// Messages in flight, and their default.
    pub max_in_flight: (Option<i32>, i32),
    /// Fairness: kept, taken away, or set, with fairness keys and their weights.
    pub fairness: Option<Option<(Vec<String>, Vec<i16>)>>,
}

impl NewSubscription<'_> {
    fn fairness(&self) -> (Option<&[String]>, Option<&[i16]>) {
        let set = self.fairness.iter().flatten().next();
        set.map(|(names, weights)| (&names[..], &weights[..]))
            .unzip()
    }
}

/// Creates a subscription; `None` when one of this name exists.
///
/// # Errors
/// When the database does not answer.
pub async fn insert(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    topic: i64,
    new: &NewSubscription<'_>,
) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- subscription.insert
         INSERT INTO subscription (tenant_id, topic_id, name, visibility_seconds, max_attempts, dead_letter_topic_id,
                                   max_in_flight, created_at, updated_at, fairness_names, fairness_weights)
         VALUES ($1, $2, $3, coalesce($4, $5), coalesce($6, $7), $8, coalesce($9, $10), coalesce($11, now()), coalesce($11, now()),
                 $12, $13)
         ON CONFLICT (tenant_id, name) DO NOTHING
         RETURNING subscription_id",
    )
    .bind(new.tenant)
    .bind(topic)
    .bind(new.name)
    .bind(new.visibility_seconds.0)
    .bind(new.visibility_seconds.1)
    .bind(new.max_attempts.0)
    .bind(new.max_attempts.1)
    .bind(new.dead_letter_topic.flatten())
    .bind(new.max_in_flight.0)
    .bind(new.max_in_flight.1)
    .bind(now)
    .bind(new.fairness().0)
    .bind(new.fairness().1)
    .fetch_optional(session.run("subscription.insert"))
    .await?)
}

/// Changes the settings that are given; false when that changes nothing, or there is no such subscription.
///
/// # Errors
/// When the database does not answer.
pub async fn update(
    session: &mut Session,
    now: Option<OffsetDateTime>,
    new: &NewSubscription<'_>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "-- subscription.update
         UPDATE subscription SET visibility_seconds = coalesce($3, visibility_seconds),
             max_attempts = coalesce($4, max_attempts),
             dead_letter_topic_id = CASE WHEN $5 THEN $6 ELSE dead_letter_topic_id END,
             max_in_flight = coalesce($7, max_in_flight), updated_at = coalesce($8, now()),
             fairness_names = CASE WHEN $9 THEN $10 ELSE fairness_names END,
             fairness_weights = CASE WHEN $9 THEN $11 ELSE fairness_weights END
         WHERE tenant_id = $1 AND name = $2
           AND (visibility_seconds, max_attempts, dead_letter_topic_id, max_in_flight, fairness_names, fairness_weights)
               IS DISTINCT FROM
               (coalesce($3, visibility_seconds), coalesce($4, max_attempts),
                CASE WHEN $5 THEN $6 ELSE dead_letter_topic_id END, coalesce($7, max_in_flight),
                CASE WHEN $9 THEN $10 ELSE fairness_names END, CASE WHEN $9 THEN $11 ELSE fairness_weights END)",
    )
    .bind(new.tenant)
    .bind(new.name)
    .bind(new.visibility_seconds.0)
    .bind(new.max_attempts.0)
    .bind(new.dead_letter_topic.is_some())
    .bind(new.dead_letter_topic.flatten())
    .bind(new.max_in_flight.0)
    .bind(now)
    .bind(new.fairness.is_some())
    .bind(new.fairness().0)
    .bind(new.fairness().1)
    .execute(session.run("subscription.update"))
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Finds a subscription by name.
///
/// # Errors
/// When the database does not answer.
pub async fn by_name(
    session: &mut Session,
    tenant: i64,
    name: &str,
) -> Result<Option<SubscriptionRow>, Error> {
    Ok(sqlx::query_as(
        "-- subscription.by_name
         SELECT s.*, t.name AS topic_name, d.name AS dead_letter_topic_name
         FROM subscription s JOIN topic t USING (topic_id) LEFT JOIN topic d ON d.topic_id = s.dead_letter_topic_id
         WHERE s.tenant_id = $1 AND s.name = $2",
    )
    .bind(tenant)
    .bind(name)
    .fetch_optional(session.run("subscription.by_name"))
    .await?)
}

/// Subscriptions of a tenant after a name, in order of name, of those whose names are like one of the patterns.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    session: &mut Session,
    (tenant, like): (i64, &[String]),
    after: &str,
    limit: i64,
) -> Result<Vec<SubscriptionRow>, Error> {
    Ok(sqlx::query_as(
        "-- subscription.list
         SELECT s.*, t.name AS topic_name, d.name AS dead_letter_topic_name
         FROM subscription s JOIN topic t USING (topic_id) LEFT JOIN topic d ON d.topic_id = s.dead_letter_topic_id
         WHERE s.tenant_id = $1 AND s.name > $2 AND s.name LIKE ANY ($4) ORDER BY s.name LIMIT $3",
    )
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .bind(like)
    .fetch_all(session.run("subscription.list"))
    .await?)
}

/// Which of these subscriptions exist; the numbers come from look-ups by tenant.
///
/// # Errors
/// When the database does not answer.
pub async fn existing(session: &mut Session, subscriptions: &[i64]) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar(
        "-- subscription.existing
         SELECT subscription_id FROM subscription WHERE subscription_id = ANY ($1)",
    )
    .bind(subscriptions)
    .fetch_all(session.run("subscription.existing"))
    .await?)
}

/// Names of the subscriptions that read a topic or dead-letter to it, ten at most.
///
/// # Errors
/// When the database does not answer.
pub async fn that_need(session: &mut Session, topic: i64) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar(
        "-- subscription.that_need
         SELECT name FROM subscription WHERE topic_id = $1
         UNION SELECT name FROM subscription WHERE dead_letter_topic_id = $1
         ORDER BY name LIMIT 10",
    )
    .bind(topic)
    .fetch_all(session.run("subscription.that_need"))
    .await?)
}

/// Whether a subscription whose name is like one of the patterns reads a topic.
///
/// # Errors
/// When the database does not answer.
pub async fn is_read_by(session: &mut Session, topic: i64, like: &[String]) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "-- subscription.is_read_by
         SELECT EXISTS (SELECT FROM subscription WHERE topic_id = $1 AND name LIKE ANY ($2))",
    )
    .bind(topic)
    .bind(like)
    .fetch_one(session.run("subscription.is_read_by"))
    .await?)
}

/// Deletes a subscription; its cursors and leases are cleared by the caller.
///
/// # Errors
/// When the database does not answer.
pub async fn delete(session: &mut Session, subscription: i64) -> Result<(), Error> {
    sqlx::query(
        "-- subscription.delete
         DELETE FROM subscription WHERE subscription_id = $1",
    )
    .bind(subscription)
    .execute(session.run("subscription.delete"))
    .await?;
    Ok(())
}

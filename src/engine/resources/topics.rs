//! Topics: put, read, list, delete, and their fill level. A topic that a subscription or an event sink needs cannot be
//! deleted; the error names what needs it.

use api::limits::PAGE;
use api::list::Page;
use api::topic::{Topic, TopicSettings, TopicStats};
use api::{Permission, TopicName};

use crate::engine::Engine;
use crate::engine::access::audit::{self, Change, Nothing};
use crate::engine::access::{Access, Tenant};
use crate::engine::error::Error;
use crate::engine::limit::Policy;
use crate::store;
use crate::store::topic::TopicRow;

impl Engine {
    /// Creates a topic or changes the settings that are given. Returns true when it is new.
    ///
    /// # Errors
    /// When the tenant has too many topics, the topic is deleted at the same moment, or the database is unavailable.
    pub async fn put_topic(
        &self,
        by: &Access,
        name: &TopicName,
        settings: &TopicSettings,
    ) -> Result<(Topic, bool), Error> {
        let tenant = by.tenant();
        let now = self.clock().now();
        let mut tx = self.store().tx("put_topic").await?;
        let mut old = store::topic::lock(&mut tx, tenant.0, name.as_str()).await?;
        let mut created = None;
        if old.is_none() {
            let new = merged(TopicRow::new(tenant.0, name.as_str()), settings);
            created = store::topic::insert(&mut tx, now, &new).await?;
            if created.is_none() {
                // Another transaction has just created the topic, and the insert has waited for that.
                old = store::topic::lock(&mut tx, tenant.0, name.as_str()).await?;
            }
        }
        let (mut row, mut changed) = (created.clone(), false);
        if let Some(row) = &created {
            self.quotas()
                .check_count(&mut tx, tenant, Policy::Topics)
                .await?;
            let lane = store::lane::insert(&mut tx, tenant.0, row.topic_id, 0).await?;
            store::lane_meter::begin(&mut tx, lane, name.as_str(), now).await?;
            store::topic::add_lane(&mut tx, row.topic_id, lane).await?;
        } else if let Some(old) = old {
            let new = merged(old.clone(), settings);
            changed = new != old;
            row = Some(if changed {
                store::topic::update(&mut tx, now, &new).await?
            } else {
                old
            });
        }
        if changed || created.is_some() {
            let change = Change {
                tenant: Some(tenant),
                action: "topic.put",
                target: name.as_str(),
                detail: settings,
            };
            audit::record(&mut tx, by, change, now).await?;
        }
        if changed {
            store::installation::bump_catalog(&mut tx).await?;
        }
        tx.commit().await?;
        // Another transaction has deleted the topic between two statements. The client may retry.
        let row = row.ok_or_else(|| {
            Error::Conflict(format!("topic {name} was deleted at the same moment"))
        })?;
        if changed {
            self.catalog().invalidate();
        }
        Ok((topic(row)?, created.is_some()))
    }

    /// One topic.
    ///
    /// # Errors
    /// When it does not exist, or the database is unavailable.
    pub async fn topic(&self, tenant: Tenant, name: &TopicName) -> Result<Topic, Error> {
        let mut session = self.store().session().await?;
        let row = store::topic::by_name(&mut session, tenant.0, name.as_str()).await?;
        topic(row.ok_or_else(|| Error::not_found("topic", name))?)
    }

    /// A page of the topics that the caller may manage, by name.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn topics(
        &self,
        by: &Access,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Topic>, Error> {
        let limit = limit.clamp(*PAGE.start(), *PAGE.end());
        let mut session = self.store().session().await?;
        let rows = store::topic::list(
            &mut session,
            by.tenant().0,
            &by.like(&[Permission::Manage]),
            after.unwrap_or(""),
            i64::from(limit) + 1,
        )
        .await?;
        let items = rows.into_iter().map(topic).collect::<Result<Vec<_>, _>>()?;
        Ok(crate::engine::page::page(items, limit, |topic| {
            topic.name.to_string()
        }))
    }

    /// Deletes a topic that no subscription and no event sink needs.
    ///
    /// # Errors
    /// When it does not exist, a subscription or an event sink needs it, or the database is unavailable.
    pub async fn delete_topic(&self, by: &Access, name: &TopicName) -> Result<(), Error> {
        let tenant = by.tenant();
        let mut tx = self.store().tx("delete_topic").await?;
        let row = store::topic::lock(&mut tx, tenant.0, name.as_str())
            .await?
            .ok_or_else(|| Error::not_found("topic", name))?;
        let needed_by = store::subscription::that_need(&mut tx, row.topic_id).await?;
        if !needed_by.is_empty() {
            let by = needed_by.join(", ");
            return Err(Error::Conflict(format!(
                "topic {name} is needed by the subscriptions {by}"
            )));
        }
        let needed_by = store::event_sink::that_need(&mut tx, row.topic_id).await?;
        if !needed_by.is_empty() {
            let by = needed_by.join(", ");
            return Err(Error::Conflict(format!(
                "topic {name} is needed by the event sinks {by}"
            )));
        }
        store::lane::close(&mut tx, row.topic_id).await?;
        store::topic::delete(&mut tx, row.topic_id).await?;
        let change = Change {
            tenant: Some(tenant),
            action: "topic.delete",
            target: name.as_str(),
            detail: &Nothing {},
        };
        audit::record(&mut tx, by, change, self.clock().now()).await?;
        store::installation::bump_catalog(&mut tx).await?;
        tx.commit().await?;
        self.catalog().invalidate();
        Ok(())
    }

    /// The number of messages published to a topic and kept in it, and when the oldest was published.
    ///
    /// # Errors
    /// When it does not exist, or the database is unavailable.
    pub async fn topic_stats(&self, tenant: Tenant, name: &TopicName) -> Result<TopicStats, Error> {
        let entry = self.catalog().topic(self.store(), tenant, name).await?;
        let mut session = self.store().session().await?;
        let fill = store::lane::fill(&mut session, entry.row.topic_id).await?;
        Ok(TopicStats {
            published: fill.published.unsigned_abs(),
            kept: fill.kept.unsigned_abs(),
            oldest_published_at: fill.oldest.map(Into::into),
        })
    }
}

/// The row with the settings that are given; the other columns stay.
fn merged(mut row: TopicRow, settings: &TopicSettings) -> TopicRow {
    if let Some(seconds) = settings.retention_seconds {
        row.retention_seconds = seconds.cast_signed();
    }
    if let Some(keep) = settings.keep_consumed {
        row.keep_consumed = keep;
    }
    if let Some(seconds) = settings.dedup_window_seconds {
        row.dedup_window_seconds = seconds.cast_signed();
    }
    row
}

/// A topic as the API shows it.
fn topic(row: TopicRow) -> Result<Topic, Error> {
    let corrupt = |_| store::Error::Corrupt {
        table: "topic",
        column: "name",
        row: row.topic_id.to_string(),
    };
    Ok(Topic {
        name: row.name.clone().try_into().map_err(corrupt)?,
        retention_seconds: row.retention_seconds.unsigned_abs(),
        keep_consumed: row.keep_consumed,
        dedup_window_seconds: row.dedup_window_seconds.unsigned_abs(),
        created_at: row.created_at.into(),
        updated_at: row.updated_at.into(),
    })
}

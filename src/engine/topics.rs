//! Topics: create, change, list, delete. Deleting what others need is refused and says by whom.

use api::limits::{DEDUP_WINDOW_SECONDS_DEFAULT, PAGE, RETENTION_SECONDS_DEFAULT};
use api::list::Page;
use api::topic::{Topic, TopicSettings, TopicStats};
use api::{Permission, TopicName};

use crate::store;
use crate::store::topic::{NewTopic, TopicRow};

use super::access::Access;
use super::audit::{self, Change, Nothing};
use super::error::Error;
use super::limit::Policy;
use super::{Engine, Tenant};

impl Engine {
    /// Creates or updates; true when created.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn put_topic(
        &self,
        by: &Access,
        name: &TopicName,
        settings: &TopicSettings,
    ) -> Result<(Topic, bool), Error> {
        let tenant = by.tenant();
        let new = NewTopic {
            tenant: tenant.0,
            name: name.as_str(),
            retention_seconds: (
                settings.retention_seconds.map(u32::cast_signed),
                RETENTION_SECONDS_DEFAULT.cast_signed(),
            ),
            keep_consumed: settings.keep_consumed,
            dedup_window_seconds: (
                settings.dedup_window_seconds.map(u32::cast_signed),
                DEDUP_WINDOW_SECONDS_DEFAULT.cast_signed(),
            ),
        };
        let now = self.clock().now();
        let mut tx = self.store().tx("put_topic").await?;
        let created = store::topic::insert(&mut tx, now, &new).await?;
        let (mut row, mut changed) = (created.clone(), false);
        match &created {
            Some(row) => {
                self.check_count(&mut tx, tenant, Policy::Topics).await?;
                let lane = store::lane::insert(&mut tx, row.topic_id, 0).await?;
                store::lane_meter::begin(&mut tx, &[lane], now).await?;
            }
            None => {
                row = store::topic::update(&mut tx, now, &new).await?;
                changed = row.is_some();
            }
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
        } else if row.is_none() {
            row = store::topic::by_name(&mut tx, tenant.0, name.as_str()).await?;
        }
        tx.commit().await?;
        // Deleted between the two statements: the client may try again.
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
    /// When it does not exist, or the database does not answer.
    pub async fn topic(&self, tenant: Tenant, name: &TopicName) -> Result<Topic, Error> {
        let mut session = self.store().session().await?;
        let row = store::topic::by_name(&mut session, tenant.0, name.as_str()).await?;
        topic(row.ok_or_else(|| Error::not_found("topic", name))?)
    }

    /// A page of topics by name, of those that the caller may manage.
    ///
    /// # Errors
    /// When the database does not answer.
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
            (by.tenant().0, &by.like(&[Permission::Manage])),
            after.unwrap_or(""),
            i64::from(limit) + 1,
        )
        .await?;
        let items = rows.into_iter().map(topic).collect::<Result<Vec<_>, _>>()?;
        Ok(super::page(items, limit, |topic| topic.name.to_string()))
    }

    /// Deletes a topic nobody needs.
    ///
    /// # Errors
    /// When it does not exist, a subscription or an event sink needs it, or the database does not answer.
    pub async fn delete_topic(&self, by: &Access, name: &TopicName) -> Result<(), Error> {
        let tenant = by.tenant();
        let mut tx = self.store().tx("delete_topic").await?;
        let row = store::topic::lock(&mut tx, tenant.0, name.as_str()).await?;
        let row = row.ok_or_else(|| Error::not_found("topic", name))?;
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
        // What is not counted yet is counted when it is cleared away, under the name of the topic.
        let lanes = store::lane::of_topic(&mut tx, row.topic_id).await?;
        store::lane_meter::begin(&mut tx, &lanes, self.clock().now()).await?;
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

    /// How full it is.
    ///
    /// # Errors
    /// When it does not exist, or the database does not answer.
    pub async fn topic_stats(&self, tenant: Tenant, name: &TopicName) -> Result<TopicStats, Error> {
        let entry = self.catalog().topic(self.store(), tenant, name).await?;
        let mut session = self.store().session().await?;
        let fill = store::topic::fill(&mut session, entry.row.topic_id).await?;
        Ok(TopicStats {
            published: fill.published.unsigned_abs(),
            kept: fill.kept.unsigned_abs(),
            oldest_published_at: fill.oldest.map(Into::into),
        })
    }
}

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

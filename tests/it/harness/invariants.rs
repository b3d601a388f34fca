//! What must hold in the database at any moment, in SQL. Every test ends with it.

use cursus::store::hot_payload::SLOTS;
use cursus::store::turn::PART_BYTES;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// A query that finds what must not be; its first column names what it found.
struct Rule {
    name: &'static str,
    sql: String,
}

/// Panics with all that is wrong.
pub(crate) async fn check_invariants(connection: &mut PgConnection) {
    let mut wrong = Vec::new();
    // One snapshot for all.
    for begin in ["BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        sqlx::query(begin).execute(&mut *connection).await.unwrap();
    }
    for rule in rules() {
        let found = sqlx::query(AssertSqlSafe(rule.sql))
            .fetch_all(&mut *connection)
            .await;
        for row in found.unwrap().iter().take(5) {
            wrong.push(format!("{}: {}", rule.name, row.get::<String, _>(0)));
        }
    }
    sqlx::query("ROLLBACK")
        .execute(&mut *connection)
        .await
        .unwrap();
    assert!(
        wrong.is_empty(),
        "invariants are broken:\n{}",
        wrong.join("\n")
    );
}

#[expect(clippy::too_many_lines, reason = "a list: one rule after the other")]
fn rules() -> Vec<Rule> {
    let rule = |name, sql: &str| Rule {
        name,
        sql: sql.to_owned(),
    };
    vec![
        rule(
            "I2: a lease holds a message that is still ahead of the cursor",
            "SELECT format('lane %s subscription %s lease %s', l.lane_id, l.subscription_id, l.lease_id)
             FROM lease l
             JOIN cursor c ON c.lane_id = l.lane_id AND c.subscription_id = l.subscription_id
             CROSS JOIN generate_series(0, 63) AS bit
             WHERE (l.pending >> bit) & 1 = 1 AND l.base + bit >= c.next_offset",
        ),
        rule(
            "I2: two leases of a subscription hold the same message",
            "SELECT format('lane %s subscription %s offset %s', l.lane_id, l.subscription_id, l.base + bit)
             FROM lease l CROSS JOIN generate_series(0, 63) AS bit
             WHERE (l.pending >> bit) & 1 = 1
             GROUP BY l.lane_id, l.subscription_id, l.base + bit HAVING count(*) > 1",
        ),
        rule(
            "I2: a lease without messages",
            "SELECT format('lane %s subscription %s lease %s', lane_id, subscription_id, lease_id) FROM lease WHERE pending = 0",
        ),
        rule(
            "a lease has no attempt left and is not listed as such",
            "SELECT format('lane %s subscription %s lease %s', l.lane_id, l.subscription_id, l.lease_id)
             FROM lease l JOIN subscription s USING (subscription_id)
             WHERE NOT l.waiting AND s.dead_letter_topic_id IS NOT NULL AND l.attempt >= s.max_attempts
               AND NOT EXISTS (SELECT FROM last_attempt a WHERE a.lane_id = l.lane_id AND a.lease_id = l.lease_id
                                 AND a.subscription_id = l.subscription_id AND a.due_at <= l.deadline)",
        ),
        rule(
            "I2: a lease without its subscription's cursor",
            "SELECT format('lane %s subscription %s lease %s', l.lane_id, l.subscription_id, l.lease_id) FROM lease l
             JOIN subscription s USING (subscription_id)
             WHERE NOT EXISTS (SELECT FROM cursor c WHERE c.lane_id = l.lane_id AND c.subscription_id = l.subscription_id)",
        ),
        rule(
            "I2: a waiting lease was handed out, or has no order key",
            "SELECT format('lane %s subscription %s lease %s', lane_id, subscription_id, lease_id) FROM lease
             WHERE waiting AND (attempt <> 0 OR part <> 0 OR delayed OR order_key IS NULL)",
        ),
        rule(
            "a fair order knows of less than waits",
            "SELECT format('lane %s subscription %s key %s: %s messages in %s leases, not %s in %s', w.lane_id,
                           w.subscription_id, w.order_key, w.messages, w.leases, f.waiting, f.runs)
             FROM (SELECT lane_id, subscription_id, order_key, sum(bit_count(pending::bit(64))) AS messages,
                          count(*) AS leases
                   FROM lease WHERE waiting GROUP BY 1, 2, 3) w
             JOIN subscription s USING (subscription_id)
             LEFT JOIN (SELECT lane_id, subscription_id, u.waiting, u.runs,
                               CASE WHEN u.name IS NULL THEN u.slot
                                    ELSE ('x' || encode(substring(sha256(convert_to(u.name, 'UTF8')) FOR 8), 'hex'))::bit(64)::bigint
                                         & 9223372036854775807 END AS order_key
                        FROM fairness CROSS JOIN unnest(slots, names, waiting, runs) AS u (slot, name, waiting, runs)) f
                 ON f.lane_id = w.lane_id AND f.subscription_id = w.subscription_id AND f.order_key = w.order_key
             WHERE coalesce(f.waiting, 0) < w.messages OR coalesce(f.runs, 0) < w.leases",
        ),
        rule(
            "a lane has two fair orders for a subscription, or one without a subscription",
            "SELECT format('lane %s subscription %s', f.lane_id, f.subscription_id)
             FROM fairness f LEFT JOIN subscription s USING (subscription_id)
             GROUP BY f.lane_id, f.subscription_id HAVING count(*) > 1 OR count(s.subscription_id) = 0",
        ),
        rule(
            "I2: a lane is not read by a subscription of its topic, or twice",
            "SELECT format('lane %s subscription %s: %s cursors', l.lane_id, s.subscription_id, count(c.lane_id))
             FROM lane l JOIN subscription s ON s.topic_id = l.topic_id
             LEFT JOIN cursor c ON c.lane_id = l.lane_id AND c.subscription_id = s.subscription_id
             WHERE NOT l.closed GROUP BY l.lane_id, s.subscription_id HAVING count(c.lane_id) <> 1",
        ),
        rule(
            "I2: a cursor is outside of its lane",
            "SELECT format('lane %s subscription %s at %s of %s to %s', c.lane_id, c.subscription_id, c.next_offset,
                           l.start_offset, coalesce(b.until, l.start_offset))
             FROM cursor c JOIN lane l USING (lane_id)
             LEFT JOIN (SELECT lane_id, max(first_offset + count) AS until FROM block GROUP BY lane_id) b USING (lane_id)
             WHERE NOT l.closed AND c.next_offset NOT BETWEEN l.start_offset AND coalesce(b.until, l.start_offset)",
        ),
        rule(
            "I4: a lane has a gap or an overlap, or does not begin at its start",
            "SELECT format('lane %s: %s after %s', b.lane_id, b.first_offset, b.before)
             FROM (SELECT k.lane_id, k.first_offset, coalesce(lag(k.first_offset + k.count)
                              OVER (PARTITION BY k.lane_id ORDER BY k.first_offset), l.start_offset) AS before
                   FROM block k JOIN lane l USING (lane_id)) b
             WHERE b.first_offset <> b.before",
        ),
        rule(
            "I4: the time of publication falls along a lane",
            "SELECT format('lane %s: %s', b.lane_id, b.first_offset)
             FROM (SELECT lane_id, first_offset, published_at,
                          lag(published_at) OVER (PARTITION BY lane_id ORDER BY first_offset) AS before FROM block) b
             WHERE b.published_at < b.before",
        ),
        rule(
            "a block without its lane",
            "SELECT format('lane %s: %s', lane_id, first_offset) FROM block b
             WHERE NOT EXISTS (SELECT FROM lane l WHERE l.lane_id = b.lane_id)",
        ),
        rule(
            "a block has values that no block has",
            "SELECT format('lane %s: %s', lane_id, first_offset) FROM block
             WHERE first_offset < 0 OR count <= 0 OR bytes <= 0 OR slot NOT BETWEEN 0 AND 7 OR object_offset < 0
                OR (slot IS NULL) <> (object_id IS NOT NULL) OR (object_id IS NULL) <> (object_offset IS NULL)
                OR units < 0 OR elastic_units NOT BETWEEN 0 AND units OR message_bytes < 0",
        ),
        // At most 63 splits of 64 messages, and one makes two new parts at most for each row more.
        rule(
            "a lease has values that no lease has",
            "SELECT format('lane %s subscription %s lease %s', lane_id, subscription_id, lease_id) FROM lease
             WHERE base < 0 OR attempt < 0 OR part NOT BETWEEN 0 AND 126",
        ),
        rule(
            "a cursor has values that no cursor has",
            "SELECT format('lane %s subscription %s', lane_id, subscription_id) FROM cursor
             WHERE version < 0 OR next_offset < 0",
        ),
        rule(
            "a topic does not list its lanes in order",
            "SELECT format('topic %s: %s', t.topic_id, t.lanes) FROM topic t
             WHERE t.lanes <> ARRAY(SELECT l.lane_id FROM lane l WHERE l.topic_id = t.topic_id
                                    ORDER BY l.number)",
        ),
        rule(
            "I8: a lane has no meter, or not that of its tenant, or one of the system has a meter",
            "SELECT format('lane %s', l.lane_id) FROM lane l LEFT JOIN lane_meter m USING (lane_id)
             WHERE m.tenant_id IS DISTINCT FROM nullif(l.tenant_id, -2)",
        ),
        rule("I5: a hot payload is missing or not whole", &hot()),
        rule(
            "I5: an object is missing, or too short for a block in it",
            "SELECT format('lane %s: %s in object %s', b.lane_id, b.first_offset, b.object_id)
             FROM block b LEFT JOIN object o USING (object_id)
             WHERE b.object_id IS NOT NULL AND (o.bytes IS NULL OR o.deleted_at IS NOT NULL OR b.object_offset + b.bytes > o.bytes)",
        ),
        rule(
            "I5: two blocks share bytes of an object",
            "SELECT format('lane %s: %s in object %s', b.lane_id, b.first_offset, b.object_id)
             FROM (SELECT *, lag(object_offset + bytes) OVER (PARTITION BY object_id ORDER BY object_offset) AS before
                   FROM block WHERE object_id IS NOT NULL) b
             WHERE b.object_offset < b.before",
        ),
        rule(
            "I8: a lane is counted beyond its end, or blocks went that were not counted",
            "SELECT format('lane %s counted to %s of %s to %s', m.lane_id, m.metered_offset, l.start_offset,
                           coalesce(b.until, l.start_offset))
             FROM lane_meter m LEFT JOIN lane l USING (lane_id)
             LEFT JOIN (SELECT lane_id, max(first_offset + count) AS until FROM block GROUP BY lane_id) b USING (lane_id)
             WHERE l.lane_id IS NULL OR m.metered_offset NOT BETWEEN l.start_offset AND coalesce(b.until, l.start_offset)
                OR m.messages_total <> m.metered_offset - m.began_offset",
        ),
        rule(
            "I8: what a lane is said to store is not what its counted blocks have",
            "SELECT format('lane %s: %s hot, %s in objects', m.lane_id, m.hot_bytes, m.object_bytes)
             FROM lane_meter m LEFT JOIN block b ON b.lane_id = m.lane_id AND b.first_offset < m.metered_offset
             GROUP BY m.lane_id
             HAVING m.hot_bytes <> coalesce(sum(b.bytes) FILTER (WHERE b.slot IS NOT NULL), 0)
                 OR m.object_bytes <> coalesce(sum(b.bytes) FILTER (WHERE b.slot IS NULL), 0)",
        ),
        rule(
            "I8: the published usage of a tenant is not what was counted in its lanes",
            "SELECT format('tenant %s: %s messages and %s units, in its lanes %s and %s', tenant_id, u.messages, u.units,
                           l.messages, l.units)
             FROM (SELECT tenant_id, sum(messages) AS messages, sum(units) AS units
                   FROM (SELECT tenant_id, meter, messages, units FROM usage_minute
                         UNION ALL SELECT tenant_id, meter, messages, units FROM usage_hour
                         UNION ALL SELECT tenant_id, meter, messages, units FROM usage_day) a
                   WHERE meter IN ('publish', 'dead_letter') GROUP BY tenant_id) u
             FULL JOIN (SELECT tenant_id, sum(messages_total) AS messages, sum(units_total) AS units
                        FROM (SELECT tenant_id, messages_total, units_total FROM lane_meter
                              UNION ALL SELECT tenant_id, messages_total, units_total FROM tenant_meter) a
                        GROUP BY tenant_id HAVING sum(messages_total) > 0) l USING (tenant_id)
             WHERE (u.messages, u.units) IS DISTINCT FROM (l.messages, l.units)",
        ),
        rule(
            "I8: the capacity that is metered of a tenant is not what it is guaranteed",
            "SELECT format('tenant %s: %s of %s', tenant_id, m.guaranteed, q.messages_guaranteed)
             FROM (SELECT tenant_id, messages_guaranteed FROM quota WHERE messages_guaranteed > 0) q
             FULL JOIN capacity_meter m USING (tenant_id)
             WHERE m.guaranteed IS DISTINCT FROM q.messages_guaranteed",
        ),
        rule(
            "a tenant is stopped, and no budget of it may do that",
            "SELECT format('tenant %s until %s', q.tenant_id, q.stopped_until) FROM quota q
             WHERE q.stopped_until IS NOT NULL
               AND NOT EXISTS (SELECT FROM budget b WHERE b.tenant_id = q.tenant_id AND b.hard_stop)",
        ),
        rule(
            "events: usage of a window that is not over waits, or more waits than may",
            "SELECT format('sink %s: %s', s.sink_id, o.event) FROM event_sink s JOIN event_outbox o USING (sink_id)
             WHERE o.event LIKE '%cursus.usage%'
               AND (o.event::jsonb #>> '{data,end}')::timestamptz
                   > s.next_window + coalesce(s.begun_seconds, 0) * interval '1 second'
             UNION ALL
             SELECT format('sink %s: %s wait', sink_id, count(*)) FROM event_outbox GROUP BY sink_id HAVING count(*) > 12000",
        ),
        rule(
            "events: a sink publishes to a topic of another tenant, or it is to be signed for and cannot be",
            "SELECT format('sink %s', s.sink_id) FROM event_sink s LEFT JOIN topic t USING (topic_id)
             WHERE t.tenant_id <> s.tenant_id OR (s.url IS NULL) <> (s.secret IS NULL)",
        ),
        rule(
            "events: a sink has not the subscription of its own, or the system has one without a sink",
            "SELECT format('sink %s subscription %s', k.sink_id, s.subscription_id)
             FROM (SELECT * FROM event_sink WHERE url IS NOT NULL) k
             FULL JOIN (SELECT * FROM subscription WHERE tenant_id = -2) s USING (subscription_id)
             WHERE k.sink_id IS NULL OR (k.subscription_id IS NOT NULL AND s.name IS DISTINCT FROM 'sink-' || k.sink_id)
             UNION ALL
             SELECT format('topic %s', t.topic_id) FROM topic t LEFT JOIN subscription s USING (topic_id)
             WHERE t.tenant_id = -2 AND s.subscription_id IS NULL
             UNION ALL
             SELECT format('sink %s at %s', o.sink_id, o.published_offset) FROM event_outbox o
             JOIN event_sink k USING (sink_id) WHERE o.published_offset IS NOT NULL AND k.subscription_id IS NULL",
        ),
        rule(
            "events: usage, a quota or a budget of the system",
            "SELECT format('tenant %s', tenant_id)
             FROM (SELECT tenant_id FROM usage_minute UNION ALL SELECT tenant_id FROM usage_hour
                   UNION ALL SELECT tenant_id FROM usage_day UNION ALL SELECT tenant_id FROM quota
                   UNION ALL SELECT tenant_id FROM budget UNION ALL SELECT tenant_id FROM api_key) a
             WHERE tenant_id = -2",
        ),
        rule(
            "events: minutes are rolled up in the middle of an hour that a sink is in",
            "SELECT format('sink %s at %s', s.sink_id, s.next_window) FROM event_sink s
             JOIN usage_hour h ON h.at = date_trunc('hour', s.next_window) AND h.meter = 'publish'
             WHERE s.next_window > date_trunc('hour', s.next_window) AND (s.all_tenants OR s.tenant_id = h.tenant_id)
               AND s.created_at < h.at",
        ),
        rule(
            "a block has no place, or two",
            "SELECT format('lane %s: %s', lane_id, first_offset) FROM block
             WHERE (slot IS NULL) = (object_id IS NULL) OR (object_id IS NULL) <> (object_offset IS NULL)",
        ),
    ]
}

/// Blocks in a slot of which the parts do not make up the payload.
fn hot() -> String {
    let slots: Vec<String> = (0..SLOTS)
        .map(|slot| format!("SELECT {slot} AS slot, lane_id, first_offset, part, length(data) AS bytes FROM hot_payload_{slot}"))
        .collect();
    format!(
        "SELECT format('lane %s: %s in slot %s has %s of %s bytes', b.lane_id, b.first_offset, b.slot,
                       coalesce(sum(h.bytes), 0), b.bytes)
         FROM block b
         LEFT JOIN ({}) h ON h.slot = b.slot AND h.lane_id = b.lane_id AND h.first_offset = b.first_offset
         WHERE b.slot IS NOT NULL
         GROUP BY b.lane_id, b.first_offset
         HAVING coalesce(sum(h.bytes), 0) <> b.bytes OR count(h.part) <> max(h.part) + 1
             OR min(h.part) < 0 OR max(h.bytes) > {PART_BYTES}",
        slots.join(" UNION ALL ")
    )
}

-- Metering: what is published is measured in the block itself, so that it commits with the messages; a duty adds blocks up
-- by minute, exactly once; other meters are flushed by the nodes; minutes roll up into hours and hours into days.
--
-- Locks are taken in the order lane_meter (in order of lane), usage_hour (storage only), lanes, leases, cursors, blocks,
-- usage_minute, tenant_meter. Roll-ups go from finer to coarser, and minutes know no storage, so nothing waits in a circle;
-- where a late minute meets its roll-up in another order of rows the database ends one, which is tried again.
--
-- While nodes of the version before are still up their blocks (turn_1) have units = 0 and are free; what they move to object
-- storage or delete is missed by hot_bytes and object_bytes until these blocks are gone.

CREATE TABLE lane_meter (
    lane_id             bigint PRIMARY KEY,
    tenant_id           bigint NOT NULL,
    topic               text COLLATE "C" NOT NULL CHECK (length(topic) BETWEEN 1 AND 128),
    began_offset        bigint NOT NULL CHECK (began_offset >= 0),
    metered_offset      bigint NOT NULL CHECK (metered_offset >= began_offset),
    messages_total      bigint NOT NULL DEFAULT 0 CHECK (messages_total >= 0),
    units_total         bigint NOT NULL DEFAULT 0 CHECK (units_total >= 0),
    hot_bytes           bigint NOT NULL DEFAULT 0 CHECK (hot_bytes >= 0),
    object_bytes        bigint NOT NULL DEFAULT 0 CHECK (object_bytes >= 0),
    hot_byte_seconds    numeric NOT NULL DEFAULT 0 CHECK (hot_byte_seconds >= 0),
    object_byte_seconds numeric NOT NULL DEFAULT 0 CHECK (object_byte_seconds >= 0),
    sampled_at          timestamptz NOT NULL,
    posted_at           timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE lane_meter IS 'How far a lane''s blocks are counted, and what it stores; whoever deletes or moves its blocks locks its row first (I8)';
COMMENT ON COLUMN lane_meter.lane_id IS 'the lane';
COMMENT ON COLUMN lane_meter.tenant_id IS 'who pays';
COMMENT ON COLUMN lane_meter.topic IS 'name of its topic, which it may outlive';
COMMENT ON COLUMN lane_meter.began_offset IS 'where counting began';
COMMENT ON COLUMN lane_meter.metered_offset IS 'blocks below it are counted, each once';
COMMENT ON COLUMN lane_meter.messages_total IS 'messages counted';
COMMENT ON COLUMN lane_meter.units_total IS 'units counted; with tenant_meter it is what all published usage of the tenant adds up to';
COMMENT ON COLUMN lane_meter.hot_bytes IS 'bytes of its counted blocks in hot slots, as stored';
COMMENT ON COLUMN lane_meter.object_bytes IS 'bytes of its counted blocks in object storage, as stored';
COMMENT ON COLUMN lane_meter.hot_byte_seconds IS 'hot_bytes over time up to sampled_at, since it was last posted to usage_hour; all of the hour of sampled_at';
COMMENT ON COLUMN lane_meter.object_byte_seconds IS 'the same of object_bytes';
COMMENT ON COLUMN lane_meter.sampled_at IS 'until when the byte-seconds go';
COMMENT ON COLUMN lane_meter.posted_at IS 'when they were last posted';

INSERT INTO lane_meter (lane_id, tenant_id, topic, began_offset, metered_offset, sampled_at, posted_at)
SELECT l.lane_id, t.tenant_id, t.name, l.start_offset, l.start_offset, now(), now()
FROM lane l JOIN topic t USING (topic_id);

CREATE TABLE tenant_meter (
    tenant_id      bigint PRIMARY KEY,
    messages_total bigint NOT NULL CHECK (messages_total >= 0),
    units_total    bigint NOT NULL CHECK (units_total >= 0)
);
COMMENT ON TABLE tenant_meter IS 'What was counted in lanes that are gone: taken over from lane_meter, so that bills can be checked';
COMMENT ON COLUMN tenant_meter.tenant_id IS 'who pays';
COMMENT ON COLUMN tenant_meter.messages_total IS 'messages counted';
COMMENT ON COLUMN tenant_meter.units_total IS 'units counted';

-- No foreign keys: usage outlives what it names.

CREATE TABLE usage_minute (
    tenant_id     bigint NOT NULL,
    at            timestamptz NOT NULL,
    meter         text COLLATE "C" NOT NULL
        CHECK (meter IN ('publish', 'dead_letter', 'deliver_pull', 'deliver_push', 'deliver_stream', 'cold_read')),
    topic         text COLLATE "C" NOT NULL CHECK (length(topic) <= 128),
    subscription  text COLLATE "C" NOT NULL CHECK (length(subscription) <= 128),
    units         bigint NOT NULL CHECK (units >= 0),
    elastic_units bigint NOT NULL CHECK (elastic_units BETWEEN 0 AND units),
    messages      bigint NOT NULL CHECK (messages >= 0),
    bytes         bigint NOT NULL CHECK (bytes >= 0),
    -- also serves reading a tenant's usage in order of time
    PRIMARY KEY (tenant_id, at, meter, topic, subscription)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- serves: rolling up what is old, of all tenants
CREATE INDEX usage_minute_at ON usage_minute (at);
COMMENT ON TABLE usage_minute IS 'Usage by minute; older minutes are in usage_hour, never in both';
COMMENT ON COLUMN usage_minute.tenant_id IS 'who pays';
COMMENT ON COLUMN usage_minute.at IS 'start of the minute: of publication, or when a node flushed what it counted';
COMMENT ON COLUMN usage_minute.meter IS 'what was used';
COMMENT ON COLUMN usage_minute.topic IS 'name of the topic; empty when a node had too many names to keep';
COMMENT ON COLUMN usage_minute.subscription IS 'name of the subscription; empty where there is none';
COMMENT ON COLUMN usage_minute.units IS 'metering units';
COMMENT ON COLUMN usage_minute.elastic_units IS 'of these, units above the tenant''s guarantee';
COMMENT ON COLUMN usage_minute.messages IS 'messages; 0 of cold reads';
COMMENT ON COLUMN usage_minute.bytes IS 'bytes of these messages, attributes included; of cold reads bytes read from object storage';

CREATE TABLE usage_hour (
    tenant_id     bigint NOT NULL,
    at            timestamptz NOT NULL,
    meter         text COLLATE "C" NOT NULL
        CHECK (meter IN ('publish', 'dead_letter', 'deliver_pull', 'deliver_push', 'deliver_stream', 'cold_read',
                         'stored_hot', 'stored_object')),
    topic         text COLLATE "C" NOT NULL CHECK (length(topic) <= 128),
    subscription  text COLLATE "C" NOT NULL CHECK (length(subscription) <= 128),
    units         bigint NOT NULL CHECK (units >= 0),
    elastic_units bigint NOT NULL CHECK (elastic_units BETWEEN 0 AND units),
    messages      bigint NOT NULL CHECK (messages >= 0),
    bytes         bigint NOT NULL CHECK (bytes >= 0),
    byte_seconds  numeric NOT NULL CHECK (byte_seconds >= 0),
    -- also serves reading a tenant's usage in order of time
    PRIMARY KEY (tenant_id, at, meter, topic, subscription)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- serves: rolling up what is old, of all tenants
CREATE INDEX usage_hour_at ON usage_hour (at);
COMMENT ON TABLE usage_hour IS 'Usage by hour, of storage from the start, of the rest when its minutes are old; older hours are in usage_day, never in both';
COMMENT ON COLUMN usage_hour.tenant_id IS 'who pays';
COMMENT ON COLUMN usage_hour.at IS 'start of the hour';
COMMENT ON COLUMN usage_hour.meter IS 'what was used';
COMMENT ON COLUMN usage_hour.topic IS 'name of the topic; empty when a node had too many names to keep';
COMMENT ON COLUMN usage_hour.subscription IS 'name of the subscription; empty where there is none';
COMMENT ON COLUMN usage_hour.units IS 'metering units';
COMMENT ON COLUMN usage_hour.elastic_units IS 'of these, units above the tenant''s guarantee';
COMMENT ON COLUMN usage_hour.messages IS 'messages';
COMMENT ON COLUMN usage_hour.bytes IS 'bytes';
COMMENT ON COLUMN usage_hour.byte_seconds IS 'of storage: bytes stored over time; 0 of the rest';

CREATE TABLE usage_day (LIKE usage_hour INCLUDING CONSTRAINTS INCLUDING COMMENTS INCLUDING STORAGE);
-- also serves reading a tenant's usage in order of time
ALTER TABLE usage_day ADD PRIMARY KEY (tenant_id, at, meter, topic, subscription);
-- serves: deleting what nobody has to keep any more, of all tenants
CREATE INDEX usage_day_at ON usage_day (at);
COMMENT ON TABLE usage_day IS 'Usage by day, when its hours are old';
COMMENT ON COLUMN usage_day.at IS 'start of the day, UTC';

CREATE TABLE usage_flush (
    node_id    uuid PRIMARY KEY,
    sequence   bigint NOT NULL CHECK (sequence > 0),
    flushed_at timestamptz NOT NULL
);
-- serves: forgetting nodes that are long gone
CREATE INDEX usage_flush_at ON usage_flush (flushed_at);
COMMENT ON TABLE usage_flush IS 'The last flush of each node: one that is tried again after its answer was lost counts once (I8)';
COMMENT ON COLUMN usage_flush.node_id IS 'the node, new at every start';
COMMENT ON COLUMN usage_flush.sequence IS 'number of its last flush, from 1';
COMMENT ON COLUMN usage_flush.flushed_at IS 'when that was';

CREATE TABLE metering (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    metered_until timestamptz NOT NULL
);
COMMENT ON TABLE metering IS 'How far published usage is complete; one row';
COMMENT ON COLUMN metering.metered_until IS 'all that was published before is counted';

-- Last, because nobody publishes while it is locked.
ALTER TABLE block
    ADD COLUMN units         integer NOT NULL DEFAULT 0,
    ADD COLUMN elastic_units integer NOT NULL DEFAULT 0,
    ADD COLUMN message_bytes bigint  NOT NULL DEFAULT 0,
    -- Not validated: that would read every block there is, and the defaults satisfy it.
    ADD CONSTRAINT block_usage CHECK (units >= 0 AND elastic_units BETWEEN 0 AND units AND message_bytes >= 0) NOT VALID;
COMMENT ON COLUMN block.units IS 'metering units of its messages: one per started 64 KiB each; 0: dead letters, which the service moved, or not metered';
COMMENT ON COLUMN block.elastic_units IS 'of these, units above the tenant''s guarantee';
COMMENT ON COLUMN block.message_bytes IS 'bytes of its messages before compression, attributes included; 0: not metered';

-- turn_1 with what the blocks are measured by; otherwise the same to the word (see 0002_turn.sql).
CREATE FUNCTION turn_2(
    p_now           timestamptz,
    -- publishes: one block per lane at most, sorted by lane
    b_lane          bigint[],
    b_count         integer[],
    b_bytes         bigint[],
    b_compressed    boolean[],
    b_slot          smallint[],
    b_object        bigint[],
    b_units         integer[],
    b_elastic       integer[],
    b_message_bytes bigint[],
    -- parts of hot payloads: position of the block in b_lane (from 1), number of the part, data
    p_slot          smallint,
    h_block         integer[],
    h_part          integer[],
    h_data          bytea[],
    -- settles, one per lease, sorted by lane, subscription, lease; mask of the bits to clear
    s_lane          bigint[],
    s_subscription  bigint[],
    s_lease         bigint[],
    s_mask          bigint[],
    -- claims, one per lane and subscription, sorted
    c_lane          bigint[],
    c_subscription  bigint[],
    c_wanted        integer[],
    c_visibility    integer[],
    OUT at              timestamptz, -- the database's time of this turn
    OUT first_offsets   bigint[],    -- per block; null where the lane is gone or closed
    OUT settled_lease   bigint[],    -- leases found …
    OUT settled_bits    bigint[],    -- … and the bits that were pending and now are settled
    OUT tried           integer[],   -- claims (from 1) whose cursor was free
    OUT gone            integer[],   -- claims (from 1) that have no cursor: the subscription is deleted
    OUT leased_lane     bigint[],    -- leases made …
    OUT leased_sub      bigint[],
    OUT leased_base     bigint[],
    OUT leased_pending  bigint[],
    OUT leased_id       bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    found_at  tid[];    -- leases to settle, locked …
    left_bits bigint[]; -- … and what remains pending in each
BEGIN
    IF b_lane <> '{}' THEN
        PERFORM l.lane_id
        FROM unnest(b_lane) AS b (lane_id)
        CROSS JOIN LATERAL (SELECT x.lane_id FROM lane x WHERE x.lane_id = b.lane_id FOR UPDATE) l;
    END IF;
    at := coalesce(p_now, clock_timestamp());

    IF b_lane <> '{}' THEN
        SELECT array_agg(
            CASE WHEN l.closed THEN NULL ELSE coalesce(
                (SELECT k.first_offset + k.count FROM block k
                 WHERE k.lane_id = b.lane_id ORDER BY k.first_offset DESC LIMIT 1),
                l.start_offset
            ) END ORDER BY b.ordinal)
        INTO first_offsets
        FROM unnest(b_lane) WITH ORDINALITY AS b (lane_id, ordinal)
        LEFT JOIN LATERAL (SELECT x.closed, x.start_offset FROM lane x WHERE x.lane_id = b.lane_id) l ON true;

        INSERT INTO block (lane_id, first_offset, count, bytes, compressed, published_at, slot, object_id, object_offset,
                           units, elastic_units, message_bytes)
        SELECT b.lane_id, b.first_offset, b.count, b.bytes, b.compressed, at, b.slot, b.object_id,
               CASE WHEN b.object_id IS NOT NULL THEN 0 END, b.units, b.elastic, b.message_bytes
        FROM unnest(b_lane, first_offsets, b_count, b_bytes, b_compressed, b_slot, b_object, b_units, b_elastic, b_message_bytes)
            AS b (lane_id, first_offset, count, bytes, compressed, slot, object_id, units, elastic, message_bytes)
        WHERE b.first_offset IS NOT NULL;

        IF h_block <> '{}' THEN
            -- One statement per slot: a table's name cannot be a parameter of a prepared plan.
            CASE p_slot
                WHEN 0 THEN
                    INSERT INTO hot_payload_0 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                WHEN 1 THEN
                    INSERT INTO hot_payload_1 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                WHEN 2 THEN
                    INSERT INTO hot_payload_2 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                WHEN 3 THEN
                    INSERT INTO hot_payload_3 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                WHEN 4 THEN
                    INSERT INTO hot_payload_4 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                WHEN 5 THEN
                    INSERT INTO hot_payload_5 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                WHEN 6 THEN
                    INSERT INTO hot_payload_6 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                WHEN 7 THEN
                    INSERT INTO hot_payload_7 (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
            END CASE;
        END IF;
    END IF;

    IF s_lane <> '{}' THEN
        SELECT array_agg(l.row_at), array_agg(s.lease_id), array_agg(l.pending & s.mask), array_agg(l.pending & ~s.mask)
        INTO found_at, settled_lease, settled_bits, left_bits
        FROM unnest(s_lane, s_subscription, s_lease, s_mask) AS s (lane_id, subscription_id, lease_id, mask)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS row_at, x.pending FROM lease x
            WHERE x.lane_id = s.lane_id AND x.subscription_id = s.subscription_id AND x.lease_id = s.lease_id AND x.part = 0
            FOR UPDATE
        ) l;

        UPDATE lease l SET pending = s.pending
        FROM unnest(found_at, left_bits) AS s (row_at, pending)
        WHERE l.ctid = s.row_at AND s.pending <> 0 AND l.pending <> s.pending;

        DELETE FROM lease l
        USING unnest(found_at, left_bits) AS s (row_at, pending)
        WHERE l.ctid = s.row_at AND s.pending = 0;
    END IF;

    IF c_lane <> '{}' THEN
        WITH attempt AS MATERIALIZED (
            SELECT c.ordinal, c.lane_id, c.subscription_id, c.visibility, u.row_at, u.next_offset AS base,
                   -- A lane without blocks ends where the cursor is; least() alone would pass over the missing end.
                   least(u.next_offset + c.wanted, coalesce(e.next_offset, u.next_offset)) AS until
            FROM unnest(c_lane, c_subscription, c_wanted, c_visibility) WITH ORDINALITY
                AS c (lane_id, subscription_id, wanted, visibility, ordinal)
            CROSS JOIN LATERAL (
                SELECT x.ctid AS row_at, x.next_offset FROM cursor x
                WHERE x.lane_id = c.lane_id AND x.subscription_id = c.subscription_id
                ORDER BY x.version DESC LIMIT 1
                FOR UPDATE SKIP LOCKED
            ) u
            LEFT JOIN LATERAL (
                SELECT k.first_offset + k.count AS next_offset FROM block k
                WHERE k.lane_id = c.lane_id ORDER BY k.first_offset DESC LIMIT 1
            ) e ON true
        ), moved AS (
            -- If another node moved the cursor since this snapshot, its new version is locked above and missed here: the
            -- claim gets nothing and is tried again.
            UPDATE cursor x
            SET next_offset = a.until, version = x.version + 1
            FROM attempt a
            WHERE x.ctid = a.row_at AND a.until > a.base
            RETURNING a.lane_id, a.subscription_id, a.base, a.until, a.visibility
        ), leased AS (
            INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed)
            SELECT m.lane_id, m.subscription_id, nextval('lease_id_seq'), 0, g.base,
                   -- Not 2^n - 1, which overflows on the way to 63 bits.
                   CASE WHEN m.until - g.base >= 64 THEN -1 ELSE ~((-1)::bigint << (m.until - g.base)::integer) END,
                   at + m.visibility * interval '1 second', 1, false
            FROM moved m
            CROSS JOIN LATERAL generate_series(m.base, m.until - 1, 64) AS g (base)
            RETURNING lane_id, subscription_id, base, pending, lease_id
        )
        SELECT (SELECT array_agg(a.ordinal::integer) FROM attempt a
                WHERE a.until > a.base IS NOT TRUE
                   OR EXISTS (SELECT FROM moved m WHERE m.lane_id = a.lane_id AND m.subscription_id = a.subscription_id)),
               array_agg(d.lane_id), array_agg(d.subscription_id),
               array_agg(d.base), array_agg(d.pending), array_agg(d.lease_id)
        INTO tried, leased_lane, leased_sub, leased_base, leased_pending, leased_id
        FROM leased d;

        IF coalesce(cardinality(tried), 0) < cardinality(c_lane) THEN
            SELECT array_agg(c.ordinal::integer)
            INTO gone
            FROM unnest(c_lane, c_subscription) WITH ORDINALITY AS c (lane_id, subscription_id, ordinal)
            LEFT JOIN LATERAL (
                SELECT x.version FROM cursor x
                WHERE x.lane_id = c.lane_id AND x.subscription_id = c.subscription_id ORDER BY x.version DESC LIMIT 1
            ) u ON true
            WHERE u.version IS NULL;
        END IF;
    END IF;
END
$$;

-- The turn: what a node commits at once, in one call, so that it costs one round trip and one commit. It carries the
-- publishes, settles and claims that gathered while the last turn of the same loop was committing.
--
-- This file is a template, and the only text of the turn. The migrator (src/store/migrate.rs) installs it as functions with
-- the number of its version in their names, so that nodes of two versions run side by side. A change of this text is a new
-- VERSION (src/store/turn.rs) and a new line in migrations/TURNS; a test holds the three together. What stands between
-- `for slot` and `end` in braces is repeated for each table hot_payload_<slot>: the name of a table cannot be a parameter of
-- a prepared plan.
--
-- Steps. The order in which a turn works is the order of its locks:
--   1. publish: lock the lanes, read the time, read where each lane ends, insert blocks and payloads;
--   2. settle: lock the leases, clear their bits, delete those that are empty;
--   3. claim: lock the cursors, move them, insert leases.
--
-- Snapshots. Each statement of a function has a snapshot of its own, taken when it begins. So the end of a lane is read by a
-- statement that begins after the lane is locked, and sees all that was committed there (I4); so a claim sees the blocks that
-- the same turn published, and a receiver that waits is served by the transaction that publishes. In the one statement of a
-- claim the cursor is locked and the end of the lane is read: the end may be older than the cursor, never newer than what is
-- committed, so a claim never passes an uncommitted block (I2, I4).
--
-- Locks. The caller sorts each list, and plans walk the lists in order (Store::turn_session), so rows of one kind are locked
-- in order of their keys: lanes, then leases, then cursors. Cursors that another transaction has are skipped. So two turns
-- never wait for each other in a circle. Retention and redelivery take the same locks in the same order. The rows of a lane
-- stay locked until the commit: no other publish to it commits in between, so offsets are given in the order of commit (I4).
--
-- Look-ups. Rows are found by key in a LATERAL query, which can only be a look-up, then changed by ctid. Joined by key, a plan
-- that was made while a table was small walks its whole index in each turn, with all the dead entries that a long transaction
-- keeps in it.
--
-- Usage. A block carries what it is metered by, so its usage commits with its messages (I8).

-- One block and nothing else, which is most turns of a busy topic, without statements over arrays, whose set-up costs more
-- than the work: 290,000 instructions in the database, 528,000 by the statements over arrays (`valgrind --tool=callgrind`,
-- Postgres 15).
CREATE FUNCTION turn_block_{version}(
    p_now            timestamptz,
    p_lane           bigint,
    p_count          integer,
    p_bytes          bigint,
    p_compressed     boolean,
    p_slot           smallint,
    p_object         bigint,  -- null: the payload is p_data
    p_units          integer,
    p_elastic        integer,
    p_message_bytes  bigint,
    p_data           bytea,   -- one part of at most 8,096 bytes
    OUT at           timestamptz,
    OUT first_offset bigint   -- null where the lane is gone or closed
) LANGUAGE plpgsql AS $$
DECLARE
    v_closed boolean;
    v_start  bigint;
BEGIN
    SELECT l.closed, l.start_offset INTO v_closed, v_start FROM lane l WHERE l.lane_id = p_lane FOR UPDATE;
    at := coalesce(p_now, clock_timestamp());
    IF v_closed IS DISTINCT FROM false THEN
        RETURN;
    END IF;

    INSERT INTO block AS b (lane_id, first_offset, count, bytes, compressed, published_at, slot, object_id, object_offset,
                            units, elastic_units, message_bytes)
    VALUES (p_lane,
            coalesce((SELECT k.first_offset + k.count FROM block k
                      WHERE k.lane_id = p_lane ORDER BY k.first_offset DESC LIMIT 1), v_start),
            p_count, p_bytes, p_compressed, at, CASE WHEN p_object IS NULL THEN p_slot END, p_object,
            CASE WHEN p_object IS NOT NULL THEN 0 END, p_units, p_elastic, p_message_bytes)
    RETURNING b.first_offset INTO first_offset;

    IF p_object IS NULL THEN
        CASE p_slot
            {for slot}
            WHEN {slot} THEN INSERT INTO hot_payload_{slot} (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            {end}
        END CASE;
    END IF;
END
$$;

-- All that gathered.
CREATE FUNCTION turn_{version}(
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
    one       record;   -- what became of the only block
    starts    bigint[]; -- start_offset of each lane, locked; null where it is gone or closed
    found_at  tid[];    -- leases to settle, locked …
    left_bits bigint[]; -- … and what remains pending in each
BEGIN
    -- 1. Publish.
    IF cardinality(b_lane) = 1 AND cardinality(h_part) <= 1 THEN
        one := turn_block_{version}(p_now, b_lane[1], b_count[1], b_bytes[1], b_compressed[1], p_slot, b_object[1],
                            b_units[1], b_elastic[1], b_message_bytes[1], h_data[1]);
        at := one.at;
        first_offsets := ARRAY[one.first_offset];
    ELSIF b_lane <> '{}' THEN
        SELECT array_agg(l.start_offset ORDER BY b.ordinal)
        INTO starts
        FROM unnest(b_lane) WITH ORDINALITY AS b (lane_id, ordinal)
        LEFT JOIN LATERAL (
            SELECT CASE WHEN NOT x.closed THEN x.start_offset END AS start_offset
            FROM lane x WHERE x.lane_id = b.lane_id FOR UPDATE
        ) l ON true;
        at := coalesce(p_now, clock_timestamp());

        SELECT array_agg(CASE WHEN b.start_offset IS NOT NULL THEN coalesce(
                (SELECT k.first_offset + k.count FROM block k
                 WHERE k.lane_id = b.lane_id ORDER BY k.first_offset DESC LIMIT 1),
                b.start_offset
            ) END ORDER BY b.ordinal)
        INTO first_offsets
        FROM unnest(b_lane, starts) WITH ORDINALITY AS b (lane_id, start_offset, ordinal);

        INSERT INTO block (lane_id, first_offset, count, bytes, compressed, published_at, slot, object_id, object_offset,
                           units, elastic_units, message_bytes)
        SELECT b.lane_id, b.first_offset, b.count, b.bytes, b.compressed, at, b.slot, b.object_id,
               CASE WHEN b.object_id IS NOT NULL THEN 0 END, b.units, b.elastic, b.message_bytes
        FROM unnest(b_lane, first_offsets, b_count, b_bytes, b_compressed, b_slot, b_object, b_units, b_elastic, b_message_bytes)
            AS b (lane_id, first_offset, count, bytes, compressed, slot, object_id, units, elastic, message_bytes)
        WHERE b.first_offset IS NOT NULL;

        IF h_block <> '{}' THEN
            CASE p_slot
                {for slot}
                WHEN {slot} THEN
                    INSERT INTO hot_payload_{slot} (lane_id, first_offset, part, data)
                    SELECT b_lane[h.block], first_offsets[h.block], h.part, h.data
                    FROM unnest(h_block, h_part, h_data) AS h (block, part, data)
                    WHERE first_offsets[h.block] IS NOT NULL;
                {end}
            END CASE;
        END IF;
    ELSE
        at := coalesce(p_now, clock_timestamp());
    END IF;

    -- 2. Settle. A lease that is not found was settled, or released again under another id (I3).
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

    -- 3. Claim.
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
            -- If another transaction moved the cursor after this snapshot began, the row locked above is its new version,
            -- which this statement does not find by ctid: the claim moves nothing and is tried again.
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

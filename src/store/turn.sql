-- The turn: what a node commits at once, in one call, so that it costs one round trip and one commit. It carries the
-- publishes, changes of leases and claims that gathered while the last turn of the same loop was committing.
--
-- This file is a template, and the only text of the turn. The migrator (src/store/migrate.rs) installs it as functions with
-- the number of its version in their names, so that nodes of two versions run side by side. A change of this text is a new
-- VERSION (src/store/turn.rs) and a new line in migrations/TURNS; a test holds the three together. What stands between
-- `for slot` and `end` in braces is repeated for each table hot_payload_<slot>, and between `for dedup` and `end` for each
-- table dedup_<n>: the name of a table cannot be a parameter of a prepared plan.
--
-- Steps. The order in which a turn works is the order of its locks:
--   1. publish: lock the lanes, read the time, look up keys, read where each lane ends, insert blocks, payloads and keys;
--   2. change leases: lock them, insert what leaves them, write what is left, delete those that are empty;
--   3. claim: take leases that are due again, then lock the cursors, move them, insert leases.
--
-- Keys. A key is looked up under the lock of its lane, so of two publishes with one key, on any two nodes, the second one
-- finds what the first one stored. A block with a known key is not inserted: it also holds the message that was published
-- before. The node learns the known keys and publishes the rest in its next turn. Keys live in two rings of three tables,
-- one for windows of at most ten minutes and one for windows of at most a day. Which table of a ring takes new keys follows
-- from the database's time alone. Keys are found in it and in the table before; in the third one all windows are over, so a
-- duty truncates it (src/store/dedup.rs) while no turn reads it.
--
-- Snapshots. Each statement of a function has a snapshot of its own, taken when it begins. So the end of a lane is read by a
-- statement that begins after the lane is locked, and sees all that was committed there (I4); so a claim sees the blocks that
-- the same turn published, and a receiver that waits is served by the transaction that publishes. In the one statement of a
-- claim the cursor is locked and the end of the lane is read: the end may be older than the cursor, never newer than what is
-- committed, so a claim never passes an uncommitted block (I2, I4).
--
-- Locks. The caller sorts each list, and plans walk the lists in order (Store::turn_session), so rows of one kind are locked
-- in order of their keys: lanes, then leases, then cursors. Leases that are due again and cursors are skipped when another
-- transaction has them. So two turns never wait for each other in a circle. Retention takes the same locks in the same
-- order. The rows of a lane stay locked until the commit: no other publish to it commits in between, so offsets are given in
-- the order of commit (I4).
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
    OUT waited       interval, -- for the lock of the lane; null where it was free
    OUT first_offset bigint    -- null where the lane is gone or closed
) LANGUAGE plpgsql AS $$
DECLARE
    v_closed boolean;
    v_start  bigint;
BEGIN
    SELECT l.closed, l.start_offset INTO v_closed, v_start FROM lane l WHERE l.lane_id = p_lane FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        -- Another transaction has the lane, or it is gone.
        at := clock_timestamp();
        SELECT l.closed, l.start_offset INTO v_closed, v_start FROM lane l WHERE l.lane_id = p_lane FOR UPDATE;
        waited := clock_timestamp() - at;
    END IF;
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
    -- publishes: one block per lane at most, sorted by lane; one of 0 messages only locks its lane, for its keys
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
    -- keys of publishes: position of the block in b_lane (from 1), key, index in the block of the message that it stands
    -- for, window in seconds, fingerprint of the request, results of the request if they are not just its messages in order
    k_block         integer[],
    k_key           uuid[],
    k_index         integer[],
    k_window        integer[],
    k_fingerprint   uuid[],
    k_results       bytea[],
    -- changes of leases, sorted by lane, subscription, lease, with disjoint masks in one lease. Kinds: 0 settle, 1 hide for
    -- some seconds, 2 return, due again after some seconds in a new lease, 3 the same without counting as an attempt, 4 set
    -- aside, a return whose new lease is reported
    s_lane          bigint[],
    s_subscription  bigint[],
    s_lease         bigint[],
    s_mask          bigint[],
    s_kind          smallint[],
    s_seconds       integer[],
    s_attempts      integer[], -- attempts after which the messages of a returned lease are dead letters; null: never
    p_settles       boolean,  -- all kinds are 0
    p_strict        boolean,  -- all or nothing: an error if a lane is gone, or a message is not in its lease any more
    -- claims, one per lane and subscription, sorted: messages at most, of these fresh ones at most, visibility timeout in
    -- seconds, lower bound of the deadlines of leases that are due again (null: no look for them), attempts after which a
    -- lease is set aside (null: never) for p_aside seconds. A lease with as many attempts is listed in last_attempt, so that
    -- it is also found when nobody receives.
    c_lane          bigint[],
    c_subscription  bigint[],
    c_wanted        integer[],
    c_fresh         integer[],
    c_visibility    integer[],
    c_low           timestamptz[],
    c_attempts      integer[],
    p_scans         boolean,  -- some c_low is not null
    p_aside         integer,
    OUT at              timestamptz,   -- the database's time of this turn
    OUT waited          interval,      -- of a single block, for the lock of its lane; null where it was free
    OUT first_offsets   bigint[],      -- per block; null where the lane is gone or closed, or a key is known
    OUT known_key       uuid[],        -- keys that were used before …
    OUT known_offset    bigint[],      -- … the offset of the first message, …
    OUT known_fingerprint uuid[],      -- … and what was stored
    OUT known_results   bytea[],
    OUT changed         integer[],     -- changes (from 1) by row of a lease …
    OUT changed_bits    bigint[],      -- … and the bits that were pending in it
    OUT aside           integer[],     -- changes (from 1) of kind 4, with their new leases
    OUT aside_lease     bigint[],
    OUT aside_base      bigint[],
    OUT aside_bits      bigint[],
    OUT aside_attempt   integer[],
    OUT aside_first     timestamptz[], -- when an attempt first and last failed
    OUT aside_last      timestamptz[],
    OUT due             integer[],     -- claims (from 1) by lease that was due again, with the new leases
    OUT due_lease       bigint[],
    OUT due_base        bigint[],
    OUT due_bits        bigint[],
    OUT due_attempt     integer[],
    OUT due_spent       boolean[],     -- set aside, because its attempts are used up
    OUT due_first       timestamptz[],
    OUT due_last        timestamptz[],
    OUT seen            integer[],     -- per claim: leases that are due again, taken or not; null without any scan
    OUT tried           integer[],     -- claims (from 1) whose cursor was free
    OUT gone            integer[],     -- claims (from 1) that have no cursor: the subscription is deleted
    OUT leased_lane     bigint[],      -- leases made …
    OUT leased_sub      bigint[],
    OUT leased_base     bigint[],
    OUT leased_pending  bigint[],
    OUT leased_id       bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    one        record;        -- what became of the only block
    starts     bigint[];      -- start_offset of each lane, locked; null where it is gone or closed
    rings      integer[] := '{}'; -- the tables that take new keys, of each ring
    looked     integer[];     -- the tables that may have a key
    ring       integer;
    held       integer[];     -- blocks with a known key
    found_at   tid[];         -- leases to change, locked, …
    found_bits bigint[];      -- … what is pending in each, …
    left_bits  bigint[];      -- … what remains pending …
    hidden     timestamptz[]; -- … and until when it is hidden from now on; null: as before
    complete   boolean;       -- all bits were found
    due_at     tid[];         -- leases that are due again, locked
    fresh      integer[];     -- messages that each claim still wants
BEGIN
    -- 1. Publish.
    IF cardinality(b_lane) = 1 AND cardinality(h_part) <= 1 AND k_block = '{}' THEN
        one := turn_block_{version}(p_now, b_lane[1], b_count[1], b_bytes[1], b_compressed[1], p_slot, b_object[1],
                            b_units[1], b_elastic[1], b_message_bytes[1], h_data[1]);
        at := one.at;
        waited := one.waited;
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

        IF k_block <> '{}' THEN
            rings := ARRAY[floor(extract(epoch FROM at) / {short})::bigint % 3, 3 + floor(extract(epoch FROM at) / {long})::bigint % 3];
            -- After a failover the database's time may be some seconds behind: near the end of a table's time, the next
            -- table may have keys already.
            looked := rings || ARRAY[(rings[1] + 2) % 3, 3 + (rings[2] + 2) % 3]
                   || CASE WHEN extract(epoch FROM at) % {short} > {short} * 0.9 THEN ARRAY[(rings[1] + 1) % 3] END
                   || CASE WHEN extract(epoch FROM at) % {long} > {long} * 0.9 THEN ARRAY[3 + (rings[2] + 1) % 3] END;
            FOREACH ring IN ARRAY looked LOOP
                CASE ring
                    {for dedup}
                    WHEN {dedup} THEN
                        CONTINUE WHEN pg_relation_size('dedup_{dedup}') = 0;
                        SELECT known_key || array_agg(d.key), known_offset || array_agg(d.first_offset),
                               known_fingerprint || array_agg(d.fingerprint), known_results || array_agg(d.results)
                        INTO known_key, known_offset, known_fingerprint, known_results
                        -- A hash index can only be looked up, not walked.
                        FROM unnest(k_key) AS k (key)
                        JOIN dedup_{dedup} d ON d.key = k.key AND d.expires_at > at;
                    {end}
                END CASE;
            END LOOP;
            IF known_key IS NOT NULL THEN
                SELECT array_agg(k.block) INTO held FROM unnest(k_block, k_key) AS k (block, key) WHERE k.key = ANY (known_key);
            END IF;
        END IF;

        SELECT array_agg(CASE WHEN b.start_offset IS NOT NULL AND b.ordinal = ANY (held) IS NOT TRUE THEN coalesce(
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
        WHERE b.first_offset IS NOT NULL AND b.count > 0;

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

        FOREACH ring IN ARRAY rings LOOP
            -- A ring whose windows no key has is passed over.
            CONTINUE WHEN (ring < 3 AND {short} < ALL (k_window)) OR (ring >= 3 AND {short} >= ALL (k_window));
            CASE ring
                {for dedup}
                WHEN {dedup} THEN
                    INSERT INTO dedup_{dedup} (lane_id, key, first_offset, expires_at, fingerprint, results)
                    SELECT b_lane[k.block], k.key, first_offsets[k.block] + k.index, at + k.seconds * interval '1 second',
                           k.fingerprint, k.results
                    FROM unnest(k_block, k_key, k_index, k_window, k_fingerprint, k_results)
                        AS k (block, key, index, seconds, fingerprint, results)
                    WHERE first_offsets[k.block] IS NOT NULL AND (k.seconds > {short}) = ({dedup} >= 3);
                {end}
            END CASE;
        END LOOP;
    ELSE
        at := coalesce(p_now, clock_timestamp());
    END IF;

    -- 2. Change leases. A lease that is not found was settled, or handed out again under another id (I3).
    IF s_lane <> '{}' THEN
        -- Rows that were split off while this statement waited for a lock are not in its snapshot. A second one finds them:
        -- the rest of the lease is locked now, so nothing more is split off.
        FOR look IN 1..2 LOOP
            SELECT array_agg(s.ordinal::integer), array_agg(l.row_at), array_agg(l.pending), array_agg(l.pending & s.mask),
                   array_agg(l.pending & ~s.mask), count(*) = cardinality(s_lane) AND bool_and(l.pending & s.mask = s.mask)
            INTO changed, found_at, found_bits, changed_bits, left_bits, complete
            FROM unnest(s_lane, s_subscription, s_lease, s_mask) WITH ORDINALITY
                AS s (lane_id, subscription_id, lease_id, mask, ordinal)
            CROSS JOIN LATERAL (
                SELECT x.ctid AS row_at, x.pending FROM lease x
                WHERE x.lane_id = s.lane_id AND x.subscription_id = s.subscription_id AND x.lease_id = s.lease_id
                  -- All parts of a lease with changes of several kinds: its first change locks them in their order, and no
                  -- other turn gives a new part the same number.
                  AND (x.pending & s.mask <> 0 OR NOT p_settles)
                ORDER BY x.part
                FOR UPDATE
            ) l;
            EXIT WHEN complete;
        END LOOP;
        IF p_strict AND (complete IS NOT TRUE OR array_position(first_offsets, NULL) IS NOT NULL) THEN
            RAISE EXCEPTION SQLSTATE '{strict}';
        END IF;

        IF NOT p_settles AND found_at IS NOT NULL THEN
            WITH hit AS MATERIALIZED (
                -- `stays`: hides all of a row that other changes leave, so the row itself is hidden.
                SELECT f.*, f.kind = 1 AND f.bits = f.pending & ~coalesce(
                           bit_or(f.bits) FILTER (WHERE f.kind <> 1) OVER (PARTITION BY f.row_at), 0) AS stays
                FROM (
                    SELECT h.entry, h.row_at, h.pending, h.bits, s_kind[h.entry] AS kind,
                           at + s_seconds[h.entry] * interval '1 second' AS until
                    FROM unnest(changed, found_at, found_bits, changed_bits) AS h (entry, row_at, pending, bits)
                    WHERE h.bits <> 0
                ) f
            ), leaving AS MATERIALIZED (
                SELECT h.entry, h.kind, h.bits, h.until, l.lane_id, l.subscription_id, l.base, l.delayed, l.order_key,
                       l.lease_id AS old_lease,
                       CASE WHEN h.kind = 1 THEN l.lease_id ELSE nextval('lease_id_seq') END AS lease_id,
                       CASE WHEN h.kind = 1
                           THEN p.part + row_number() OVER (PARTITION BY l.lane_id, l.subscription_id, l.lease_id, h.kind)
                           ELSE 0 END AS part,
                       CASE WHEN h.kind = 3 THEN greatest(l.attempt - 1, 0) ELSE l.attempt END AS attempt,
                       CASE WHEN h.kind IN (2, 4) THEN coalesce(l.first_failed_at, at) ELSE l.first_failed_at END AS first_failed_at,
                       CASE WHEN h.kind IN (2, 4) THEN at ELSE l.last_failed_at END AS last_failed_at
                FROM hit h
                JOIN lease l ON l.ctid = h.row_at
                CROSS JOIN LATERAL (
                    SELECT max(x.part) AS part FROM lease x
                    WHERE x.lane_id = l.lane_id AND x.subscription_id = l.subscription_id AND x.lease_id = l.lease_id
                ) p
                WHERE h.kind <> 0 AND NOT h.stays
            ), made AS (
                INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed,
                                   first_failed_at, last_failed_at, order_key)
                SELECT v.lane_id, v.subscription_id, v.lease_id, v.part, v.base, v.bits, v.until, v.attempt,
                       v.delayed OR v.kind <> 1, v.first_failed_at, v.last_failed_at, v.order_key
                FROM leaving v
            ), lost AS (
                -- Their receipts are void. A delayed lease has none, and those of kind 3 were not handed out.
                INSERT INTO lost_lease (lane_id, subscription_id, lease_id, bits, lost_at)
                SELECT v.lane_id, v.subscription_id, v.old_lease, v.bits, at FROM leaving v
                WHERE v.kind IN (2, 4) AND NOT v.delayed
            ), last AS (
                INSERT INTO last_attempt (lane_id, subscription_id, lease_id, due_at)
                SELECT v.lane_id, v.subscription_id, v.lease_id, v.until FROM leaving v
                WHERE v.kind <> 1 AND v.attempt >= s_attempts[v.entry]
            ), rest AS (
                SELECT h.row_at, h.pending & ~coalesce(bit_or(h.bits) FILTER (WHERE NOT h.stays), 0) AS pending,
                       max(h.until) FILTER (WHERE h.stays) AS hidden
                FROM hit h GROUP BY h.row_at, h.pending
            ), reported AS (
                SELECT array_agg(v.entry) AS entry, array_agg(v.lease_id) AS lease_id, array_agg(v.base) AS base,
                       array_agg(v.bits) AS bits, array_agg(v.attempt) AS attempt,
                       array_agg(v.first_failed_at) AS first_failed_at, array_agg(v.last_failed_at) AS last_failed_at
                FROM leaving v WHERE v.kind = 4
            )
            SELECT array_agg(t.row_at), array_agg(t.pending), array_agg(t.hidden),
                   min(r.entry), min(r.lease_id), min(r.base), min(r.bits), min(r.attempt),
                   min(r.first_failed_at), min(r.last_failed_at)
            INTO found_at, left_bits, hidden, aside, aside_lease, aside_base, aside_bits, aside_attempt, aside_first, aside_last
            FROM rest t CROSS JOIN reported r;
        END IF;

        UPDATE lease l SET pending = s.pending, deadline = coalesce(s.hidden, l.deadline)
        FROM unnest(found_at, left_bits, hidden) AS s (row_at, pending, hidden)
        WHERE l.ctid = s.row_at AND s.pending <> 0 AND (l.pending <> s.pending OR s.hidden IS NOT NULL);

        DELETE FROM lease l
        USING unnest(found_at, left_bits) AS s (row_at, pending)
        WHERE l.ctid = s.row_at AND s.pending = 0;
    END IF;

    -- 3. Claim.
    IF c_lane <> '{}' THEN
        fresh := c_fresh;
        IF p_scans THEN
            WITH taken AS MATERIALIZED (
                SELECT c.ordinal, c.wanted, c.fresh, d.messages IS NOT NULL AS is_due, l.row_at, d.is_spent,
                       -- The last lease may have more messages than are wanted.
                       CASE WHEN d.before + d.messages <= c.wanted THEN l.pending ELSE (
                           SELECT bit_or(1::bigint << b.bit) FROM (
                               SELECT n AS bit FROM generate_series(0, 63) AS n
                               WHERE l.pending >> n & 1 = 1 ORDER BY n LIMIT c.wanted - d.before) b
                       ) END AS bits
                FROM unnest(c_lane, c_subscription, c_wanted, c_fresh, c_low, c_attempts) WITH ORDINALITY
                    AS c (lane_id, subscription_id, wanted, fresh, low, attempts, ordinal)
                LEFT JOIN LATERAL (
                    SELECT s.*, coalesce(sum(s.messages) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
                    FROM (
                        SELECT x.ctid AS row_at, x.lease_id, x.pending, coalesce(x.attempt >= c.attempts, false) AS is_spent,
                               CASE WHEN x.attempt >= c.attempts THEN 0 ELSE bit_count(x.pending::bit(64)) END AS messages
                        FROM lease x
                        WHERE x.lane_id = c.lane_id AND x.subscription_id = c.subscription_id
                          AND x.attempt >= 0 AND x.deadline >= c.low AND x.deadline <= at
                        -- As many as are enough if all are full, as after a consumer that went away; if these are not, more.
                        ORDER BY x.deadline LIMIT CASE WHEN c.wanted <= (
                            SELECT sum(f.messages) FROM (
                                SELECT CASE WHEN x.attempt >= c.attempts THEN 0 ELSE bit_count(x.pending::bit(64)) END AS messages
                                FROM lease x
                                WHERE x.lane_id = c.lane_id AND x.subscription_id = c.subscription_id
                                  AND x.attempt >= 0 AND x.deadline >= c.low AND x.deadline <= at
                                ORDER BY x.deadline LIMIT c.wanted / 64 + 4
                            ) f
                        ) THEN c.wanted / 64 + 4 ELSE least(c.wanted, {due}) END
                    ) s
                ) d ON d.before < c.wanted
                LEFT JOIN LATERAL (
                    SELECT x.ctid AS row_at, x.pending FROM lease x
                    WHERE x.ctid = d.row_at AND x.lease_id = d.lease_id AND x.pending = d.pending AND x.deadline <= at
                    FOR UPDATE SKIP LOCKED
                ) l ON true
            )
            SELECT (SELECT array_agg(t.ordinal::integer) FROM taken t WHERE t.row_at IS NOT NULL),
                   (SELECT array_agg(t.row_at) FROM taken t WHERE t.row_at IS NOT NULL),
                   (SELECT array_agg(t.bits) FROM taken t WHERE t.row_at IS NOT NULL),
                   (SELECT array_agg(t.is_spent) FROM taken t WHERE t.row_at IS NOT NULL),
                   array_agg(g.seen ORDER BY g.ordinal), array_agg(least(g.fresh, g.wanted - g.messages) ORDER BY g.ordinal)
            INTO due, due_at, due_bits, due_spent, seen, fresh
            FROM (
                SELECT t.ordinal, t.fresh, t.wanted, count(*) FILTER (WHERE t.is_due)::integer AS seen,
                       coalesce(sum(bit_count(t.bits::bit(64))) FILTER (WHERE NOT t.is_spent), 0)::integer AS messages
                FROM taken t GROUP BY t.ordinal, t.fresh, t.wanted
            ) g;

            IF due IS NOT NULL THEN
                WITH d AS MATERIALIZED (
                    SELECT t.*, l.lane_id, l.subscription_id, l.base, l.pending, l.order_key, nextval('lease_id_seq') AS lease_id,
                           l.lease_id AS old_lease, NOT l.delayed AND NOT l.waiting AS has_receipts,
                           CASE WHEN t.is_spent THEN l.attempt ELSE l.attempt + 1 END AS attempt,
                           at + interval '1 second' * CASE WHEN t.is_spent THEN p_aside ELSE c_visibility[t.claim] END AS deadline,
                           coalesce(l.first_failed_at, e.failed_at) AS first_failed_at, e.failed_at AS last_failed_at
                    FROM unnest(due, due_at, due_bits, due_spent) WITH ORDINALITY AS t (claim, row_at, bits, is_spent, ordinal)
                    JOIN lease l ON l.ctid = t.row_at
                    CROSS JOIN LATERAL (SELECT CASE WHEN l.delayed THEN l.last_failed_at ELSE l.deadline END AS failed_at) e
                ), whole AS (
                    UPDATE lease l
                    SET lease_id = d.lease_id, part = 0, deadline = d.deadline, attempt = d.attempt, delayed = d.is_spent,
                        first_failed_at = d.first_failed_at, last_failed_at = d.last_failed_at, waiting = false
                    FROM d WHERE l.ctid = d.row_at AND d.bits = d.pending
                ), rest AS (
                    -- Messages that are not taken keep their lease, and so their receipts.
                    UPDATE lease l SET pending = d.pending & ~d.bits
                    FROM d WHERE l.ctid = d.row_at AND d.bits <> d.pending
                ), split AS (
                    INSERT INTO lease (lane_id, subscription_id, lease_id, part, base, pending, deadline, attempt, delayed,
                                       first_failed_at, last_failed_at, order_key)
                    SELECT d.lane_id, d.subscription_id, d.lease_id, 0, d.base, d.bits, d.deadline, d.attempt, false,
                           d.first_failed_at, d.last_failed_at, d.order_key
                    FROM d WHERE d.bits <> d.pending
                ), lost AS (
                    INSERT INTO lost_lease (lane_id, subscription_id, lease_id, bits, lost_at)
                    SELECT d.lane_id, d.subscription_id, d.old_lease, d.bits, at FROM d WHERE d.has_receipts
                )
                SELECT array_agg(d.lease_id ORDER BY d.ordinal), array_agg(d.base ORDER BY d.ordinal),
                       array_agg(d.attempt ORDER BY d.ordinal), array_agg(d.first_failed_at ORDER BY d.ordinal),
                       array_agg(d.last_failed_at ORDER BY d.ordinal)
                INTO due_lease, due_base, due_attempt, due_first, due_last
                FROM d;

                IF array_remove(c_attempts, NULL) <> '{}' THEN
                    INSERT INTO last_attempt (lane_id, subscription_id, lease_id, due_at)
                    SELECT c_lane[d.claim], c_subscription[d.claim], d.lease_id,
                           at + interval '1 second' * CASE WHEN d.is_spent THEN p_aside ELSE c_visibility[d.claim] END
                    FROM unnest(due, due_lease, due_attempt, due_spent) AS d (claim, lease_id, attempt, is_spent)
                    WHERE d.attempt >= c_attempts[d.claim];
                END IF;
            END IF;
        END IF;

        WITH attempt AS MATERIALIZED (
            SELECT c.ordinal, c.lane_id, c.subscription_id, c.visibility, u.row_at, u.next_offset AS base,
                   -- A lane without blocks ends where the cursor is; least() alone would pass over the missing end.
                   least(u.next_offset + c.wanted, coalesce(e.next_offset, u.next_offset)) AS until
            FROM unnest(c_lane, c_subscription, fresh, c_visibility) WITH ORDINALITY
                AS c (lane_id, subscription_id, wanted, visibility, ordinal)
            CROSS JOIN LATERAL (
                SELECT x.ctid AS row_at, x.next_offset FROM cursor x
                WHERE c.wanted > 0 AND x.lane_id = c.lane_id AND x.subscription_id = c.subscription_id
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

        IF 1 = ANY (c_attempts) AND leased_id IS NOT NULL THEN
            INSERT INTO last_attempt (lane_id, subscription_id, lease_id, due_at)
            SELECT d.lane_id, d.subscription_id, d.lease_id, at + c.visibility * interval '1 second'
            FROM unnest(c_lane, c_subscription, c_visibility, c_attempts) AS c (lane_id, subscription_id, visibility, attempts)
            JOIN unnest(leased_lane, leased_sub, leased_id) AS d (lane_id, subscription_id, lease_id)
                ON d.lane_id = c.lane_id AND d.subscription_id = c.subscription_id
            WHERE c.attempts = 1;
        END IF;

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

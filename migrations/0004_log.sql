-- Lane: the log of blocks, its payloads that are not in object storage yet, how far it is metered, and the publishes that
-- must not happen twice.
--
-- There are no foreign keys to the tables of home: the hot tables must not lock rows of the small ones, and may be on another
-- server (src/store/group.rs).
--
-- `block` and `hot_payload_*` have no CHECK constraints: Postgres reads the text of a table's constraints anew in each
-- statement that writes to the table, and with them a turn of one block took 688,000 instructions in the database, without
-- them 485,000 (`valgrind --tool=callgrind`, Postgres 15). The types of src/store/turn.rs hold the ranges, and every test
-- ends with a query for rows that break them (tests/it/harness/invariants.rs). NOT NULL costs nothing.

CREATE TABLE lane (
    lane_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (lane_id < 1099511627776),
    tenant_id    bigint NOT NULL,
    topic_id     bigint NOT NULL,
    number       integer NOT NULL CHECK (number >= 0),
    start_offset bigint NOT NULL CHECK (start_offset >= 0),
    closed       boolean NOT NULL DEFAULT false,
    UNIQUE (topic_id, number)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE lane IS 'Hidden slice of a topic. A publish locks its row (I4) and never updates it, so that a transaction that holds back vacuum leaves no trail of versions; the next offset is the end of the last block';
COMMENT ON COLUMN lane.lane_id IS 'internal number, below 2^40, part of message ids';
COMMENT ON COLUMN lane.tenant_id IS 'owner of its topic (I7); never changes';
COMMENT ON COLUMN lane.topic_id IS 'the topic it belongs to; never changes';
COMMENT ON COLUMN lane.number IS 'which lane of its topic, from 0';
COMMENT ON COLUMN lane.start_offset IS 'all blocks below it are deleted; the next offset while the lane has no block';
COMMENT ON COLUMN lane.closed IS 'its topic is deleted: publishes are refused, the rest is cleared away';

CREATE TABLE block (
    lane_id       bigint NOT NULL,
    first_offset  bigint NOT NULL,
    count         integer NOT NULL,
    bytes         bigint NOT NULL,
    compressed    boolean NOT NULL,
    published_at  timestamptz NOT NULL,
    slot          smallint,
    object_id     bigint,
    object_offset bigint,
    units         integer NOT NULL DEFAULT 0,
    elastic_units integer NOT NULL DEFAULT 0,
    message_bytes bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (lane_id, first_offset)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.5);
-- serves: whether anything still refers to an object
CREATE INDEX block_object ON block (object_id) WHERE object_id IS NOT NULL;
COMMENT ON TABLE block IS 'Messages of one lane committed together; immutable but for its place. The primary key serves the end of a lane, reading from an offset, and retention';
COMMENT ON COLUMN block.lane_id IS 'its lane';
COMMENT ON COLUMN block.first_offset IS 'offset of its first message';
COMMENT ON COLUMN block.count IS 'messages';
COMMENT ON COLUMN block.bytes IS 'bytes of the payload as stored';
COMMENT ON COLUMN block.compressed IS 'whether the payload is a zstd frame';
COMMENT ON COLUMN block.published_at IS 'time of publication, after the lane was locked, so it never falls along a lane';
COMMENT ON COLUMN block.slot IS 'place: the hot_payload table that has the payload';
COMMENT ON COLUMN block.object_id IS 'place: the object that has the payload';
COMMENT ON COLUMN block.object_offset IS 'place: first byte of the payload in the object';
COMMENT ON COLUMN block.units IS 'metering units of its messages: one per started 64 KiB each; 0: dead letters, which the service moved';
COMMENT ON COLUMN block.elastic_units IS 'of these, units above the tenant''s guarantee';
COMMENT ON COLUMN block.message_bytes IS 'bytes of its messages before compression, attributes included';

-- The ring of hot payloads: tables that are only inserted into and truncated. A payload is cut into parts that fill a page
-- each, because a row per 2 kB, which TOAST would make of it, costs three times the CPU.
DO $$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format('CREATE TABLE hot_payload_%s (
            lane_id      bigint NOT NULL,
            first_offset bigint NOT NULL,
            part         integer NOT NULL,
            data         bytea NOT NULL,
            PRIMARY KEY (lane_id, first_offset, part)
        ) WITH (autovacuum_enabled = false, toast_tuple_target = 8160)', slot);
        EXECUTE format('ALTER TABLE hot_payload_%s ALTER COLUMN data SET STORAGE PLAIN', slot);
        EXECUTE format('COMMENT ON TABLE hot_payload_%s IS ''Payloads not yet in object storage; inserted and truncated, never updated''', slot);
        EXECUTE format('COMMENT ON COLUMN hot_payload_%s.lane_id IS ''lane of the block''', slot);
        EXECUTE format('COMMENT ON COLUMN hot_payload_%s.first_offset IS ''first offset of the block''', slot);
        EXECUTE format('COMMENT ON COLUMN hot_payload_%s.part IS ''which part of the payload, from 0''', slot);
        EXECUTE format('COMMENT ON COLUMN hot_payload_%s.data IS ''at most 8,096 bytes: a row fills a page''', slot);
    END LOOP;
END
$$;

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
COMMENT ON TABLE lane_meter IS 'How far a lane''s blocks are counted, and what it stores; a transaction that deletes or moves its blocks locks its row first (I8)';
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

CREATE TABLE dedup (
    topic_id    bigint NOT NULL,
    scope       smallint NOT NULL CHECK (scope BETWEEN 0 AND 2),
    key         text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) <= 32),
    answer      bytea,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (topic_id, scope, key)
);
-- serves: clearing away what is over
CREATE INDEX dedup_expires ON dedup (expires_at);
COMMENT ON TABLE dedup IS 'Publishes that must not happen twice, and what was answered';
COMMENT ON COLUMN dedup.topic_id IS 'the topic';
COMMENT ON COLUMN dedup.scope IS '0: dedup_id of a message, 1: Idempotency-Key of a single publish, 2: of a batch';
COMMENT ON COLUMN dedup.key IS 'the id or key';
COMMENT ON COLUMN dedup.fingerprint IS 'SHA-256 of the request; empty for a dedup_id';
COMMENT ON COLUMN dedup.answer IS 'lane and offset of each message, 8 bytes each, big-endian; written by the transaction that inserts the row';
COMMENT ON COLUMN dedup.expires_at IS 'end of the window';

-- The core of Cursus: who owns what, the log of blocks, cursors and leases. Limits repeat api/src/limits.rs.

CREATE TABLE tenant (
    tenant_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 128),
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE tenant IS 'Owner of topics, subscriptions and keys; nothing crosses tenants (I7)';
COMMENT ON COLUMN tenant.tenant_id IS 'internal number';
COMMENT ON COLUMN tenant.name IS 'shown to operators';
COMMENT ON COLUMN tenant.created_at IS 'time of creation';

CREATE TABLE api_key (
    key_hash   bytea PRIMARY KEY CHECK (length(key_hash) = 32),
    tenant_id  bigint NOT NULL REFERENCES tenant,
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);
COMMENT ON TABLE api_key IS 'Keys that open a tenant; the primary key serves the look-up of every request';
COMMENT ON COLUMN api_key.key_hash IS 'SHA-256 of the key; the key itself is shown once and never kept';
COMMENT ON COLUMN api_key.tenant_id IS 'the tenant it opens';
COMMENT ON COLUMN api_key.name IS 'what the key is for';
COMMENT ON COLUMN api_key.created_at IS 'time of creation';
COMMENT ON COLUMN api_key.revoked_at IS 'from then on it is refused';

CREATE TABLE installation (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    installation_id uuid NOT NULL DEFAULT gen_random_uuid(),
    receipt_key     bytea NOT NULL CHECK (length(receipt_key) = 32),
    hot_slot        smallint NOT NULL CHECK (hot_slot BETWEEN 0 AND 7),
    rotated_at      timestamptz NOT NULL,
    catalog_version bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE installation IS 'What all nodes of one installation share; one row';
COMMENT ON COLUMN installation.installation_id IS 'begins the keys of its objects, so that installations can share a bucket';
COMMENT ON COLUMN installation.receipt_key IS 'HMAC-SHA256 key of receipts, 32 random bytes';
COMMENT ON COLUMN installation.hot_slot IS 'the hot_payload table that new blocks go to; a node may lag behind without harm';
COMMENT ON COLUMN installation.rotated_at IS 'when hot_slot last changed';
COMMENT ON COLUMN installation.catalog_version IS 'raised when a topic or subscription changes; nodes that see it drop what they cached';

CREATE TABLE topic (
    topic_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id            bigint NOT NULL REFERENCES tenant,
    name                 text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    retention_seconds    integer NOT NULL CHECK (retention_seconds BETWEEN 60 AND 2678400),
    keep_consumed        boolean NOT NULL,
    dedup_window_seconds integer NOT NULL CHECK (dedup_window_seconds BETWEEN 60 AND 86400),
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    -- also serves look-up by name and the list in order of name
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE topic IS 'Named stream that messages are published to';
COMMENT ON COLUMN topic.topic_id IS 'internal number, never used again';
COMMENT ON COLUMN topic.tenant_id IS 'owner';
COMMENT ON COLUMN topic.name IS 'unique within its tenant';
COMMENT ON COLUMN topic.retention_seconds IS 'seconds a message is kept at most';
COMMENT ON COLUMN topic.keep_consumed IS 'whether consumed messages stay until retention ends';
COMMENT ON COLUMN topic.dedup_window_seconds IS 'seconds a repeated dedup_id or Idempotency-Key is recognised';
COMMENT ON COLUMN topic.created_at IS 'time of creation';
COMMENT ON COLUMN topic.updated_at IS 'time of the last change of settings';

CREATE TABLE subscription (
    subscription_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id            bigint NOT NULL REFERENCES tenant,
    topic_id             bigint NOT NULL REFERENCES topic,
    name                 text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    visibility_seconds   integer NOT NULL CHECK (visibility_seconds BETWEEN 0 AND 43200),
    max_attempts         smallint NOT NULL CHECK (max_attempts BETWEEN 1 AND 1000),
    dead_letter_topic_id bigint REFERENCES topic CHECK (dead_letter_topic_id <> topic_id),
    max_in_flight        integer NOT NULL CHECK (max_in_flight BETWEEN 1 AND 1000000),
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    -- also serves look-up by name and the list in order of name
    UNIQUE (tenant_id, name)
);
-- serves: who reads this topic (deleting it, adding a lane, retention)
CREATE INDEX subscription_topic ON subscription (topic_id);
-- serves: who dead-letters to this topic (deleting it)
CREATE INDEX subscription_dead_letter ON subscription (dead_letter_topic_id) WHERE dead_letter_topic_id IS NOT NULL;
COMMENT ON TABLE subscription IS 'Named, durable, independent reading of one topic';
COMMENT ON COLUMN subscription.subscription_id IS 'internal number, never used again';
COMMENT ON COLUMN subscription.tenant_id IS 'owner, the same as the topic''s';
COMMENT ON COLUMN subscription.topic_id IS 'the topic it reads';
COMMENT ON COLUMN subscription.name IS 'unique within its tenant';
COMMENT ON COLUMN subscription.visibility_seconds IS 'seconds a lease hides its messages unless the receive says otherwise';
COMMENT ON COLUMN subscription.max_attempts IS 'attempts before a message goes to the dead-letter topic';
COMMENT ON COLUMN subscription.dead_letter_topic_id IS 'takes the messages whose attempts are used up; null: they are redelivered';
COMMENT ON COLUMN subscription.max_in_flight IS 'messages that may be leased at once';
COMMENT ON COLUMN subscription.created_at IS 'time of creation';
COMMENT ON COLUMN subscription.updated_at IS 'time of the last change of settings';

-- No foreign keys from here on: hot tables must not lock rows of the small ones, and may live on another server.

CREATE TABLE lane (
    lane_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (lane_id < 1099511627776),
    topic_id     bigint NOT NULL,
    number       integer NOT NULL CHECK (number >= 0),
    start_offset bigint NOT NULL CHECK (start_offset >= 0),
    closed       boolean NOT NULL DEFAULT false,
    UNIQUE (topic_id, number)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE lane IS 'Hidden slice of a topic. A publish locks its row (I4) and never updates it, so that a transaction that holds back vacuum leaves no trail of versions; the next offset is the end of the last block';
COMMENT ON COLUMN lane.lane_id IS 'internal number, below 2^40, part of message ids';
COMMENT ON COLUMN lane.topic_id IS 'the topic it belongs to';
COMMENT ON COLUMN lane.number IS 'which lane of its topic, from 0';
COMMENT ON COLUMN lane.start_offset IS 'all blocks below it are deleted; the next offset while the lane has no block';
COMMENT ON COLUMN lane.closed IS 'its topic is deleted: publishes are refused, the rest is cleared away';

CREATE TABLE block (
    lane_id       bigint NOT NULL,
    first_offset  bigint NOT NULL CHECK (first_offset >= 0),
    count         integer NOT NULL CHECK (count > 0),
    bytes         bigint NOT NULL CHECK (bytes > 0),
    compressed    boolean NOT NULL,
    published_at  timestamptz NOT NULL,
    slot          smallint CHECK (slot BETWEEN 0 AND 7),
    object_id     bigint,
    object_offset bigint CHECK (object_offset >= 0),
    PRIMARY KEY (lane_id, first_offset),
    CONSTRAINT block_place CHECK ((slot IS NULL) = (object_id IS NOT NULL) AND (object_id IS NULL) = (object_offset IS NULL))
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

-- The ring of hot payloads: tables that are only inserted into and truncated. A payload is cut into parts that fill a page
-- each, because a row per 2 kB, which TOAST would make of it, costs three times the CPU.
DO $$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format('CREATE TABLE hot_payload_%s (
            lane_id      bigint NOT NULL,
            first_offset bigint NOT NULL,
            part         integer NOT NULL CHECK (part >= 0),
            data         bytea NOT NULL CHECK (length(data) <= 8096),
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

CREATE TABLE object (
    object_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text COLLATE "C" NOT NULL UNIQUE,
    bytes      bigint CHECK (bytes >= 0),
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);
-- serves: garbage collection in order of age
CREATE INDEX object_created ON object (created_at);
COMMENT ON TABLE object IS 'Objects in object storage, written down before their upload starts so that a crashed one is found';
COMMENT ON COLUMN object.object_id IS 'internal number';
COMMENT ON COLUMN object.key IS 'key in object storage';
COMMENT ON COLUMN object.bytes IS 'bytes; null while it is uploaded';
COMMENT ON COLUMN object.created_at IS 'when its upload began, then when it ended: the grace of the collection counts from here';
COMMENT ON COLUMN object.deleted_at IS 'when nothing referred to it any more; the object itself goes next, then this row';

CREATE TABLE cursor (
    lane_id         bigint NOT NULL,
    subscription_id bigint NOT NULL,
    version         bigint NOT NULL CHECK (version >= 0),
    next_offset     bigint NOT NULL CHECK (next_offset >= 0),
    PRIMARY KEY (lane_id, subscription_id, version)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE cursor IS 'How far a subscription has read a lane; one row per pair. Each move raises version, which is in the key, so that a look-up begins at the newest index entry and never walks the dead versions that a long transaction keeps alive';
COMMENT ON COLUMN cursor.lane_id IS 'the lane';
COMMENT ON COLUMN cursor.subscription_id IS 'the subscription';
COMMENT ON COLUMN cursor.version IS 'raised by one with every move';
COMMENT ON COLUMN cursor.next_offset IS 'next offset not handed out yet';

CREATE SEQUENCE lease_id_seq CACHE 256;

CREATE TABLE lease (
    lane_id         bigint NOT NULL,
    subscription_id bigint NOT NULL,
    lease_id        bigint NOT NULL,
    part            smallint NOT NULL CHECK (part BETWEEN 0 AND 64),
    base            bigint NOT NULL CHECK (base >= 0),
    pending         bigint NOT NULL,
    deadline        timestamptz NOT NULL,
    attempt         integer NOT NULL CHECK (attempt >= 0),
    delayed         boolean NOT NULL,
    first_failed_at timestamptz,
    last_failed_at  timestamptz,
    PRIMARY KEY (lane_id, subscription_id, lease_id, part)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- serves: leases past their deadline, read from a moving lower bound
-- The predicate is true of every row: it keeps look-ups by lease, whose plans are made while the table is empty, off this
-- index, where they would walk every lease of the subscription.
CREATE INDEX lease_deadline ON lease (lane_id, subscription_id, deadline) WHERE attempt >= 0;
COMMENT ON TABLE lease IS 'Messages handed out together and not all settled (I2, I3)';
COMMENT ON COLUMN lease.lane_id IS 'the lane';
COMMENT ON COLUMN lease.subscription_id IS 'the subscription';
COMMENT ON COLUMN lease.lease_id IS 'new with every handing out; receipts name it, so an old receipt finds nothing';
COMMENT ON COLUMN lease.part IS '0: as handed out; bit + 1: one message whose visibility was changed, split off with its receipt intact';
COMMENT ON COLUMN lease.base IS 'offset of bit 0';
COMMENT ON COLUMN lease.pending IS 'bit i: the message at base + i is not settled';
COMMENT ON COLUMN lease.deadline IS 'until then nobody else gets these messages';
COMMENT ON COLUMN lease.attempt IS 'how many times they have been handed out';
COMMENT ON COLUMN lease.delayed IS 'given back with a delay: nobody holds a receipt';
COMMENT ON COLUMN lease.first_failed_at IS 'when an attempt first ended without an ack';
COMMENT ON COLUMN lease.last_failed_at IS 'when an attempt last ended without an ack';

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

CREATE TABLE node (
    node_id    uuid PRIMARY KEY,
    version    text NOT NULL CHECK (length(version) BETWEEN 1 AND 64),
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL
);
COMMENT ON TABLE node IS 'Nodes that are up; a heartbeat keeps the row';
COMMENT ON COLUMN node.node_id IS 'random, new at every start';
COMMENT ON COLUMN node.version IS 'of the program';
COMMENT ON COLUMN node.started_at IS 'time of start';
COMMENT ON COLUMN node.seen_at IS 'time of the last heartbeat';

CREATE TABLE duty (
    name       text COLLATE "C" PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 32),
    holder     uuid NOT NULL,
    held_until timestamptz NOT NULL
);
COMMENT ON TABLE duty IS 'Background duties and the node that does each; a node that dies lets go of its duty by time';
COMMENT ON COLUMN duty.name IS 'which duty';
COMMENT ON COLUMN duty.holder IS 'the node that does it';
COMMENT ON COLUMN duty.held_until IS 'from then on another node may take it';

INSERT INTO tenant (name, created_at) VALUES ('default', now());

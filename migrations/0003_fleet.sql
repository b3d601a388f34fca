-- Home: what the nodes of one installation share, which of them are up, which duty each does, and the objects that they put
-- into object storage.

CREATE TABLE installation (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    installation_id uuid NOT NULL DEFAULT gen_random_uuid(),
    receipt_key     bytea NOT NULL CHECK (length(receipt_key) = 32),
    hot_slot        smallint NOT NULL CHECK (hot_slot BETWEEN 0 AND 7),
    rotated_at      timestamptz NOT NULL,
    catalog_version bigint NOT NULL DEFAULT 0,
    access_version  bigint NOT NULL DEFAULT 0,
    quota_version   bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE installation IS 'What all nodes of one installation share; one row';
COMMENT ON COLUMN installation.installation_id IS 'begins the keys of its objects, so that installations can share a bucket';
COMMENT ON COLUMN installation.receipt_key IS 'HMAC-SHA256 key of receipts, 32 random bytes';
COMMENT ON COLUMN installation.hot_slot IS 'the hot_payload table that new blocks go to; a node may lag behind without harm';
COMMENT ON COLUMN installation.rotated_at IS 'when hot_slot last changed';
COMMENT ON COLUMN installation.catalog_version IS 'raised when a topic or subscription changes; nodes that see it drop what they cached';
COMMENT ON COLUMN installation.access_version IS 'raised when a key, an issuer or a tenant changes; nodes that see it read again what they let in';
COMMENT ON COLUMN installation.quota_version IS 'raised when a quota changes; nodes that see it read the quotas that changed since';

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

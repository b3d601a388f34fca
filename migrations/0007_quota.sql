-- Home: what a tenant may do, and what its nodes report to each other of its demand. Limits repeat api/src/limits.rs.

CREATE TABLE quota (
    tenant_id           bigint PRIMARY KEY REFERENCES tenant,
    requests_guaranteed bigint CHECK (requests_guaranteed BETWEEN 0 AND 1000000000000000),
    requests_ceiling    bigint CHECK (requests_ceiling BETWEEN 1 AND 1000000000000000),
    messages_guaranteed bigint CHECK (messages_guaranteed BETWEEN 0 AND 1000000000000000),
    messages_ceiling    bigint CHECK (messages_ceiling BETWEEN 1 AND 1000000000000000),
    bytes_guaranteed    bigint CHECK (bytes_guaranteed BETWEEN 0 AND 1000000000000000),
    bytes_ceiling       bigint CHECK (bytes_ceiling BETWEEN 1 AND 1000000000000000),
    concurrent_requests bigint CHECK (concurrent_requests BETWEEN 1 AND 1000000000000000),
    stored_bytes        bigint CHECK (stored_bytes BETWEEN 1 AND 1000000000000000),
    topics              bigint CHECK (topics BETWEEN 1 AND 1000000000000000),
    subscriptions       bigint CHECK (subscriptions BETWEEN 1 AND 1000000000000000),
    in_flight           bigint CHECK (in_flight BETWEEN 1 AND 1000000000000000),
    stopped_until       timestamptz,
    version             bigint NOT NULL,
    updated_at          timestamptz NOT NULL,
    CONSTRAINT quota_requests CHECK (requests_guaranteed <= requests_ceiling),
    CONSTRAINT quota_messages CHECK (messages_guaranteed <= messages_ceiling),
    CONSTRAINT quota_bytes CHECK (bytes_guaranteed <= bytes_ceiling)
);
-- serves: what changed since a version
CREATE INDEX quota_version ON quota (version);
COMMENT ON TABLE quota IS 'Limits of a tenant over all nodes; a null is no limit, and so is no row. A quota that is taken away stays as a row of nulls, so that nodes notice';
COMMENT ON COLUMN quota.tenant_id IS 'the tenant';
COMMENT ON COLUMN quota.requests_guaranteed IS 'requests per second served also when the service is short of capacity; null: all up to the ceiling';
COMMENT ON COLUMN quota.requests_ceiling IS 'requests per second at most';
COMMENT ON COLUMN quota.messages_guaranteed IS 'the same for messages published per second';
COMMENT ON COLUMN quota.messages_ceiling IS 'messages published per second at most';
COMMENT ON COLUMN quota.bytes_guaranteed IS 'the same for bytes of messages published per second';
COMMENT ON COLUMN quota.bytes_ceiling IS 'bytes of messages published per second at most';
COMMENT ON COLUMN quota.concurrent_requests IS 'requests at the same time at most';
COMMENT ON COLUMN quota.stored_bytes IS 'bytes of payloads kept at most, as stored';
COMMENT ON COLUMN quota.topics IS 'topics at most; a transaction that makes one locks this row and counts';
COMMENT ON COLUMN quota.subscriptions IS 'subscriptions at most, in the same way';
COMMENT ON COLUMN quota.in_flight IS 'messages handed out and not settled at most, over all subscriptions';
COMMENT ON COLUMN quota.stopped_until IS 'until then publishes and receives are refused, because a budget is spent; null: they are not';
COMMENT ON COLUMN quota.version IS 'the quota_version of the installation that this change made';
COMMENT ON COLUMN quota.updated_at IS 'time of the last change';

-- Not logged: nothing of it is worth anything after a crash, and a commit that wrote no log waits for no disk.
CREATE UNLOGGED TABLE quota_demand (
    tenant_id           bigint NOT NULL,
    node_id             uuid NOT NULL,
    at                  timestamptz NOT NULL,
    requests_wanted     double precision NOT NULL CHECK (requests_wanted >= 0),
    requests_taken      bigint NOT NULL CHECK (requests_taken >= 0),
    requests_guaranteed bigint NOT NULL CHECK (requests_guaranteed >= 0),
    messages_wanted     double precision NOT NULL CHECK (messages_wanted >= 0),
    messages_taken      bigint NOT NULL CHECK (messages_taken >= 0),
    messages_guaranteed bigint NOT NULL CHECK (messages_guaranteed >= 0),
    bytes_wanted        double precision NOT NULL CHECK (bytes_wanted >= 0),
    bytes_taken         bigint NOT NULL CHECK (bytes_taken >= 0),
    bytes_guaranteed    bigint NOT NULL CHECK (bytes_guaranteed >= 0),
    concurrent_wanted   double precision NOT NULL CHECK (concurrent_wanted >= 0),
    -- serves: the demand of one tenant on the other nodes
    PRIMARY KEY (tenant_id, node_id)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE quota_demand IS 'What a limited tenant asks of each node and gets there, written about four times a second while it asks; old rows are of nodes that died or have no demand';
COMMENT ON COLUMN quota_demand.tenant_id IS 'the tenant';
COMMENT ON COLUMN quota_demand.node_id IS 'the node';
COMMENT ON COLUMN quota_demand.at IS 'when it was written; after 2.5 seconds it counts no more';
COMMENT ON COLUMN quota_demand.requests_wanted IS 'requests per second that came, admitted or not';
COMMENT ON COLUMN quota_demand.requests_taken IS 'requests admitted since demand began there';
COMMENT ON COLUMN quota_demand.requests_guaranteed IS 'those of them inside the guarantee';
COMMENT ON COLUMN quota_demand.messages_wanted IS 'messages per second that came, admitted or not';
COMMENT ON COLUMN quota_demand.messages_taken IS 'messages admitted since demand began there';
COMMENT ON COLUMN quota_demand.messages_guaranteed IS 'those of them inside the guarantee';
COMMENT ON COLUMN quota_demand.bytes_wanted IS 'bytes per second that came, admitted or not';
COMMENT ON COLUMN quota_demand.bytes_taken IS 'bytes admitted since demand began there';
COMMENT ON COLUMN quota_demand.bytes_guaranteed IS 'those of them inside the guarantee';
COMMENT ON COLUMN quota_demand.concurrent_wanted IS 'requests under way, and those that found no place lately';

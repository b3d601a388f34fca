-- Home: what tenants used. What is published is measured in the block itself, so that it commits with the messages; a duty
-- adds blocks up by minute, exactly once. Other meters are flushed by the nodes. Minutes roll up into hours and hours into
-- days. There are no foreign keys: usage outlives what it names.
--
-- Locks are taken in the order lane_meter (in order of lane), usage_hour (storage only), lanes, leases, cursors, blocks,
-- usage_minute, tenant_meter. Roll-ups go from finer to coarser, and minutes know no storage, so no two transactions wait for
-- each other in a circle; where a late minute meets its roll-up in another order of rows the database ends one, which is
-- tried again.

CREATE TABLE usage_minute (
    tenant_id     bigint NOT NULL,
    at            timestamptz NOT NULL,
    meter         text COLLATE "C" NOT NULL CHECK (meter ~ '^[a-z][a-z_]{0,63}$'),
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
    meter         text COLLATE "C" NOT NULL CHECK (meter ~ '^[a-z][a-z_]{0,63}$'),
    topic         text COLLATE "C" NOT NULL CHECK (length(topic) <= 128),
    subscription  text COLLATE "C" NOT NULL CHECK (length(subscription) <= 128),
    units         bigint NOT NULL CHECK (units >= 0),
    elastic_units bigint NOT NULL CHECK (elastic_units BETWEEN 0 AND units),
    messages      bigint NOT NULL CHECK (messages >= 0),
    bytes         bigint NOT NULL CHECK (bytes >= 0),
    over_time     numeric NOT NULL CHECK (over_time >= 0),
    -- also serves reading a tenant's usage in order of time
    PRIMARY KEY (tenant_id, at, meter, topic, subscription)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- serves: rolling up what is old, of all tenants
CREATE INDEX usage_hour_at ON usage_hour (at);
COMMENT ON TABLE usage_hour IS 'Usage by hour, of storage from the start, of the rest when its minutes are old; older hours are in usage_day, never in both';
COMMENT ON COLUMN usage_hour.tenant_id IS 'who pays';
COMMENT ON COLUMN usage_hour.at IS 'start of the hour';
COMMENT ON COLUMN usage_hour.meter IS 'what was used, by the name of a meter of the API: a new meter is no change of the schema';
COMMENT ON COLUMN usage_hour.topic IS 'name of the topic; empty when a node had too many names to keep';
COMMENT ON COLUMN usage_hour.subscription IS 'name of the subscription; empty where there is none';
COMMENT ON COLUMN usage_hour.units IS 'metering units';
COMMENT ON COLUMN usage_hour.elastic_units IS 'of these, units above the tenant''s guarantee';
COMMENT ON COLUMN usage_hour.messages IS 'messages';
COMMENT ON COLUMN usage_hour.bytes IS 'bytes';
COMMENT ON COLUMN usage_hour.over_time IS 'what is metered over time: of storage bytes by seconds, of guaranteed capacity messages a second by seconds; 0 of the rest';

CREATE TABLE usage_day (LIKE usage_hour INCLUDING CONSTRAINTS INCLUDING COMMENTS INCLUDING STORAGE);
-- also serves reading a tenant's usage in order of time
ALTER TABLE usage_day ADD PRIMARY KEY (tenant_id, at, meter, topic, subscription);
-- serves: deleting what need not be kept any more, of all tenants
CREATE INDEX usage_day_at ON usage_day (at);
COMMENT ON TABLE usage_day IS 'Usage by day, when its hours are old';
COMMENT ON COLUMN usage_day.at IS 'start of the day, UTC';
COMMENT ON COLUMN usage_day.over_time IS 'as in usage_hour';

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

CREATE TABLE tenant_meter (
    tenant_id      bigint PRIMARY KEY,
    messages_total bigint NOT NULL CHECK (messages_total >= 0),
    units_total    bigint NOT NULL CHECK (units_total >= 0)
);
COMMENT ON TABLE tenant_meter IS 'What was counted in lanes that are gone: taken over from lane_meter, so that bills can be checked';
COMMENT ON COLUMN tenant_meter.tenant_id IS 'who pays';
COMMENT ON COLUMN tenant_meter.messages_total IS 'messages counted';
COMMENT ON COLUMN tenant_meter.units_total IS 'units counted';

CREATE TABLE capacity_meter (
    tenant_id  bigint PRIMARY KEY REFERENCES tenant,
    guaranteed bigint NOT NULL CHECK (guaranteed BETWEEN 1 AND 1000000000000000),
    posted_at  timestamptz NOT NULL
);
COMMENT ON TABLE capacity_meter IS 'Until when the guaranteed capacity of a tenant is posted to usage_hour; a transaction that posts it or changes the guarantee locks its row first, so each second counts once (I8). No row: no guarantee';
COMMENT ON COLUMN capacity_meter.tenant_id IS 'who pays, also while suspended';
COMMENT ON COLUMN capacity_meter.guaranteed IS 'messages per second, as in quota.messages_guaranteed';
COMMENT ON COLUMN capacity_meter.posted_at IS 'until when it is posted';

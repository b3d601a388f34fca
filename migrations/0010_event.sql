-- Home: event sinks, where events of the service (usage, budgets) go, and the events that wait for their delivery. The
-- transaction that makes an event writes it into the outbox. Limits repeat api/src/limits.rs.
--
-- Locks: a sink's row, then its rows in the outbox; nothing else is locked after a sink.

CREATE TABLE event_sink (
    sink_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       bigint NOT NULL REFERENCES tenant,
    name            text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    topic_id        bigint REFERENCES topic,
    url             text CHECK (length(url) BETWEEN 1 AND 2048),
    secret          bytea CHECK (length(secret) BETWEEN 24 AND 64),
    kinds           text[] NOT NULL CHECK (cardinality(kinds) BETWEEN 1 AND 2 AND kinds <@ ARRAY['usage', 'budget']),
    granularity     text COLLATE "C" NOT NULL CHECK (granularity IN ('minute', 'hour')),
    all_tenants     boolean NOT NULL,
    batch           boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    next_window     timestamptz CHECK (date_trunc('minute', next_window, 'UTC') = next_window),
    begun_seconds   integer CHECK (begun_seconds IN (60, 3600, 86400)),
    after_tenant    bigint NOT NULL DEFAULT 0 CHECK (after_tenant >= 0),
    after_key       text COLLATE "C" NOT NULL DEFAULT '' CHECK (length(after_key) <= 300),
    next_attempt_at timestamptz NOT NULL,
    claim           bigint NOT NULL DEFAULT 0 CHECK (claim >= 0),
    claimed_until   timestamptz,
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    delivered_at    timestamptz,
    failed_at       timestamptz,
    failure         text CHECK (length(failure) BETWEEN 1 AND 200),
    disabled_at     timestamptz,
    -- also serves reading a tenant's sinks in order of name
    UNIQUE (tenant_id, name),
    CHECK ((topic_id IS NULL) <> (url IS NULL)),
    CHECK ((url IS NULL) = (secret IS NULL)),
    CHECK (NOT batch OR url IS NOT NULL),
    CHECK ((next_window IS NOT NULL) = ('usage' = ANY (kinds))),
    CHECK (begun_seconds IS NOT NULL OR (after_tenant = 0 AND after_key = '')),
    CHECK ((failed_at IS NULL) = (failure IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- serves: the sinks that need a topic
CREATE INDEX event_sink_topic ON event_sink (topic_id) WHERE topic_id IS NOT NULL;
-- serves: the sinks that want the events of every tenant
CREATE INDEX event_sink_all ON event_sink (sink_id) WHERE all_tenants;
COMMENT ON TABLE event_sink IS 'Where events go, how far usage was made into events, and how the last delivery went';
COMMENT ON COLUMN event_sink.sink_id IS 'internal number';
COMMENT ON COLUMN event_sink.tenant_id IS 'whose sink it is';
COMMENT ON COLUMN event_sink.name IS 'what it is called, within the tenant';
COMMENT ON COLUMN event_sink.topic_id IS 'the topic of the tenant that events are published to; null: url';
COMMENT ON COLUMN event_sink.url IS 'where events are sent to; null: topic_id';
COMMENT ON COLUMN event_sink.secret IS 'HMAC-SHA256 key of the signatures of what is sent to url';
COMMENT ON COLUMN event_sink.kinds IS 'which events it gets';
COMMENT ON COLUMN event_sink.granularity IS 'length of the windows of its usage events';
COMMENT ON COLUMN event_sink.all_tenants IS 'it gets the events of all tenants, not only of its own';
COMMENT ON COLUMN event_sink.batch IS 'url takes several events at once';
COMMENT ON COLUMN event_sink.created_at IS 'time of creation';
COMMENT ON COLUMN event_sink.updated_at IS 'time of the last change of settings';
COMMENT ON COLUMN event_sink.next_window IS 'start of the first window of which usage is not yet all made into events; null: it gets no usage';
COMMENT ON COLUMN event_sink.begun_seconds IS 'seconds of that window, when some of it is; null: nothing of it is';
COMMENT ON COLUMN event_sink.after_tenant IS 'tenants up to this number are done in that window';
COMMENT ON COLUMN event_sink.after_key IS 'of the tenant after that, usage up to this place is done; empty: none';
COMMENT ON COLUMN event_sink.next_attempt_at IS 'no delivery begins before';
COMMENT ON COLUMN event_sink.claim IS 'number of the delivery that goes on or was last';
COMMENT ON COLUMN event_sink.claimed_until IS 'until when that delivery keeps others away; null: none goes on';
COMMENT ON COLUMN event_sink.attempts IS 'attempts that failed since the last that did not';
COMMENT ON COLUMN event_sink.delivered_at IS 'when events were last delivered';
COMMENT ON COLUMN event_sink.failed_at IS 'when a delivery last failed';
COMMENT ON COLUMN event_sink.failure IS 'why it did';
COMMENT ON COLUMN event_sink.disabled_at IS 'when url answered that it is gone: nothing is sent until the sink is put again';

CREATE TABLE event_outbox (
    sink_id  bigint NOT NULL REFERENCES event_sink ON DELETE CASCADE,
    seq      bigint GENERATED ALWAYS AS IDENTITY,
    event_id text COLLATE "C" NOT NULL CHECK (event_id ~ '^[0-9a-f]{32}$'),
    event    text NOT NULL CHECK (length(event) BETWEEN 1 AND 65536),
    -- also serves reading what waits for a sink in its order
    PRIMARY KEY (sink_id, seq),
    UNIQUE (sink_id, event_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE event_outbox IS 'Events that wait for their delivery, one row a sink; deleted once delivered';
COMMENT ON COLUMN event_outbox.sink_id IS 'for which sink';
COMMENT ON COLUMN event_outbox.seq IS 'order of delivery';
COMMENT ON COLUMN event_outbox.event_id IS 'id of the event, the same whenever it is made again';
COMMENT ON COLUMN event_outbox.event IS 'the whole CloudEvent, JSON';

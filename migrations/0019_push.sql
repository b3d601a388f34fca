-- Home: endpoints that messages are pushed to, and the keys of tenants that sign. Limits repeat api/src/limits.rs.
-- Lane: attempts of deliveries. No foreign key points from one group to the other.
--
-- Locks: the row of the subscription, then that of its endpoint; nothing else is locked after an endpoint.

CREATE TABLE push_endpoint (
    subscription_id    bigint PRIMARY KEY REFERENCES subscription ON DELETE CASCADE,
    tenant_id          bigint NOT NULL REFERENCES tenant,
    settings           text NOT NULL CHECK (length(settings) BETWEEN 2 AND 262144),
    credential         text CHECK (length(credential) BETWEEN 1 AND 2048),
    secret             bytea NOT NULL CHECK (length(secret) BETWEEN 24 AND 64),
    old_secret         bytea CHECK (length(old_secret) BETWEEN 24 AND 64),
    old_secret_until   timestamptz,
    granted_per_minute integer CHECK (granted_per_minute > 0),
    version            bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    driver             uuid,
    paused_at          timestamptz,
    disabled_at        timestamptz,
    disabled_reason    text CHECK (length(disabled_reason) BETWEEN 1 AND 200),
    disabled_told      boolean NOT NULL DEFAULT false,
    failing_since      timestamptz,
    stats              text CHECK (length(stats) BETWEEN 2 AND 8192),
    CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- serves: the endpoints of a node, and how many each node has
CREATE INDEX push_endpoint_driver ON push_endpoint (driver) WHERE paused_at IS NULL AND disabled_at IS NULL;
-- serves: the endpoints whose tenants are to be told that they were disabled
CREATE INDEX push_endpoint_disabled ON push_endpoint (disabled_at) WHERE disabled_at IS NOT NULL AND NOT disabled_told;
COMMENT ON TABLE push_endpoint IS 'Where the messages of a push subscription are delivered to, and which node does it';
COMMENT ON COLUMN push_endpoint.subscription_id IS 'the subscription; without a row its messages are received';
COMMENT ON COLUMN push_endpoint.tenant_id IS 'owner, the same as the subscription''s';
COMMENT ON COLUMN push_endpoint.settings IS 'the settings as they are shown, JSON; read by the service, never by SQL';
COMMENT ON COLUMN push_endpoint.credential IS 'password or token that requests carry; never shown';
COMMENT ON COLUMN push_endpoint.secret IS 'HMAC-SHA256 key of the signatures of requests';
COMMENT ON COLUMN push_endpoint.old_secret IS 'the key before, which goes on to sign';
COMMENT ON COLUMN push_endpoint.old_secret_until IS 'until when it does';
COMMENT ON COLUMN push_endpoint.granted_per_minute IS 'requests a minute that the endpoint has consented to; null: any number';
COMMENT ON COLUMN push_endpoint.version IS 'raised with every change that its driver must know';
COMMENT ON COLUMN push_endpoint.driver IS 'the node that delivers, as long as it is alive; null: none';
COMMENT ON COLUMN push_endpoint.paused_at IS 'when it was paused by a call; null: it is not';
COMMENT ON COLUMN push_endpoint.disabled_at IS 'when it was disabled because it is gone or failed for long; null: it is not';
COMMENT ON COLUMN push_endpoint.disabled_reason IS 'why it was';
COMMENT ON COLUMN push_endpoint.disabled_told IS 'whether an event of that was made';
COMMENT ON COLUMN push_endpoint.failing_since IS 'since when every request failed; null: the last did not';
COMMENT ON COLUMN push_endpoint.stats IS 'how deliveries go, as its driver reported last, JSON';

CREATE TABLE signing_key (
    tenant_id  bigint PRIMARY KEY REFERENCES tenant,
    key_id     uuid NOT NULL,
    seed       bytea NOT NULL CHECK (length(seed) = 32),
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE signing_key IS 'Ed25519 keys that sign what is sent for a tenant; made when first needed';
COMMENT ON COLUMN signing_key.tenant_id IS 'whose key it is';
COMMENT ON COLUMN signing_key.key_id IS 'names it in signatures and in the tenant''s set of public keys';
COMMENT ON COLUMN signing_key.seed IS 'the private key (RFC 8032)';
COMMENT ON COLUMN signing_key.created_at IS 'time of creation';

CREATE TABLE push_attempt (
    lane_id         bigint NOT NULL,
    last_offset     bigint NOT NULL,
    attempt_id      bigint GENERATED ALWAYS AS IDENTITY,
    first_offset    bigint NOT NULL,
    subscription_id bigint NOT NULL,
    at              timestamptz NOT NULL,
    attempts        bytea NOT NULL,
    -- serves: the attempts of a message, found by its offset
    PRIMARY KEY (lane_id, last_offset, attempt_id)
);
-- serves: the attempts that are too old
CREATE INDEX push_attempt_at ON push_attempt (at);
COMMENT ON TABLE push_attempt IS 'Attempts to deliver messages, many in a row, appended and deleted by age';
COMMENT ON COLUMN push_attempt.lane_id IS 'the lane of the messages';
COMMENT ON COLUMN push_attempt.last_offset IS 'highest offset of the messages';
COMMENT ON COLUMN push_attempt.attempt_id IS 'order of recording';
COMMENT ON COLUMN push_attempt.first_offset IS 'lowest offset of the messages';
COMMENT ON COLUMN push_attempt.subscription_id IS 'the subscription that was delivered';
COMMENT ON COLUMN push_attempt.at IS 'when they were recorded';
COMMENT ON COLUMN push_attempt.attempts IS 'the attempts, JSON compressed by zstd';
ALTER TABLE push_attempt ALTER COLUMN attempts SET STORAGE EXTERNAL;

ALTER TABLE event_sink DROP CONSTRAINT event_sink_kinds_check, ADD CONSTRAINT event_sink_kinds CHECK
    (cardinality(kinds) BETWEEN 1 AND 3 AND kinds <@ ARRAY['usage', 'budget', 'endpoint']);

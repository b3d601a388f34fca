-- Home: topics and subscriptions. Limits repeat api/src/limits.rs.

CREATE TABLE topic (
    topic_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id            bigint NOT NULL REFERENCES tenant,
    name                 text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    lanes                bigint[] NOT NULL DEFAULT '{}',
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
COMMENT ON COLUMN topic.lanes IS 'its lanes in order of lane.number, so that the look-up of a topic reads no table of the lanes; a lane is inserted first and listed here after';
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
    fairness_names       text[],
    fairness_weights     smallint[],
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    -- also serves look-up by name and the list in order of name
    UNIQUE (tenant_id, name),
    CONSTRAINT subscription_fairness CHECK (
        (fairness_names IS NULL) = (fairness_weights IS NULL) AND cardinality(fairness_names) <= 100
        AND cardinality(fairness_names) = cardinality(fairness_weights)
        AND 1 <= ALL (fairness_weights) AND 100 >= ALL (fairness_weights))
);
-- serves: the subscriptions that read a topic (deleting it, adding a lane, retention)
CREATE INDEX subscription_topic ON subscription (topic_id);
-- serves: the subscriptions that dead-letter to a topic (deleting it)
CREATE INDEX subscription_dead_letter ON subscription (dead_letter_topic_id) WHERE dead_letter_topic_id IS NOT NULL;
COMMENT ON TABLE subscription IS 'Named, durable, independent reading of one topic';
COMMENT ON COLUMN subscription.subscription_id IS 'internal number, never used again; rises in the order in which the subscriptions of a topic are committed';
COMMENT ON COLUMN subscription.tenant_id IS 'owner, the same as the topic''s';
COMMENT ON COLUMN subscription.topic_id IS 'the topic it reads';
COMMENT ON COLUMN subscription.name IS 'unique within its tenant';
COMMENT ON COLUMN subscription.visibility_seconds IS 'seconds a lease hides its messages unless the receive says otherwise';
COMMENT ON COLUMN subscription.max_attempts IS 'attempts before a message goes to the dead-letter topic';
COMMENT ON COLUMN subscription.dead_letter_topic_id IS 'takes the messages whose attempts are used up; null: they are redelivered';
COMMENT ON COLUMN subscription.max_in_flight IS 'messages that may be leased at once';
COMMENT ON COLUMN subscription.fairness_names IS 'fairness keys with a weight of their own; null: customers do not take turns';
COMMENT ON COLUMN subscription.fairness_weights IS 'their weights, in the same order';
COMMENT ON COLUMN subscription.created_at IS 'time of creation';
COMMENT ON COLUMN subscription.updated_at IS 'time of the last change of settings';

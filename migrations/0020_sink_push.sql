-- Home: events for the URLs of sinks go through the log, like all that is pushed. Each sink with a URL has a topic of one
-- lane and a push subscription, which belong to the system tenant: a tenant that no key and no token opens and that has no
-- quota. Its name is empty, so that no request can name it and no list, which begins after the empty name, has it. Its lanes
-- have no meter, so nothing of it is billed. A node gives a sink its subscription when it is put, or when its
-- first event is due.
--
-- An event stays in the outbox until its delivery is settled. Until then the row has its offset in the topic of the sink.
--
-- Locks: a sink's row, then its subscription with its endpoint, its topic and lane, its rows in the outbox.

ALTER TABLE tenant DROP CONSTRAINT tenant_name_form, DROP CONSTRAINT tenant_name_check,
    ADD CONSTRAINT tenant_name_form CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' OR tenant_id = -2 AND name = '');
INSERT INTO tenant (tenant_id, name, created_at) OVERRIDING SYSTEM VALUE VALUES (-2, '', now());
COMMENT ON TABLE tenant IS 'Owner of topics, subscriptions and keys; nothing crosses tenants (I7). Number -2 is the service itself';

ALTER TABLE event_sink ADD COLUMN subscription_id bigint UNIQUE REFERENCES subscription,
    ADD CONSTRAINT event_sink_subscription CHECK (subscription_id IS NULL OR url IS NOT NULL);
COMMENT ON COLUMN event_sink.subscription_id IS 'the subscription of the system tenant that pushes events to url; null: none yet, or topic_id';

ALTER TABLE event_outbox ADD COLUMN published_offset bigint CHECK (published_offset >= 0);
COMMENT ON COLUMN event_outbox.published_offset IS 'offset in the topic of the subscription of its sink; null: not published yet';

ALTER TABLE push_endpoint ADD COLUMN failed_attempts integer NOT NULL DEFAULT 0 CHECK (failed_attempts >= 0),
    ADD COLUMN next_attempt_at timestamptz;
COMMENT ON COLUMN push_endpoint.failed_attempts IS 'attempts that failed since the last that did not; counted of endpoints that get messages in order';
COMMENT ON COLUMN push_endpoint.next_attempt_at IS 'no request begins before; null: it may begin';

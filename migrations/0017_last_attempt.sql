-- Lane: leases that were handed out for the last time, so that the duty `used_up` finds those whose deadline has passed
-- without reading the leases of subscriptions that nobody receives from (src/engine/receive/used_up.rs).

CREATE TABLE last_attempt (
    lane_id         bigint NOT NULL,
    subscription_id bigint NOT NULL,
    lease_id        bigint NOT NULL,
    due_at          timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- serves: entries that are due, from a moving lower bound
CREATE INDEX last_attempt_due ON last_attempt (due_at);
COMMENT ON TABLE last_attempt IS 'Leases whose messages have no attempt left: dead letters when their deadline passes. An entry may outlive its lease, and a lease may have several; the lease decides. A turn inserts it, the duty used_up deletes it';
COMMENT ON COLUMN last_attempt.lane_id IS 'lane of the lease';
COMMENT ON COLUMN last_attempt.subscription_id IS 'subscription of the lease';
COMMENT ON COLUMN last_attempt.lease_id IS 'the lease';
COMMENT ON COLUMN last_attempt.due_at IS 'its deadline when the entry was made; it may be later now';

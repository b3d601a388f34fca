-- Lane: receipts that are void, so that a repeated ack can be told from one that comes too late. An ack leaves nothing
-- behind; what is recorded is the rare opposite, that a lease lost messages in another way (src/store/lost_lease.rs).

CREATE TABLE lost_lease (
    lane_id         bigint NOT NULL,
    subscription_id bigint NOT NULL,
    lease_id        bigint NOT NULL,
    bits            bigint NOT NULL,
    lost_at         timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- serves: what a lease has lost
CREATE INDEX lost_lease_key ON lost_lease (lane_id, subscription_id, lease_id);
-- serves: the one row of a pair that says how far records were deleted
CREATE UNIQUE INDEX lost_lease_forgotten ON lost_lease (lane_id, subscription_id) INCLUDE (lease_id) WHERE bits = 0;
-- serves: records that are old enough to be deleted, from a moving lower bound
CREATE INDEX lost_lease_age ON lost_lease (lost_at) WHERE bits <> 0;
COMMENT ON TABLE lost_lease IS 'Messages that a lease has lost without an ack: they failed, or were handed out again. Written by the transaction that takes them away (I3)';
COMMENT ON COLUMN lost_lease.lane_id IS 'lane of the lease';
COMMENT ON COLUMN lost_lease.subscription_id IS 'subscription of the lease';
COMMENT ON COLUMN lost_lease.lease_id IS 'the lease, as receipts name it';
COMMENT ON COLUMN lost_lease.bits IS 'the messages; 0: records of leases up to this one may be deleted, so that nothing is known of them';
COMMENT ON COLUMN lost_lease.lost_at IS 'when it lost them';

-- Fairness inside a subscription. What it has looked at ahead of the cursor stands in `lease` as waiting leases: attempt 0,
-- due at once, so that retention, stats and nodes that know nothing of fairness treat them as what they are. A waiting
-- lease has an id below 0 that says its place, so that the primary key finds the next one of a customer and no index is
-- added to what every claim writes. A node of an older version that meets one hands it out in its own order, no harm done.

CREATE TABLE fairness (
    lane_id         bigint NOT NULL,
    subscription_id bigint NOT NULL,
    version         bigint NOT NULL CHECK (version >= 0),
    slots           smallint[]    NOT NULL,
    names           text[]        NOT NULL,
    leads           bigint[]      NOT NULL,
    heads           bigint[]      NOT NULL,
    waiting         bigint[]      NOT NULL,
    runs            bigint[]      NOT NULL,
    handed_out      bigint[]      NOT NULL,
    served_at       timestamptz[] NOT NULL,
    PRIMARY KEY (lane_id, subscription_id, version),
    CONSTRAINT fairness_keys CHECK (cardinality(slots) <= 1002),
    CONSTRAINT fairness_alike CHECK (
        cardinality(names) = cardinality(slots) AND cardinality(leads) = cardinality(slots)
        AND cardinality(heads) = cardinality(slots) AND cardinality(waiting) = cardinality(slots)
        AND cardinality(runs) = cardinality(slots) AND cardinality(handed_out) = cardinality(slots)
        AND cardinality(served_at) = cardinality(slots)),
    CONSTRAINT fairness_ranges CHECK (
        0 <= ALL (slots) AND 8192 > ALL (slots) AND 0 <= ALL (leads) AND 0 <= ALL (heads) AND 0 <= ALL (waiting)
        AND 0 <= ALL (runs) AND 0 <= ALL (handed_out))
) WITH (fillfactor = 50, toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE fairness IS 'The fair order of a lane and subscription: one row per pair, an array element per customer. Written only by who holds the lock of the cursor of the pair. Each change raises version, which is in the key, as in cursor';
COMMENT ON COLUMN fairness.lane_id IS 'the lane';
COMMENT ON COLUMN fairness.subscription_id IS 'the subscription';
COMMENT ON COLUMN fairness.version IS 'raised by one with every change';
COMMENT ON COLUMN fairness.slots IS 'number of the customer in the ids of its waiting leases: -2^63 + slot * 2^50 + base; 0: messages without a key, 1: customers beyond the limit together';
COMMENT ON COLUMN fairness.names IS 'fairness key; null in slots 0 and 1';
COMMENT ON COLUMN fairness.leads IS 'how far the virtual start of its next message is ahead of the virtual time; a message of weight 1 is 1,000,000';
COMMENT ON COLUMN fairness.heads IS 'no waiting lease has a base below, as a rule; 0 when that is not known';
COMMENT ON COLUMN fairness.waiting IS 'messages in waiting leases, at most: retention, and nodes that know nothing of fairness, take some away';
COMMENT ON COLUMN fairness.runs IS 'waiting leases, at most';
COMMENT ON COLUMN fairness.handed_out IS 'messages handed out for the first time since it came to wait';
COMMENT ON COLUMN fairness.served_at IS 'when it was last handed something, or came to wait';

ALTER TABLE subscription
    ADD COLUMN fairness_names   text[],
    ADD COLUMN fairness_weights smallint[],
    ADD CONSTRAINT subscription_fairness CHECK (
        (fairness_names IS NULL) = (fairness_weights IS NULL) AND cardinality(fairness_names) <= 100
        AND cardinality(fairness_names) = cardinality(fairness_weights)
        AND 1 <= ALL (fairness_weights) AND 100 >= ALL (fairness_weights));
COMMENT ON COLUMN subscription.fairness_names IS 'fairness keys with a weight of their own; null: customers do not take turns';
COMMENT ON COLUMN subscription.fairness_weights IS 'their weights, in the same order';

-- Last, because nobody claims or settles while it is locked; nullable and without an index, so it takes no time.
ALTER TABLE lease ADD COLUMN fairness_id bigint;
COMMENT ON COLUMN lease.fairness_id IS 'whose messages: the first 63 bits of the SHA-256 of the fairness key, 0 without one, 1 of those beyond the limit; null: not handed out in turns';
COMMENT ON COLUMN lease.lease_id IS 'new with every handing out; receipts name it, so an old receipt finds nothing. Below 0: waits for its turn, and nobody has a receipt';

-- Lane: how far each subscription has read a lane, what it has handed out, and in which order customers are served.
--
-- `cursor` and `lease` have no CHECK constraints, for the reason given in 0004_log.sql.

CREATE TABLE cursor (
    lane_id         bigint NOT NULL,
    subscription_id bigint NOT NULL,
    version         bigint NOT NULL,
    next_offset     bigint NOT NULL,
    PRIMARY KEY (lane_id, subscription_id, version)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE cursor IS 'How far a subscription has read a lane; one row per pair. Each move raises version, which is in the key, so that a look-up begins at the newest index entry and never walks the dead versions that a long transaction keeps alive';
COMMENT ON COLUMN cursor.lane_id IS 'the lane';
COMMENT ON COLUMN cursor.subscription_id IS 'the subscription';
COMMENT ON COLUMN cursor.version IS 'raised by one with every move';
COMMENT ON COLUMN cursor.next_offset IS 'next offset not handed out yet';

CREATE SEQUENCE lease_id_seq CACHE 256;

CREATE TABLE lease (
    lane_id         bigint NOT NULL,
    subscription_id bigint NOT NULL,
    lease_id        bigint NOT NULL,
    part            smallint NOT NULL,
    base            bigint NOT NULL,
    pending         bigint NOT NULL,
    deadline        timestamptz NOT NULL,
    attempt         integer NOT NULL,
    delayed         boolean NOT NULL,
    first_failed_at timestamptz,
    last_failed_at  timestamptz,
    order_key       bigint,
    waiting         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (lane_id, subscription_id, lease_id, part)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- serves: leases past their deadline, read from a moving lower bound
-- The predicate is true of every row: it keeps look-ups by lease, whose plans are made while the table is empty, off this
-- index, where they would walk every lease of the subscription.
CREATE INDEX lease_deadline ON lease (lane_id, subscription_id, deadline) WHERE attempt >= 0;
-- serves: the next waiting leases of an order key. No claim of a plain subscription writes to it.
CREATE UNIQUE INDEX lease_waiting ON lease (lane_id, subscription_id, order_key, base) WHERE waiting;
COMMENT ON TABLE lease IS 'Messages handed out together and not all settled (I2, I3)';
COMMENT ON COLUMN lease.lane_id IS 'the lane';
COMMENT ON COLUMN lease.subscription_id IS 'the subscription';
COMMENT ON COLUMN lease.lease_id IS 'new with every handing out; receipts name it, so an old receipt finds nothing';
COMMENT ON COLUMN lease.part IS '0: as handed out; bit + 1: one message whose visibility was changed, split off with its receipt intact';
COMMENT ON COLUMN lease.base IS 'offset of bit 0';
COMMENT ON COLUMN lease.pending IS 'bit i: the message at base + i is not settled';
COMMENT ON COLUMN lease.deadline IS 'until then no other receiver gets these messages';
COMMENT ON COLUMN lease.attempt IS 'how many times they have been handed out';
COMMENT ON COLUMN lease.delayed IS 'given back with a delay: there is no receipt';
COMMENT ON COLUMN lease.first_failed_at IS 'when an attempt first ended without an ack';
COMMENT ON COLUMN lease.last_failed_at IS 'when an attempt last ended without an ack';
COMMENT ON COLUMN lease.order_key IS 'by what the messages are told apart in a subscription with an order of its own: the first 63 bits of the SHA-256 of the fairness key, 0 without one, 1 of those beyond the limit; null: the order is that of the log';
COMMENT ON COLUMN lease.waiting IS 'read ahead of the cursor and not handed out yet: attempt 0, due at once, without a receipt, and its order_key is set';

-- What a fair subscription has read ahead of its cursor is in `lease` as waiting leases: attempt 0, due at once, so that
-- retention and stats treat them as what they are.
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
COMMENT ON TABLE fairness IS 'The fair order of a lane and subscription: one row per pair, an array element per customer. Written only under the lock of the cursor of the pair. Each change raises version, which is in the key, as in cursor';
COMMENT ON COLUMN fairness.lane_id IS 'the lane';
COMMENT ON COLUMN fairness.subscription_id IS 'the subscription';
COMMENT ON COLUMN fairness.version IS 'raised by one with every change';
COMMENT ON COLUMN fairness.slots IS 'number of the customer in this row; 0: messages without a key, 1: customers beyond the limit together';
COMMENT ON COLUMN fairness.names IS 'fairness key; null in slots 0 and 1';
COMMENT ON COLUMN fairness.leads IS 'how far the virtual start of its next message is ahead of the virtual time; a message of weight 1 is 1,000,000';
COMMENT ON COLUMN fairness.heads IS 'no waiting lease has a base below, as a rule; 0 when that is not known';
COMMENT ON COLUMN fairness.waiting IS 'messages in waiting leases, at most: retention takes some away';
COMMENT ON COLUMN fairness.runs IS 'waiting leases, at most';
COMMENT ON COLUMN fairness.handed_out IS 'messages handed out for the first time since it came to wait';
COMMENT ON COLUMN fairness.served_at IS 'when it was last handed something, or came to wait';

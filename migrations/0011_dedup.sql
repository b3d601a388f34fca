-- Lane: the keys of publishes that must not happen twice. They live in rings of tables that take turns, so that old keys go
-- by a truncation, not row by row: dedup_0 to dedup_2 for windows of at most ten minutes, dedup_3 to dedup_5 for windows of at
-- most a day. src/store/turn.sql says which table is in use.

DROP TABLE dedup;

DO $$
BEGIN
    FOR n IN 0..5 LOOP
        EXECUTE format($sql$
            CREATE TABLE dedup_%1$s (
                lane_id      bigint NOT NULL,
                key          uuid NOT NULL,
                first_offset bigint NOT NULL CHECK (first_offset >= 0),
                expires_at   timestamptz NOT NULL,
                fingerprint  uuid,
                results      bytea
            );
            -- serves: the look-up of keys in a turn
            CREATE INDEX dedup_%1$s_key ON dedup_%1$s USING hash (key);
            COMMENT ON TABLE dedup_%1$s IS 'Keys of publishes that must not happen twice, and their messages';
            COMMENT ON COLUMN dedup_%1$s.lane_id IS 'the lane';
            COMMENT ON COLUMN dedup_%1$s.key IS 'the first 128 bits of the SHA-256 of lane, scope (dedup_id, Idempotency-Key of a single publish, of a batch) and key';
            COMMENT ON COLUMN dedup_%1$s.first_offset IS 'offset of the message; of a request, of its first new message';
            COMMENT ON COLUMN dedup_%1$s.expires_at IS 'end of the window';
            COMMENT ON COLUMN dedup_%1$s.fingerprint IS 'the first 128 bits of the SHA-256 of the request; null for a dedup_id';
            COMMENT ON COLUMN dedup_%1$s.results IS 'results of the request; null: its messages in order from first_offset on';
        $sql$, n);
    END LOOP;
END
$$;

COMMENT ON COLUMN lease.part IS '0: as handed out; above: messages that were split off when their visibility was changed, with their receipts intact';

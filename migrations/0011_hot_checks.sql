-- The tables that every turn writes to lose their CHECK constraints: Postgres reads the text of a table's constraints anew in
-- each statement that writes to the table, and with these a turn of one block took 688,000 instructions in the database,
-- without them 485,000 (`valgrind --tool=callgrind`, Postgres 15). What they said is typed where rows are made
-- (src/store/turn.rs, src/store/lease.rs), and every test ends with a query for rows that break it
-- (tests/it/harness/invariants.rs). NOT NULL costs nothing and stays.

ALTER TABLE block
    DROP CONSTRAINT block_bytes_check,
    DROP CONSTRAINT block_count_check,
    DROP CONSTRAINT block_first_offset_check,
    DROP CONSTRAINT block_object_offset_check,
    DROP CONSTRAINT block_place,
    DROP CONSTRAINT block_slot_check,
    DROP CONSTRAINT block_usage;

ALTER TABLE cursor
    DROP CONSTRAINT cursor_next_offset_check,
    DROP CONSTRAINT cursor_version_check;

ALTER TABLE lease
    DROP CONSTRAINT lease_attempt_check,
    DROP CONSTRAINT lease_base_check,
    DROP CONSTRAINT lease_part_check;

DO $$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format('ALTER TABLE hot_payload_%s DROP CONSTRAINT hot_payload_%s_data_check,
                                                   DROP CONSTRAINT hot_payload_%s_part_check', slot, slot, slot);
    END LOOP;
END
$$;

-- A turn of one block and nothing else, which is nearly every turn of a topic that is busy by itself. It is what turn_2 does
-- (0004_meter.sql) without statements over arrays, whose set-up costs more than the work: 290,000 instructions in the database
-- instead of 528,000 (`valgrind --tool=callgrind`, Postgres 15).
CREATE FUNCTION turn_block_1(
    p_now            timestamptz,
    p_lane           bigint,
    p_count          integer,
    p_bytes          bigint,
    p_compressed     boolean,
    p_slot           smallint,
    p_object         bigint,  -- null: the payload is p_data
    p_units          integer,
    p_elastic        integer,
    p_message_bytes  bigint,
    p_data           bytea,   -- in one part
    OUT at           timestamptz,
    OUT first_offset bigint   -- null where the lane is gone or closed
) LANGUAGE plpgsql AS $$
DECLARE
    v_closed boolean;
    v_start  bigint;
BEGIN
    SELECT l.closed, l.start_offset INTO v_closed, v_start FROM lane l WHERE l.lane_id = p_lane FOR UPDATE;
    at := coalesce(p_now, clock_timestamp());
    IF v_closed IS DISTINCT FROM false THEN
        RETURN;
    END IF;

    INSERT INTO block AS b (lane_id, first_offset, count, bytes, compressed, published_at, slot, object_id, object_offset,
                            units, elastic_units, message_bytes)
    VALUES (p_lane,
            coalesce((SELECT k.first_offset + k.count FROM block k
                      WHERE k.lane_id = p_lane ORDER BY k.first_offset DESC LIMIT 1), v_start),
            p_count, p_bytes, p_compressed, at, CASE WHEN p_object IS NULL THEN p_slot END, p_object,
            CASE WHEN p_object IS NOT NULL THEN 0 END, p_units, p_elastic, p_message_bytes)
    RETURNING b.first_offset INTO first_offset;

    IF p_object IS NULL THEN
        CASE p_slot
            WHEN 0 THEN INSERT INTO hot_payload_0 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            WHEN 1 THEN INSERT INTO hot_payload_1 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            WHEN 2 THEN INSERT INTO hot_payload_2 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            WHEN 3 THEN INSERT INTO hot_payload_3 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            WHEN 4 THEN INSERT INTO hot_payload_4 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            WHEN 5 THEN INSERT INTO hot_payload_5 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            WHEN 6 THEN INSERT INTO hot_payload_6 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
            WHEN 7 THEN INSERT INTO hot_payload_7 (lane_id, first_offset, part, data) VALUES (p_lane, first_offset, 0, p_data);
        END CASE;
    END IF;
END
$$;

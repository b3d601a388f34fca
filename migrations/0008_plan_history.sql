-- The plans of a tenant over time: a plan prices the days on which the tenant had it, so that another plan leaves past
-- months as they were billed. And what guaranteed capacity costs, which is metered by time like storage. Limits repeat
-- api/src/limits.rs.
--
-- tenant.price_plan stays for nodes of the version before, which price all days by it: nodes of this version write into it
-- the plan of the day of each change, and read it nowhere. A plan that a node of the version before gives to a tenant is
-- not seen by this one: give plans when the upgrade is over.

CREATE TABLE tenant_plan (
    tenant_id  bigint NOT NULL REFERENCES tenant,
    valid_from date NOT NULL,
    plan       text COLLATE "C" REFERENCES price_plan,
    created_at timestamptz NOT NULL,
    -- also serves reading a tenant's plans in order of time
    PRIMARY KEY (tenant_id, valid_from)
);
-- serves: whether a plan has tenants
CREATE INDEX tenant_plan_plan ON tenant_plan (plan) WHERE plan IS NOT NULL;
COMMENT ON TABLE tenant_plan IS 'Which price plan a tenant has from a day on, until its next row; before the first it has none. Rows of days that have begun never change, and no row repeats the plan of the one before';
COMMENT ON COLUMN tenant_plan.tenant_id IS 'who pays';
COMMENT ON COLUMN tenant_plan.valid_from IS 'the day (UTC) from whose start the tenant has the plan';
COMMENT ON COLUMN tenant_plan.plan IS 'what its usage costs; null: it has no price';
COMMENT ON COLUMN tenant_plan.created_at IS 'when this was said';

-- What a plan priced until now were all days since its first version.
INSERT INTO tenant_plan (tenant_id, valid_from, plan, created_at)
SELECT t.tenant_id, min(v.valid_from), t.price_plan, now()
FROM tenant t JOIN price_version v ON v.plan = t.price_plan
GROUP BY t.tenant_id, t.price_plan;

COMMENT ON COLUMN tenant.price_plan IS 'the plan of the day of the last change, for nodes of the version before; see tenant_plan';

ALTER TABLE price DROP CONSTRAINT price_item_check, ADD CONSTRAINT price_item_check
    CHECK (item IN ('publish_units', 'deliver_units', 'elastic_units', 'guaranteed_capacity', 'stored_hot', 'stored_object',
                    'traffic_in', 'traffic_out', 'cold_read'));
COMMENT ON COLUMN price.per IS 'for how many units, GiB, GiB-hours or capacity-hours (a message a second for an hour) the price is';
COMMENT ON COLUMN price.size IS 'units, GiB, GiB-hours or capacity-hours that the tier holds; null: all that is left, in the last tier';

CREATE TABLE capacity_meter (
    tenant_id  bigint PRIMARY KEY REFERENCES tenant,
    guaranteed bigint NOT NULL CHECK (guaranteed BETWEEN 1 AND 1000000000000000),
    posted_at  timestamptz NOT NULL
);
COMMENT ON TABLE capacity_meter IS 'Until when the guaranteed capacity of a tenant is posted to usage_hour; whoever posts it or changes the guarantee locks its row first, so each second counts once (I8). No row: no guarantee';
COMMENT ON COLUMN capacity_meter.tenant_id IS 'who pays, also while suspended';
COMMENT ON COLUMN capacity_meter.guaranteed IS 'messages per second, as in quota.messages_guaranteed';
COMMENT ON COLUMN capacity_meter.posted_at IS 'until when it is posted';

-- A guarantee that a node of the version before changes is metered when this version next sets the quota.
INSERT INTO capacity_meter (tenant_id, guaranteed, posted_at)
SELECT tenant_id, messages_guaranteed, now() FROM quota WHERE messages_guaranteed > 0;

-- Not validated, which would read all rows: those there are satisfied a narrower check.
ALTER TABLE usage_hour DROP CONSTRAINT usage_hour_meter_check, ADD CONSTRAINT usage_hour_meter_check
    CHECK (meter IN ('publish', 'dead_letter', 'deliver_pull', 'deliver_push', 'deliver_stream', 'cold_read',
                     'stored_hot', 'stored_object', 'guaranteed_capacity')) NOT VALID;
-- Its checks are named as those of the table that it was made like.
ALTER TABLE usage_day DROP CONSTRAINT usage_hour_meter_check, ADD CONSTRAINT usage_hour_meter_check
    CHECK (meter IN ('publish', 'dead_letter', 'deliver_pull', 'deliver_push', 'deliver_stream', 'cold_read',
                     'stored_hot', 'stored_object', 'guaranteed_capacity')) NOT VALID;
COMMENT ON COLUMN usage_hour.byte_seconds IS 'what is metered over time: of storage bytes by seconds, of guaranteed capacity messages a second by seconds; 0 of the rest';
COMMENT ON COLUMN usage_day.byte_seconds IS 'as in usage_hour';

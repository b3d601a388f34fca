-- The plans of a tenant over time: a plan prices the days on which the tenant had it, so that another plan leaves past
-- months as they were billed. Limits repeat api/src/limits.rs.
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

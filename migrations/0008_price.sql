-- Home: price plans, versioned by the day from which their prices apply, and the plans of each tenant over time: a plan prices
-- the days on which the tenant had it, so that another plan leaves past months as they were billed. Amounts are exact decimal
-- numbers. Limits repeat api/src/limits.rs.

CREATE TABLE price_plan (
    name       text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    currency   text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE price_plan IS 'Price plans; its currency stands here, so that no version has another one';
COMMENT ON COLUMN price_plan.name IS 'what it is called';
COMMENT ON COLUMN price_plan.currency IS 'ISO 4217';
COMMENT ON COLUMN price_plan.created_at IS 'time of creation';

CREATE TABLE price_version (
    plan       text COLLATE "C" NOT NULL REFERENCES price_plan ON DELETE CASCADE,
    valid_from date NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- also serves reading a plan's versions in order of time
    PRIMARY KEY (plan, valid_from)
);
COMMENT ON TABLE price_version IS 'Versions of price plans';
COMMENT ON COLUMN price_version.plan IS 'of which plan';
COMMENT ON COLUMN price_version.valid_from IS 'day (UTC) from whose start its prices apply, until the next version begins';
COMMENT ON COLUMN price_version.created_at IS 'time of creation';
COMMENT ON COLUMN price_version.updated_at IS 'time of the last change of its prices';

CREATE TABLE price (
    plan       text COLLATE "C" NOT NULL,
    valid_from date NOT NULL,
    item       text COLLATE "C" NOT NULL CHECK (item ~ '^[a-z][a-z_]{0,63}$'),
    tier       smallint NOT NULL CHECK (tier BETWEEN 0 AND 20),
    per        integer NOT NULL CHECK (per BETWEEN 1 AND 1000000),
    size       bigint CHECK (size BETWEEN 1 AND 999999999999999),
    unit_price numeric(15, 9) NOT NULL CHECK (unit_price >= 0),
    PRIMARY KEY (plan, valid_from, item, tier),
    FOREIGN KEY (plan, valid_from) REFERENCES price_version ON DELETE CASCADE
);
COMMENT ON TABLE price IS 'Prices of a version, a row a tier';
COMMENT ON COLUMN price.plan IS 'of which plan';
COMMENT ON COLUMN price.valid_from IS 'of which version';
COMMENT ON COLUMN price.item IS 'what is priced';
COMMENT ON COLUMN price.tier IS 'tiers fill up in this order over a month (UTC) and tenant';
COMMENT ON COLUMN price.per IS 'for how many units, GiB, GiB-hours or capacity-hours (a message a second for an hour) the price is';
COMMENT ON COLUMN price.size IS 'units, GiB, GiB-hours or capacity-hours that the tier holds; null: all that is left, in the last tier';
COMMENT ON COLUMN price.unit_price IS 'in the currency of the plan';

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
COMMENT ON COLUMN tenant_plan.created_at IS 'when this was written';

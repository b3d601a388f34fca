-- Home: what a tenant means to spend in a month, and the alerts that were sent about it. Limits repeat api/src/limits.rs.
--
-- Locks: the tenant's row (FOR UPDATE, as for a quota), its budgets, the outbox of events, the installation, the quota.

CREATE TABLE budget (
    budget_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id      bigint NOT NULL REFERENCES tenant,
    name           text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    amount         numeric(16, 4) NOT NULL CHECK (amount > 0),
    alert_percents smallint[] NOT NULL
        CHECK (cardinality(alert_percents) <= 10 AND 1 <= ALL (alert_percents) AND 1000 >= ALL (alert_percents)),
    hard_stop      boolean NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    -- also serves listing the budgets of a tenant, and the tenants that have any
    UNIQUE (tenant_id, name)
);
COMMENT ON TABLE budget IS 'What tenants mean to spend in a calendar month (UTC)';
COMMENT ON COLUMN budget.budget_id IS 'internal number';
COMMENT ON COLUMN budget.tenant_id IS 'whose usage';
COMMENT ON COLUMN budget.name IS 'what it is called';
COMMENT ON COLUMN budget.amount IS 'in the currency of the price plan that applies in the month';
COMMENT ON COLUMN budget.alert_percents IS 'percents of the amount at which an alert is sent, in rising order';
COMMENT ON COLUMN budget.hard_stop IS 'whether publishes and receives are refused when the amount is spent';
COMMENT ON COLUMN budget.created_at IS 'time of creation';
COMMENT ON COLUMN budget.updated_at IS 'time of the last change';

CREATE TABLE budget_alert (
    budget_id bigint NOT NULL REFERENCES budget ON DELETE CASCADE,
    month     date NOT NULL CHECK (extract(day FROM month) = 1),
    percent   smallint NOT NULL CHECK (percent BETWEEN 1 AND 1000),
    cost      numeric(30, 12) NOT NULL CHECK (cost >= 0),
    at        timestamptz NOT NULL,
    -- also serves reading the alerts of a budget in a month
    PRIMARY KEY (budget_id, month, percent)
);
-- serves: deleting what is old
CREATE INDEX budget_alert_month ON budget_alert (month);
COMMENT ON TABLE budget_alert IS 'Alerts that were sent: each once a month, unless the budget is raised above what is spent';
COMMENT ON COLUMN budget_alert.budget_id IS 'of which budget';
COMMENT ON COLUMN budget_alert.month IS 'first day of the month';
COMMENT ON COLUMN budget_alert.percent IS 'the percent of the amount that was spent';
COMMENT ON COLUMN budget_alert.cost IS 'what had been spent then';
COMMENT ON COLUMN budget_alert.at IS 'when that was seen';

-- Home: tenants, what opens them (keys, issuers of tokens), and the log of who changed what. Limits repeat api/src/limits.rs.

CREATE TABLE tenant (
    tenant_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text COLLATE "C" NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 128),
    created_at       timestamptz NOT NULL,
    suspended_at     timestamptz,
    suspended_reason text CHECK (length(suspended_reason) BETWEEN 1 AND 512),
    updated_at       timestamptz,
    CONSTRAINT tenant_name_form CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$')
);
COMMENT ON TABLE tenant IS 'Owner of topics, subscriptions and keys; nothing crosses tenants (I7)';
COMMENT ON COLUMN tenant.tenant_id IS 'internal number';
COMMENT ON COLUMN tenant.name IS 'shown to operators';
COMMENT ON COLUMN tenant.created_at IS 'time of creation';
COMMENT ON COLUMN tenant.suspended_at IS 'from then on its keys and tokens are refused; null: they are not';
COMMENT ON COLUMN tenant.suspended_reason IS 'why it is suspended';
COMMENT ON COLUMN tenant.updated_at IS 'time of the last change';

CREATE TABLE api_key (
    key_hash     bytea PRIMARY KEY CHECK (length(key_hash) = 32),
    key_id       text COLLATE "C" GENERATED ALWAYS AS (left(encode(key_hash, 'hex'), 16)) STORED,
    tenant_id    bigint NOT NULL REFERENCES tenant,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    scopes       text[] NOT NULL DEFAULT '{publish,receive,manage,usage}' CHECK (cardinality(scopes) BETWEEN 1 AND 32),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
-- serves: the look-up of a key that a request brings
CREATE UNIQUE INDEX api_key_id ON api_key (key_id);
-- serves: the keys of a tenant in order of age, and how many there are
CREATE INDEX api_key_tenant ON api_key (tenant_id, created_at, key_id);
COMMENT ON TABLE api_key IS 'Keys that open a tenant';
COMMENT ON COLUMN api_key.key_hash IS 'SHA-256 of the secret; the secret itself is shown once and never kept';
COMMENT ON COLUMN api_key.key_id IS 'what may be shown of it: 16 hexadecimal digits, the beginning of the hash';
COMMENT ON COLUMN api_key.tenant_id IS 'the tenant it opens';
COMMENT ON COLUMN api_key.name IS 'what the key is for';
COMMENT ON COLUMN api_key.scopes IS 'what it may do, each a permission or permission:names';
COMMENT ON COLUMN api_key.created_at IS 'time of creation';
COMMENT ON COLUMN api_key.expires_at IS 'from then on it is refused; null: never';
COMMENT ON COLUMN api_key.last_used_at IS 'when it was last used, within a minute; null: never';
COMMENT ON COLUMN api_key.revoked_at IS 'from then on it is refused';

CREATE TABLE issuer (
    issuer_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name               text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$'),
    issuer             text COLLATE "C" NOT NULL UNIQUE CHECK (length(issuer) BETWEEN 1 AND 2048),
    jwks_url           text NOT NULL CHECK (length(jwks_url) BETWEEN 1 AND 2048),
    audiences          text[] NOT NULL CHECK (cardinality(audiences) BETWEEN 1 AND 16),
    algorithms         text[] NOT NULL CHECK (cardinality(algorithms) >= 1 AND algorithms <@ '{RS256,ES256,EdDSA}'),
    tenant_id          bigint REFERENCES tenant,
    tenant_claim       text CHECK (length(tenant_claim) BETWEEN 1 AND 128),
    scope_claim        text NOT NULL CHECK (length(scope_claim) BETWEEN 1 AND 128),
    clock_skew_seconds integer NOT NULL CHECK (clock_skew_seconds BETWEEN 0 AND 300),
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    jwks               text CHECK (length(jwks) <= 262144),
    jwks_read_at       timestamptz,
    CONSTRAINT issuer_tenant CHECK ((tenant_id IS NULL) <> (tenant_claim IS NULL))
);
COMMENT ON TABLE issuer IS 'Whose tokens (JWT) are let in';
COMMENT ON COLUMN issuer.issuer_id IS 'internal number';
COMMENT ON COLUMN issuer.name IS 'what it is called here';
COMMENT ON COLUMN issuer.issuer IS 'the iss of its tokens';
COMMENT ON COLUMN issuer.jwks_url IS 'where its public keys are';
COMMENT ON COLUMN issuer.audiences IS 'one of these must stand in aud';
COMMENT ON COLUMN issuer.algorithms IS 'what its tokens may be signed with';
COMMENT ON COLUMN issuer.tenant_id IS 'the only tenant that its tokens open; null: tenant_claim says which';
COMMENT ON COLUMN issuer.tenant_claim IS 'the claim that names the tenant';
COMMENT ON COLUMN issuer.scope_claim IS 'the claim that has the scopes';
COMMENT ON COLUMN issuer.clock_skew_seconds IS 'seconds that its clock may be apart';
COMMENT ON COLUMN issuer.created_at IS 'time of creation';
COMMENT ON COLUMN issuer.updated_at IS 'time of the last change of settings';
COMMENT ON COLUMN issuer.jwks IS 'its public keys as last read, so that a node which starts while the issuer is down knows them';
COMMENT ON COLUMN issuer.jwks_read_at IS 'when they were last read';

CREATE TABLE audit (
    audit_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL,
    tenant_id bigint,
    actor     text NOT NULL CHECK (length(actor) BETWEEN 1 AND 4096),
    action    text NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
    target    text NOT NULL CHECK (length(target) BETWEEN 1 AND 256),
    detail    jsonb NOT NULL
);
-- serves: the log of one tenant
CREATE INDEX audit_tenant ON audit (tenant_id, audit_id);
-- serves: deleting what is too old
CREATE INDEX audit_at ON audit (at);
COMMENT ON TABLE audit IS 'Who changed what in the control plane; written by the transaction of the change';
COMMENT ON COLUMN audit.audit_id IS 'internal number, rising';
COMMENT ON COLUMN audit.at IS 'when';
COMMENT ON COLUMN audit.tenant_id IS 'owner of what was changed; null: it has no owner, as an issuer';
COMMENT ON COLUMN audit.actor IS 'key:<id>, token:<issuer>/<subject>, open or cli';
COMMENT ON COLUMN audit.action IS 'what was done: topic.put, key.revoke, …';
COMMENT ON COLUMN audit.target IS 'to what: a name or an id';
COMMENT ON COLUMN audit.detail IS 'what was asked for; never a secret';

INSERT INTO tenant (name, created_at) VALUES ('default', now());

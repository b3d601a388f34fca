-- Home: the most that the tokens of an issuer may do. Without it a claim alone made a token an operator of the service.

ALTER TABLE issuer
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{publish,receive,manage,usage}'
        CHECK (cardinality(scopes) BETWEEN 1 AND 32);
COMMENT ON COLUMN issuer.scopes IS 'the most that its tokens may do, each a permission or permission:names';

-- Home: which history of the database its rows belong to, so that nodes notice when something that was committed is lost
-- (src/store/history.rs).

ALTER TABLE installation
    ADD COLUMN history text COLLATE "C" CHECK (length(history) BETWEEN 1 AND 128),
    ADD COLUMN era integer NOT NULL DEFAULT 0 CHECK (era BETWEEN 0 AND 65535);
COMMENT ON COLUMN installation.history IS 'identifier of the server, database and timeline that wrote last; null until a node has seen it';
COMMENT ON COLUMN installation.era IS 'raised when another history is first seen; part of the ids of messages published from then on';

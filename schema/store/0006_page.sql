-- 0006_page.sql: who may read the page's data, while lhd is restarted.

CREATE TABLE page_keys (
  sha256     TEXT PRIMARY KEY,        -- of the key, hex; the key itself is nowhere
  role       TEXT NOT NULL,           -- read | steer
  uid        INTEGER NOT NULL,        -- who asked for it
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

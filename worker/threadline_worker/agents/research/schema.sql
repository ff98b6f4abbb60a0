-- The index of one corpus; written once to a temporary file, renamed into place, then only read.
-- passages: what is shown and cited. words: what is searched (contentless, so the text is stored once).
CREATE TABLE passages (
    number   INTEGER PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    title    TEXT NOT NULL,
    heading  TEXT NOT NULL,
    path     TEXT NOT NULL,
    location TEXT NOT NULL,
    text     TEXT NOT NULL
);
CREATE VIRTUAL TABLE words USING fts5 (
    title, heading, text, content='', tokenize='porter unicode61 remove_diacritics 2'
);

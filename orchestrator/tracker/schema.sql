-- Columns stand in the order in which a row is answered. The CHECK texts appear in error messages: leave them as they are.
CREATE TABLE issues (
    id TEXT PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL CHECK(length(title) <= 500),
    content TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'open',
    priority INTEGER NOT NULL DEFAULT 2 CHECK(priority >= 0 AND priority <= 4),
    assignee TEXT,
    archived INTEGER NOT NULL DEFAULT 0,
    archived_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    closed_at TEXT,
    parent_id TEXT,
    parent_uuid TEXT,
    external_links TEXT
);
CREATE INDEX issues_by_status ON issues (status, archived, id);

CREATE TABLE specs (
    id TEXT PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL CHECK(length(title) <= 500),
    file_path TEXT NOT NULL,
    content TEXT NOT NULL DEFAULT '',
    priority INTEGER NOT NULL DEFAULT 2 CHECK(priority >= 0 AND priority <= 4),
    archived INTEGER NOT NULL DEFAULT 0,
    archived_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    parent_id TEXT,
    parent_uuid TEXT,
    external_links TEXT
);

CREATE TABLE relationships (
    from_id TEXT NOT NULL,
    from_uuid TEXT NOT NULL,
    from_type TEXT NOT NULL,
    to_id TEXT NOT NULL,
    to_uuid TEXT NOT NULL,
    to_type TEXT NOT NULL,
    relationship_type TEXT NOT NULL,
    created_at TEXT NOT NULL,
    metadata TEXT,
    PRIMARY KEY (from_id, to_id, relationship_type)
);
CREATE INDEX relationships_by_target ON relationships (to_id);

CREATE TABLE tags (
    entity_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (entity_id, tag)
) WITHOUT ROWID;

CREATE TABLE feedback (
    id TEXT PRIMARY KEY,
    from_id TEXT,
    from_uuid TEXT,
    to_id TEXT NOT NULL,
    to_uuid TEXT NOT NULL,
    feedback_type TEXT NOT NULL,
    content TEXT NOT NULL,
    agent TEXT,
    anchor TEXT,
    dismissed INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE INDEX feedback_by_giver ON feedback (from_id);
CREATE INDEX feedback_by_target ON feedback (to_id);

-- The JSONL files as they stand: a write renders only what it touched, and copying a file is one scan in order.
CREATE TABLE lines (
    file TEXT NOT NULL,
    created_at TEXT NOT NULL,
    id TEXT NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (file, created_at, id)
) WITHOUT ROWID;

-- Who waits for whom, both spellings of it.
CREATE VIEW waits AS
    SELECT to_id AS waiting, from_id AS blocker FROM relationships WHERE relationship_type = 'blocks'
    UNION ALL
    SELECT from_id AS waiting, to_id AS blocker FROM relationships WHERE relationship_type = 'depends-on';

-- A blocker in needs_review holds nobody up; an archived one does.
CREATE VIEW held_up AS
    SELECT waiting, blocker FROM waits JOIN issues ON issues.id = blocker
    WHERE issues.status IN ('open', 'in_progress', 'blocked');

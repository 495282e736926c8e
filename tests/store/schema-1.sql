-- A state file of schema 1, as `.dump` of sqlite3 writes it.
BEGIN TRANSACTION;
CREATE TABLE incident (id INTEGER PRIMARY KEY, live INTEGER NOT NULL, check_name TEXT NOT NULL,
    body TEXT NOT NULL);
INSERT INTO "incident" VALUES(1,1,'web','{"id":"i1","check":"web","subject":"nginx.service","state":"open","finding":{"subject":"nginx.service","status":"critical","cause":"failed","summary":"it failed","measurements":{},"facts":{},"since":null,"intended":false,"transition":"","resource":"","implicates":[]},"looked":1769846400.0,"before":{"subject":"nginx.service","status":"critical","cause":"failed","summary":"it failed","measurements":{},"facts":{},"since":null,"intended":false,"transition":"","resource":"","implicates":[]},"after":null,"began":1769846400.0,"opened":null,"entered":1769846400.0,"ended":null,"resolved_by":null,"why":"","seen":1769846400.0,"look_ended":1769846400.0,"recent":[],"passing_since":null,"unclear_since":null,"run":null,"run_ended":null,"healed_by":null,"failing_since":null,"downtime":0.0,"held_since":null,"rejected":[],"approval":null,"retry_at":null,"retries":0,"acknowledged":"","shadowed":[],"said":[],"said_at":null}');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('serial','2');
CREATE TABLE notice (id INTEGER PRIMARY KEY, state TEXT NOT NULL, incident TEXT,
    body TEXT NOT NULL);
CREATE TABLE run (id INTEGER PRIMARY KEY, counted INTEGER NOT NULL, incident TEXT,
    body TEXT NOT NULL);
CREATE TABLE silence (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
INSERT INTO "silence" VALUES(2,'{"id":"s2","starts":1769846400.0,"ends":2769846400.0,"by":"root","comment":"","checks":["web"],"subjects":[],"labels":{},"runs":false}');
CREATE TABLE transition (number INTEGER PRIMARY KEY AUTOINCREMENT, incident TEXT NOT NULL,
    body TEXT NOT NULL);
INSERT INTO "transition" VALUES(1,'i1','{"incident":"i1","at":1769846400.0,"old":null,"new":"pending","why":"first failing look"}');
CREATE INDEX incident_live ON incident (live);
CREATE INDEX run_counted ON run (counted);
CREATE INDEX run_incident ON run (incident);
CREATE INDEX notice_state ON notice (state);
CREATE INDEX transition_incident ON transition (incident);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('transition',1);
COMMIT;
PRAGMA user_version = 1;

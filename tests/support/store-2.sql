-- A database of version 2, as the release before wrote it (sqlite3 .dump).
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE attempts (
        ban INTEGER NOT NULL REFERENCES bans (id) ON DELETE CASCADE,
        time REAL NOT NULL,
        asterisk TEXT NOT NULL,
        address TEXT NOT NULL,
        kind TEXT NOT NULL,
        proof INTEGER NOT NULL,
        service TEXT NOT NULL,
        transport TEXT NOT NULL,
        account TEXT NOT NULL,
        event TEXT NOT NULL,
        trusted INTEGER NOT NULL,
        tampered INTEGER NOT NULL
    ) STRICT;
INSERT INTO "attempts" VALUES(1,1700000000.25,'pbx','192.0.2.1','guess',0,'PJSIP','UDP','alice','ChallengeResponseFailed',1,0);
INSERT INTO "attempts" VALUES(1,1700000001.25,'pbx','192.0.2.1','guess',0,'PJSIP','UDP','alice','ChallengeResponseFailed',1,0);
INSERT INTO "attempts" VALUES(1,1700000002.25,'pbx','192.0.2.1','guess',0,'PJSIP','UDP','alice','ChallengeResponseFailed',1,0);
INSERT INTO "attempts" VALUES(1,1700000003.25,'pbx','192.0.2.1','guess',0,'PJSIP','UDP','alice','ChallengeResponseFailed',1,0);
INSERT INTO "attempts" VALUES(1,1700000004.25,'pbx','192.0.2.1','guess',0,'PJSIP','UDP','alice','ChallengeResponseFailed',1,0);
INSERT INTO "attempts" VALUES(3,1700000000.25,'pbx','192.0.2.2','guess',0,'PJSIP','UDP','o''neill 電話','ChallengeResponseFailed',1,0);
INSERT INTO "attempts" VALUES(3,1700000001.25,'pbx','192.0.2.2','guess',0,'PJSIP','UDP','o''neill 電話','ChallengeResponseFailed',1,0);
INSERT INTO "attempts" VALUES(3,1700000002.25,'pbx','192.0.2.2','guess',0,'PJSIP','UDP','o''neill 電話','ChallengeResponseFailed',1,0);
CREATE TABLE bans (
        id INTEGER PRIMARY KEY,
        network TEXT NOT NULL,
        since REAL NOT NULL,
        expires REAL NOT NULL,
        rule TEXT NOT NULL,
        reason TEXT NOT NULL,
        origin TEXT NOT NULL,
        ended REAL
    ) STRICT;
INSERT INTO "bans" VALUES(1,'192.0.2.1/32',1000.5,4600.5,'guess','somebody tries','rule',NULL);
INSERT INTO "bans" VALUES(2,'2001:db8::/64',1001.0,9999.0,'admin','a reason
of ''two'' lines','admin',NULL);
INSERT INTO "bans" VALUES(3,'192.0.2.2/32',1002.0,4602.0,'guess','somebody tries','rule',1500.0);
INSERT INTO "bans" VALUES(4,'203.0.113.0/24',1003.0,9000000000.0,'adopted','found in the kernel','adopted',NULL);
CREATE TABLE positions (source TEXT PRIMARY KEY, position TEXT NOT NULL) STRICT;
INSERT INTO "positions" VALUES('pbx/log /var/log/asterisk/messages','17 4711');
CREATE TABLE switches (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO "switches" VALUES('off',1);
CREATE INDEX bans_network ON bans (network, since);
CREATE INDEX bans_running ON bans (expires) WHERE ended IS NULL;
CREATE INDEX attempts_ban ON attempts (ban);
COMMIT;

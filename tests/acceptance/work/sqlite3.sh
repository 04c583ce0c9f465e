# A database of 100000 rows: indexes, joins, windows, full text, changes, rollback, and the file itself byte for byte.
sqlite3 --version | cut -d' ' -f1
sqlite3 work.db <<'Q'
PRAGMA journal_mode=WAL;
CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, city INTEGER, weight REAL);
CREATE TABLE city(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO city SELECT i, printf('city-%05d', i * 7919 % 10007) FROM n;
WITH RECURSIVE n(i, x) AS (SELECT 1, 12345 UNION ALL SELECT i + 1, (x * 1103515245 + 12345) % 2147483648 FROM n WHERE i < 100000)
  INSERT INTO person SELECT i, printf('%08x-%d', x, i % 97), 1 + x % 500, x / 1234567.0 FROM n;
CREATE INDEX by_city ON person(city, weight); CREATE INDEX by_name ON person(name);
SELECT count(*), sum(id), round(avg(weight), 6), min(name), max(name) FROM person;
SELECT c.name, count(*), printf('%.6f', avg(p.weight)) FROM person p JOIN city c ON c.id = p.city GROUP BY c.id ORDER BY 2 DESC, 1 LIMIT 20;
SELECT name FROM person WHERE name GLOB '*a[0-9]f*' ORDER BY name LIMIT 10;
SELECT id, rank() OVER (PARTITION BY city ORDER BY weight), printf('%.4f', sum(weight) OVER (ORDER BY id ROWS 10 PRECEDING)) FROM person WHERE id % 9973 = 0;
BEGIN; DELETE FROM person WHERE id % 3 = 0; SELECT count(*) FROM person; ROLLBACK; SELECT count(*) FROM person;
UPDATE person SET weight = weight * 1.5 WHERE city < 100; DELETE FROM person WHERE city BETWEEN 200 AND 250;
CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words SELECT replace(name, '-', ' ') || ' ' || city FROM person WHERE id % 5 = 0;
SELECT count(*) FROM words WHERE words MATCH '42'; SELECT length(zeroblob(1000));
SELECT json_group_array(x) FROM (SELECT json_object('id', id, 'w', round(weight, 3)) x FROM person ORDER BY weight, id LIMIT 5);
PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=DELETE; VACUUM; PRAGMA integrity_check; ANALYZE;
Q
sqlite3 work.db .dump | sha256sum
sha256sum work.db
sqlite3 work.db 'EXPLAIN QUERY PLAN SELECT * FROM person WHERE city = 3 AND weight > 2'

-- Why samples could not be used, with one example of each reason.
--   samples: Rejects with this reason.
--   example: The first of them: its tar, its member, and what was seen.
CREATE VIEW reject_reasons AS
SELECT run, reason, count(*) AS samples, min(shard || ' ' || member || ' ' || detail) AS example
FROM rejects
GROUP BY run, reason
ORDER BY run, samples DESC;

-- Samples whose count changed from one round to the next, with the g that moved them.
--   round: The round after the change.
--   before: Count in the round before.
--   after: Count in this round.
--   change: after - before; positive: raised.
--   g: The sample's g in the round before; null if that round did not probe it.
CREATE VIEW movers AS
SELECT new.run, new.round, new.uid, old.count AS before, new.count AS after, new.count - old.count AS change,
       metagradients.g, samples.text
FROM counts AS new
JOIN counts AS old ON old.run = new.run AND old.uid = new.uid AND old.round = new.round - 1
LEFT JOIN metagradients
       ON metagradients.run = old.run AND metagradients.round = old.round AND metagradients.uid = old.uid
      AND metagradients.probed
LEFT JOIN samples ON samples.run = new.run AND samples.uid = new.uid
WHERE new.count <> old.count;

-- Samples whose count changed from one round to the next, with the g that moved them.
-- needs: sample_rounds
--   round: The round after the change.
--   before: Count in the round before.
--   after: Count in this round.
--   change: after - before; positive: raised.
--   g: The sample's g in the round before; null if that round did not probe it.
CREATE VIEW movers AS
SELECT run, round, uid, before, count AS after, count - before AS change, g_before AS g, text
FROM sample_rounds
WHERE count <> before;

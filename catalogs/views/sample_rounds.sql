-- Every sample in every round, with the columns of the pool: its count, its g, and what moved it there.
--   count: Times the sample stands in the round's training multiset; 0: dropped.
--   before: Its count in the round before; null in the first.
--   g: Its g in this round; negative: more of it lowers the target loss; null if the round did not probe it.
--   g_before: Its g in the round before, which moved it to this count; null if that round did not probe it.
CREATE VIEW sample_rounds AS
SELECT now.run, now.round, now.uid, now.count, was.count AS before, now_g.g, was_g.g AS g_before,
       samples.* EXCLUDE (run, uid, round)
FROM counts AS now
LEFT JOIN counts AS was ON was.run = now.run AND was.uid = now.uid AND was.round = now.round - 1
LEFT JOIN metagradients AS now_g
       ON now_g.run = now.run AND now_g.uid = now.uid AND now_g.round = now.round AND now_g.probed
LEFT JOIN metagradients AS was_g
       ON was_g.run = now.run AND was_g.uid = now.uid AND was_g.round = now.round - 1 AND was_g.probed
JOIN samples ON samples.run = now.run AND samples.uid = now.uid;

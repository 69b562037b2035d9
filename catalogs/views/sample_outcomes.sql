-- What became of every sample: its count in the chosen round and in the last one, every g that led to it, and beside
-- them those of the chosen round and later ones, which changed nothing of it.
-- Before a round is chosen, the last round stands in for it.
--   outcome: dropped (count 0), kept (count 1) or repeated (count 2 or more), in the chosen round.
--   count: Times the sample stands in the chosen subset.
--   last_count: Times the sample stands in the multiset of the last round.
--   chosen_round: The round whose counts these are.
--   g_sum: Sum of the sample's g over the rounds before the chosen one; negative: more of it lowers the target loss.
--   g_last: The sample's g in the last round before the chosen one that probed it.
--   g_by_round: The sample's g in the order of the rounds before the chosen one that probed it.
--   probes: Rounds before the chosen one that probed the sample.
--   g_sum_later: Sum of its g in the chosen round and those after, which had no part in its count; null: not probed.
--   g_by_round_later: Its g in the chosen round and those after, in their order.
CREATE VIEW sample_outcomes AS
WITH last_rounds AS (
    SELECT run, max(round) AS last_round FROM counts GROUP BY run
), chosen_rounds AS (
    SELECT run, last_round, coalesce(max(choices.round), last_round) AS chosen_round
    FROM last_rounds LEFT JOIN choices USING (run)
    GROUP BY run, last_round
), final AS (
    SELECT run, uid, chosen_round,
           max(count) FILTER (round = chosen_round) AS count,
           max(count) FILTER (round = last_round) AS last_count
    FROM counts JOIN chosen_rounds USING (run)
    WHERE round IN (chosen_round, last_round)
    GROUP BY run, uid, chosen_round
), gradients AS (
    SELECT run, uid,
           sum(g ORDER BY round) FILTER (round < chosen_round) AS g_sum,
           arg_max(g, round) FILTER (round < chosen_round) AS g_last,
           list(g ORDER BY round) FILTER (round < chosen_round) AS g_by_round,
           count(*) FILTER (round < chosen_round) AS probes,
           sum(g ORDER BY round) FILTER (round >= chosen_round) AS g_sum_later,
           list(g ORDER BY round) FILTER (round >= chosen_round) AS g_by_round_later
    FROM metagradients JOIN chosen_rounds USING (run)
    WHERE probed
    GROUP BY run, uid
)
SELECT samples.run, samples.uid,
       CASE WHEN final.count = 0 THEN 'dropped'
            WHEN final.count = 1 THEN 'kept'
            WHEN final.count > 1 THEN 'repeated'
       END AS outcome,
       final.count, final.last_count, final.chosen_round,
       gradients.g_sum, gradients.g_last, gradients.g_by_round, coalesce(gradients.probes, 0) AS probes,
       gradients.g_sum_later, gradients.g_by_round_later,
       samples.* EXCLUDE (run, uid, round)
FROM samples
LEFT JOIN final USING (run, uid)
LEFT JOIN gradients USING (run, uid);

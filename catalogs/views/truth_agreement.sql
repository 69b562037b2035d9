-- How well each round's counts, and its metagradients, agree with the truth where captions were swapped on
-- purpose.
-- needs: samples.truth_clean (boolean)
--   kept: Samples with count > 0.
--   clean: Samples of the pool whose caption is their own.
--   precision: Share of the kept samples that are clean, 0 to 1.
--   weighted_precision: Share of the training multiset (counts as weights) that is clean, 0 to 1.
--   recall: Share of the clean samples that are kept, 0 to 1.
--   swapped_dropped: Share of the swapped samples that are dropped, 0 to 1.
--   auc: Chance that a clean sample has a lower g than a swapped one, 0 to 1; 0.5 is no better than chance.
--   auc_sum: The same for the sum of g over this round and those before.
CREATE VIEW truth_agreement AS
WITH known AS (
    SELECT run, uid, truth_clean AS clean FROM samples WHERE truth_clean IS NOT NULL
), scored AS (
    SELECT run, round, clean, g, sum(g) OVER (PARTITION BY run, uid ORDER BY round) AS g_sum
    FROM metagradients JOIN known USING (run, uid)
    WHERE probed
), ranked AS (
    -- Ranks from the highest g down, ties sharing their mean rank: the rank-sum form of the area.
    SELECT run, round, clean,
           rank() OVER (PARTITION BY run, round ORDER BY g DESC)
               + (count(*) OVER (PARTITION BY run, round, g) - 1) / 2 AS place,
           rank() OVER (PARTITION BY run, round ORDER BY g_sum DESC)
               + (count(*) OVER (PARTITION BY run, round, g_sum) - 1) / 2 AS place_sum
    FROM scored
), sums AS (
    SELECT run, round, count(*) FILTER (clean) AS good, count(*) FILTER (NOT clean) AS bad,
           sum(place) FILTER (clean) AS places, sum(place_sum) FILTER (clean) AS places_sum
    FROM ranked GROUP BY run, round
), areas AS (
    SELECT run, round,
           (places - good * (good + 1) / 2) / nullif(good * bad, 0) AS auc,
           (places_sum - good * (good + 1) / 2) / nullif(good * bad, 0) AS auc_sum
    FROM sums
)
SELECT run, round,
       count(*) FILTER (count > 0) AS kept,
       count(*) FILTER (clean) AS clean,
       count(*) FILTER (clean AND count > 0) / nullif(count(*) FILTER (count > 0), 0) AS precision,
       sum(count) FILTER (clean) / nullif(sum(count), 0) AS weighted_precision,
       count(*) FILTER (clean AND count > 0) / nullif(count(*) FILTER (clean), 0) AS recall,
       count(*) FILTER (NOT clean AND count = 0) / nullif(count(*) FILTER (NOT clean), 0) AS swapped_dropped,
       any_value(auc) AS auc, any_value(auc_sum) AS auc_sum
FROM counts JOIN known USING (run, uid) LEFT JOIN areas USING (run, round)
GROUP BY run, round
ORDER BY run, round;

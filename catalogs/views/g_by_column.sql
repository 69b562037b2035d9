-- Mean metagradient by $column and round, over the samples that the round probed:
-- what the target wants more or less of.
-- for each: samples
-- needs: sample_rounds
--   samples: Samples with this value that the round probed.
--   mean_g: Mean of their g; negative: more of them lowers the target loss.
--   standard_error: Standard error of mean_g.
--   share_wanted: Share of them with g < 0, 0 to 1.
--   mean_count: Mean of their counts in the round.
CREATE VIEW g_by_$column AS
SELECT run, round, $column, count(*) AS samples, avg(g) AS mean_g,
       stddev_samp(g) / sqrt(count(*)) AS standard_error, avg((g < 0)::INTEGER) AS share_wanted,
       avg(count) AS mean_count
FROM sample_rounds
WHERE g IS NOT NULL
GROUP BY run, round, $column;

-- The result: each subset trained afresh, over seeds, on the test data. Compare within one task and metric.
--   mean: Mean of the metric over the seeds.
--   std: Standard deviation over the seeds (n - 1); null with one seed.
--   n: Seeds.
--   lowest: Lowest value of any seed.
--   highest: Highest value of any seed.
CREATE VIEW comparison AS
SELECT run, round, task, metric, subset, avg(value) AS mean, stddev_samp(value) AS std, count(*) AS n,
       min(value) AS lowest, max(value) AS highest, max(samples_seen) AS samples_seen
FROM evaluations
GROUP BY run, round, task, metric, subset
ORDER BY run, round, task, metric, mean DESC;

-- The result: each subset trained afresh, over seeds, on the test data. Compare within one task and metric.
--   mean: Mean of the metric over the seeds.
--   std: Standard deviation over the seeds (divided by seeds - 1); null with one seed.
--   seeds: Number of trainings, a seed each.
--   n: Pictures or questions of the test, the same for all seeds; null in tables of earlier versions.
--   standard_error: Standard error of one training's value by the choice of the n, mean over the seeds; more seeds do not lower it. Null where the metric is no accuracy.
--   lowest: Lowest value of any seed.
--   highest: Highest value of any seed.
--   samples: Size of the training multiset, copies counted; mean over the seeds.
--   distinct_samples: Different samples of the training multiset; mean over the seeds.
CREATE VIEW comparison AS
SELECT run, round, task, metric, subset, avg(value) AS mean, stddev_samp(value) AS std,
       count(DISTINCT seed) AS seeds, max(n) AS n, avg(standard_error) AS standard_error,
       min(value) AS lowest, max(value) AS highest, max(samples_seen) AS samples_seen,
       round(avg(samples))::BIGINT AS samples, round(avg(distinct_samples))::BIGINT AS distinct_samples
FROM evaluations
GROUP BY run, round, task, metric, subset
ORDER BY run, round, task, metric, mean DESC;

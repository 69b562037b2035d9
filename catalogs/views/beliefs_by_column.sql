-- What g is taken for by $column after the last round, and the measured mean of all rounds with its interval:
-- what the target wants more or less of, and how surely.
-- for each: samples
-- needs: beliefs.p_helps
--   samples: Samples with this value that any round probed.
--   believed_g: Mean of what their g are taken for after the last round; negative: more of them lowers the target loss.
--   mean_p_helps: Mean probability that more of a sample lowers the target loss, 0 to 1.
--   mean_g: Mean over them of the mean of a sample's measured g over rounds.
--   low: Lower end of the 95 % interval of mean_g, by what the samples differ by; null for a single one.
--   high: Upper end of the same.
CREATE VIEW beliefs_by_$column AS
WITH measured AS (
    SELECT run, uid, avg(g ORDER BY round) AS g FROM metagradients WHERE probed GROUP BY run, uid
), believed AS (
    SELECT run, uid, arg_max(g_mean, round) AS g_mean, arg_max(p_helps, round) AS p_helps FROM beliefs GROUP BY run, uid
)
SELECT samples.run, samples.$column, count(*) AS samples, avg(g_mean) AS believed_g, avg(p_helps) AS mean_p_helps,
       avg(g) AS mean_g, avg(g) - 1.96 * stddev_samp(g) / sqrt(count(*)) AS low,
       avg(g) + 1.96 * stddev_samp(g) / sqrt(count(*)) AS high
FROM samples JOIN measured USING (run, uid) JOIN believed USING (run, uid)
GROUP BY samples.run, samples.$column;

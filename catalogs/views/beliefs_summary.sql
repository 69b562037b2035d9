-- One row a round: what the pool's g are taken for after it, and of how many samples it is sure whether they help.
-- needs: beliefs.p_helps
--   samples: Samples of the pool.
--   mean_g: Mean of what their g are taken for.
--   spread: Standard deviation of that among the samples.
--   typical_sd: Root mean square of what is left unsure of each.
--   share_helps: Share of the samples that help with a probability above 0.975, 0 to 1.
--   share_harms: Share of the samples that help with a probability below 0.025, 0 to 1.
CREATE VIEW beliefs_summary AS
SELECT run, round, count(*) AS samples, avg(g_mean) AS mean_g, stddev_samp(g_mean) AS spread,
       sqrt(avg(g_sd * g_sd)) AS typical_sd, avg((p_helps > 0.975)::INTEGER) AS share_helps,
       avg((p_helps < 0.025)::INTEGER) AS share_harms
FROM beliefs
GROUP BY run, round
ORDER BY run, round;

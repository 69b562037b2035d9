-- How alike what two tasks want is, a row a pair of many tasks and round.
-- needs: task_metagradients.g
--   other: The second task of the pair; each pair stands there in both orders.
--   correlation: Of both tasks' g over the probed samples, -1 to 1; 1: they want the same, -1: the opposite.
--   agreement: Share of the samples that both want, or neither does, 0 to 1.
--   samples: Probed samples.
CREATE VIEW task_similarity AS
SELECT run, round, one.task, two.task AS other, corr(one.g, two.g) AS correlation,
       avg(((one.g < 0) = (two.g < 0))::INTEGER) AS agreement, count(*) AS samples
FROM task_metagradients AS one JOIN task_metagradients AS two USING (run, round, uid)
WHERE one.task <> two.task
GROUP BY run, round, one.task, two.task
ORDER BY run, round, one.task, two.task;

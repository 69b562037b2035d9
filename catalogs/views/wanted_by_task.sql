-- Every probed sample by every one of many tasks (or groups of them): which of them want it, and how much.
-- needs: task_metagradients.g
--   task_number: Number of the task, from 1, by name.
--   g: d of the task's share of phi / d weight of the sample; negative: more of it lowers the task's loss.
--   strength: g in standard deviations of the task's g over the round's samples, so that tasks can be compared.
--   place: 1: the sample that the task wants most of all that were probed.
--   count: Times the sample stands in the round's training multiset.
CREATE VIEW wanted_by_task AS
SELECT run, round, task, dense_rank() OVER (PARTITION BY run, round ORDER BY task) AS task_number, uid, w.g,
       w.g / nullif(stddev_pop(w.g) OVER by_task, 0) AS strength,
       row_number() OVER (by_task ORDER BY w.g, uid ROWS UNBOUNDED PRECEDING) AS place,
       counts.count, samples.text
FROM task_metagradients AS w
LEFT JOIN counts USING (run, round, uid)
LEFT JOIN (SELECT run, uid, text FROM samples) AS samples USING (run, uid)
WINDOW by_task AS (PARTITION BY run, round, task);

-- Samples that one task wants and another does not, a row a sample: the tasks that are furthest apart on it.
-- needs: wanted_by_task
--   wanted_by: The task that wants it most, by strength.
--   unwanted_by: The task that wants it least.
--   wanted: Strength of the first, below 0: g in standard deviations of the task's g.
--   unwanted: Strength of the second, above 0.
--   clash: The smaller of the two sizes: how strongly both sides feel.
CREATE VIEW conflicts AS
SELECT *, least(-wanted, unwanted) AS clash
FROM (
    SELECT run, round, uid, arg_min(task, (strength, task)) AS wanted_by, arg_max(task, (strength, task)) AS unwanted_by,
           min(strength) AS wanted, max(strength) AS unwanted, any_value(count) AS count, any_value(text) AS text
    FROM wanted_by_task
    GROUP BY run, round, uid
)
WHERE wanted < 0 AND unwanted > 0;

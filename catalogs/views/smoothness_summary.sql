-- One row a recipe whose smoothness was measured: the mean over its directions, beside what the recipe can do.
--   directions: Random directions that it was measured along.
--   score: Mean metasmoothness S, -1 to 1; 1: smooth; null where a training became NaN or infinite.
--   lowest: Least S of a direction.
--   highest: Greatest S of a direction.
--   curvature: Mean second difference of the target loss, nats per h squared; 0: straight.
--   lds: Rank correlation, -1 to 1, of what its metagradient predicts of trainings without random subsets; null: not asked.
--   movement: Mean of the movement over the directions.
CREATE VIEW smoothness_summary AS
WITH whole AS (
    -- One direction that failed leaves its recipe without figures.
    SELECT *, bool_or(failure <> '') OVER (PARTITION BY run, variant) AS failed FROM smoothness
)
SELECT run, variant, count(*) AS directions, avg(score) FILTER (NOT failed) AS score,
       min(score) FILTER (NOT failed) AS lowest, max(score) FILTER (NOT failed) AS highest, any_value(lds) AS lds,
       avg(curvature) FILTER (NOT failed) AS curvature, avg(movement) FILTER (NOT failed) AS movement,
       any_value(h) AS h, any_value(target_loss) AS target_loss, any_value(heldout_accuracy) AS heldout_accuracy,
       max(failure) AS failure
FROM whole
GROUP BY run, variant
ORDER BY run, variant <> 'as it is', score DESC NULLS LAST;

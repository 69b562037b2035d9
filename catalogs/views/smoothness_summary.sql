-- One row a recipe whose smoothness was measured: the mean over its directions, beside what the recipe can do.
--   directions: Random directions that it was measured along.
--   score: Mean metasmoothness S, -1 to 1; 1: smooth; null where a training became NaN or infinite.
--   lowest: Least S of a direction.
--   highest: Greatest S of a direction.
--   curvature: Mean second difference of the target loss, nats per h squared; 0: straight.
--   lds: Rank correlation, -1 to 1, of what its metagradient predicts of trainings without random subsets; null: not asked.
--   movement: Mean of the movement over the directions.
CREATE VIEW smoothness_summary AS
SELECT run, variant, count(*) AS directions, avg(score) AS score, min(score) AS lowest, max(score) AS highest,
       any_value(lds) AS lds, avg(curvature) AS curvature, avg(movement) AS movement, any_value(h) AS h,
       any_value(target_loss) AS target_loss, any_value(heldout_accuracy) AS heldout_accuracy, max(failure) AS failure
FROM smoothness
GROUP BY run, variant
ORDER BY run, variant <> 'as it is', score DESC NULLS LAST;

-- The ten training samples that each output owes most to, and the ten that it would be better without.
-- needs: influences.g, outputs.measure
--   effect: helps: dropping it makes the output worse; harms: dropping it makes the output better.
--   place: 1 is the strongest.
CREATE VIEW influence_extremes AS
SELECT run, output, measure, effect, place, uid, label, g
FROM (
    SELECT i.run, i.output, o.measure, i.uid, i.label, i.g,
           CASE WHEN (i.g < 0) = (o.measure = 'loss') THEN 'helps' ELSE 'harms' END AS effect,
           row_number() OVER (PARTITION BY i.run, i.output, i.g < 0 ORDER BY abs(i.g) DESC, i.uid) AS place
    FROM influences i JOIN outputs o USING (run, output)
)
WHERE place <= 10
ORDER BY run, output, effect, place;

-- One row a round, with its wall time; `chosen` marks the round whose counts are the result.
-- needs: smoothness_summary
--   chosen: True for the round that was chosen.
--   smoothness: Metasmoothness of the recipe, -1 to 1 (1: smooth), in round 0; null where it was not measured.
--   seconds: Wall time of the round's phases together, seconds.
--   seconds_by_phase: Wall time of each phase, seconds.
CREATE VIEW rounds_summary AS
WITH clock AS (
    SELECT run, round, sum(seconds) AS seconds,
           map_from_entries(list((phase, seconds) ORDER BY phase)) AS seconds_by_phase
    FROM (SELECT run, round, phase, sum(seconds) AS seconds FROM timings GROUP BY run, round, phase)
    GROUP BY run, round
)
SELECT rounds.*, (rounds.run, rounds.round) IN (SELECT (run, round) FROM choices) AS chosen,
       own.score AS smoothness, clock.seconds, clock.seconds_by_phase
FROM rounds LEFT JOIN clock USING (run, round)
LEFT JOIN smoothness_summary AS own ON own.run = rounds.run AND own.variant = 'as it is' AND rounds.round = 0
ORDER BY rounds.run, rounds.round;

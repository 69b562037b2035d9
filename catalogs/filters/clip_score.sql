-- The pairs whose picture and caption CLIP finds most alike: a share of those that have a score, or all from a
-- threshold on. Exactly int(n * fraction) of the n pairs with a score stay, equal scores in the order of their uids; with
-- `upstream`, what DataComp's baselines.py keeps: one more, and all that tie with the last.
-- exactly one of: fraction, threshold
--   arch (b32 | l14) = l14: The CLIP that scored the pairs.
--   fraction (number 0..1, share) = none: Share of the scored pairs that stays.
--   threshold (number, cosine) = none: Least score that stays.
--   upstream (boolean) = false: Keep what DataComp's baselines.py keeps for `fraction`, with its off-by-one.
--   score (column, cosine) = clip_{arch}_similarity_score: The column of scores.
WITH scored AS (
    -- Scores are float32, and upstream compares them with the threshold as float32. NaN would pass as the highest.
    SELECT uid, {score}::FLOAT AS score FROM samples WHERE {score} IS NOT NULL AND NOT isnan({score}::FLOAT)
), quota AS (
    SELECT floor(count(*) * $fraction::DOUBLE)::BIGINT AS n, count(*) AS scored FROM scored
), worst AS (
    -- The last pair to stay; nothing for a fraction of 0, and upstream's index is past the end for a fraction of 1.
    SELECT score, uid FROM scored
    WHERE $fraction::DOUBLE IS NOT NULL AND (SELECT n > 0 OR $upstream FROM quota)
    ORDER BY score DESC, uid
    LIMIT 1 OFFSET (SELECT CASE WHEN $upstream THEN least(n, scored - 1) ELSE n - 1 END FROM quota)
)
SELECT uid FROM scored
WHERE score >= $threshold::FLOAT
   OR score > (SELECT score FROM worst)
   OR (score = (SELECT score FROM worst) AND ($upstream OR uid <= (SELECT uid FROM worst)));

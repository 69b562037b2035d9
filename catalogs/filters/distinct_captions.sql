-- One sample of each caption: that with the lowest uid. Or none of the captions that stand too often.
--   at_most (whole 1.., samples) = none: Captions that stand more often than this are left out altogether.
--   fold (boolean) = true: Captions that differ in case and in white space only are the same.
WITH captions AS (
    -- By a hash of 128 bits: a table of all captions of a large pool would not fit in memory.
    SELECT uid,
           md5_number(CASE WHEN $fold THEN lower(trim(regexp_replace(text, '[\s\pZ]+', ' ', 'g'))) ELSE text END) AS hash
    FROM samples
)
SELECT min(uid) AS uid FROM captions
GROUP BY hash HAVING count(*) <= coalesce($at_most::BIGINT, count(*));

-- So many samples drawn at random: those with the lowest numbers of `random_fraction`'s draw. A smaller size is part of
-- a larger one.
--   size (whole 1.., samples) = required: Samples to draw; all, where the pool has fewer.
--   seed (whole 0..) = 0: Another seed draws other samples.
SELECT uid FROM samples
ORDER BY md5_number_lower('mgd random ' || $seed::VARCHAR || ' ' || replace(uid::VARCHAR, '-', '')), uid
LIMIT $size;

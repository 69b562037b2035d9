-- Pictures of a certain size and shape. A picture without a size is left out.
--   min_side (number 0.., pixels) = 0: Least length of the shorter side.
--   max_side (number 0.., pixels) = none: Greatest length of the longer side.
--   max_aspect (number 1.., ratio) = none: The longer side is at most this many times the shorter one.
--   width (column, pixels) = original_width, width: The picture's width.
--   height (column, pixels) = original_height, height: The picture's height.
WITH measured AS (
    SELECT uid, least({width}, {height}) AS shorter, greatest({width}, {height}) AS longer
    FROM samples WHERE {width} IS NOT NULL AND {height} IS NOT NULL
)
SELECT uid FROM measured
WHERE shorter >= $min_side
  AND longer <= coalesce($max_side::DOUBLE, longer)
  AND longer <= coalesce($max_aspect::DOUBLE * shorter, longer);

-- Captions of a certain length, in words parted by white space as Python does, and in characters.
--   min_words (whole 0.., words) = 0: Fewest words.
--   max_words (whole 0.., words) = none: Most words.
--   min_characters (whole 0.., characters) = 0: Fewest characters.
--   max_characters (whole 0.., characters) = none: Most characters.
WITH measured AS (
    SELECT uid, length(text) AS characters,
           len(regexp_extract_all(text, '[^\s\pZ\x{0b}\x{1c}-\x{1f}\x{85}]+')) AS words
    FROM samples
)
SELECT uid FROM measured
WHERE words >= $min_words AND characters >= $min_characters
  AND words <= coalesce($max_words::BIGINT, words) AND characters <= coalesce($max_characters::BIGINT, characters);

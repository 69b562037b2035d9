-- DataComp's basic filter: captions in one language that have some words, pictures that are neither small nor narrow.
-- The language is fastText's first guess, as upstream's, here by the compressed form of the same model (lid.176).
-- A picture without a size is left out.
--   language (text) = en: Language of the captions that stay, as fastText calls it.
--   words (whole 0.., words) = 2: A caption has more words than this, parted by white space as Python does.
--   characters (whole 0.., characters) = 5: A caption has more characters than this.
--   side (number 0.., pixels) = 200: The shorter side is at least this long.
--   aspect (number 1.., ratio) = 3: The longer side is at most this many times the shorter one.
--   width (column, pixels) = original_width, width: The picture's width before it was resized.
--   height (column, pixels) = original_height, height: The picture's height before it was resized.
SELECT uid FROM samples
WHERE length(text) > $characters
  AND len(regexp_extract_all(text, '[^\s\pZ\x{0b}\x{1c}-\x{1f}\x{85}]+')) > $words
  AND least({width}, {height}) >= $side
  AND greatest({width}, {height}) <= $aspect * least({width}, {height})
  AND language(text) = $language;

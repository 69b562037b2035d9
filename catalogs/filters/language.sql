-- Captions in one language, by fastText's first guess (the compressed form of lid.176).
--   language (text) = en: Language of the captions that stay, as fastText calls it.
SELECT uid FROM samples WHERE language(text) = $language;

-- Where the curation and the truth disagree: swapped samples that were kept, clean ones that were
-- dropped.
-- needs: samples.truth_clean (boolean), sample_outcomes
CREATE VIEW mistakes AS
SELECT * FROM sample_outcomes
WHERE (truth_clean AND outcome = 'dropped') OR (NOT truth_clean AND outcome <> 'dropped');

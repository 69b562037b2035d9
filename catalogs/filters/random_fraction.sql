-- Each sample with the same chance, whatever else is in the pool. A smaller fraction is part of a larger one.
-- A sample stays where the last 8 bytes of md5("mgd random SEED UID"), UID in 32 hex digits, least byte first, are below
-- fraction * 2^64: any machine and any language can draw it again.
--   fraction (number 0..1, share) = required: Chance of a sample to stay.
--   seed (whole 0..) = 0: Another seed draws other samples.
SELECT uid FROM samples
WHERE md5_number_lower('mgd random ' || $seed::VARCHAR || ' ' || replace(uid::VARCHAR, '-', ''))::DOUBLE
      < $fraction::DOUBLE * 18446744073709551616.0;
